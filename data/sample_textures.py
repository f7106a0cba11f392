"""Every picture in the sample scene, painted by arithmetic: woods, stone, cloth, print and a view out of the window.

Input: a seed. Output: named sRGB images, all of one size, u to the right and v downwards.
Does not: read files; nothing here was photographed or drawn by somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZE = 1024
"""Side of every texture in pixels."""

Image = np.ndarray
"""float ``SIZE SIZE 3`` in [0, 1]."""


def spectral_noise(rng: np.random.Generator, power: float, stretch_u: float = 1.0, stretch_v: float = 1.0) -> np.ndarray:
    """Make tileable noise around 0.5 whose amplitude falls as frequency to ``-power``; a small stretch makes streaks."""
    frequency = np.fft.fftfreq(SIZE, 1.0 / SIZE)
    radius = np.hypot(frequency[None, :] * stretch_u, frequency[:, None] * stretch_v)
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((SIZE, SIZE))) * np.maximum(radius, 2.0) ** -power
    noise = np.fft.ifft2(spectrum).real
    return np.clip(0.5 + 0.19 * (noise - noise.mean()) / noise.std(), 0.0, 1.0)


def palette(value: np.ndarray, stops: Sequence[str]) -> Image:
    """Colour ``value`` in [0, 1] by linear interpolation between evenly spaced ``#rrggbb`` stops."""
    colors = np.array([[int(stop[i : i + 2], 16) / 255.0 for i in (1, 3, 5)] for stop in stops])
    at = np.linspace(0.0, 1.0, len(stops))
    return np.stack([np.interp(value, at, colors[:, c]) for c in range(3)], axis=-1)


def mix(a: Image, b: Image | float, weight: np.ndarray) -> Image:
    """Blend from ``a`` to ``b`` where ``weight`` goes from 0 to 1."""
    return a + (b - a) * np.clip(weight, 0.0, 1.0)[..., None]


def flat(color: str) -> Image:
    return palette(np.zeros((SIZE, SIZE)), [color, color])


def grid_uv() -> tuple[np.ndarray, np.ndarray]:
    """Texel centres as ``u, v`` in [0, 1]."""
    at = (np.arange(SIZE) + 0.5) / SIZE
    return np.meshgrid(at, at)


def edge(distance: np.ndarray, softness: float) -> np.ndarray:
    """Soft step: 1 where ``distance`` is well below zero, 0 well above."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


# --- wood, stone, clay -------------------------------------------------------------------------------------------------


def planks(rng: np.random.Generator, stops: Sequence[str], rows: int, length: float, gap: float = 0.006) -> Image:
    """Lay ``rows`` of boards along u: each has its own tone and a shifted copy of one grain, with dark gaps between."""
    u, v = grid_uv()
    row = np.floor(v * rows).astype(int)
    shifted = u / length + rng.random(rows)[row]
    board = row * 64 + np.floor(shifted).astype(int) % max(int(1 / length), 1)
    grain = spectral_noise(rng, 1.25, 1.0, 0.045) * 0.65 + spectral_noise(rng, 0.7, 1.0, 0.03) * 0.35
    figure = 0.5 + 0.5 * np.sin(38.0 * spectral_noise(rng, 2.1, 1.0, 0.16) + 4.0 * v * rows)
    shift = rng.integers(0, SIZE, 4096)[board]
    rows_at, columns_at = np.indices((SIZE, SIZE))
    grain = grain[(rows_at + shift) % SIZE, (columns_at + 3 * shift) % SIZE]
    tone = np.clip(0.62 * grain + 0.2 * figure + 0.34 * rng.random(4096)[board] - 0.06, 0.0, 1.0)
    wood = palette(tone, stops)
    across = np.abs(v * rows - np.round(v * rows)) / rows
    along = np.abs(shifted - np.round(shifted)) * length
    return mix(wood, wood * 0.25, edge(np.minimum(across, along) - gap * 0.5, gap * 0.5))


def wood_rings(rng: np.random.Generator, stops: Sequence[str]) -> Image:
    """Cut through a trunk off its centre: wavy rings and fine radial grain."""
    u, v = grid_uv()
    radius = np.hypot(u - 0.38, (v - 0.6) * 1.3) + 0.07 * spectral_noise(rng, 2.0)
    ring = (radius * 26.0) % 1.0
    return palette(0.72 * ring**1.6 + 0.32 * spectral_noise(rng, 0.8, 0.2, 1.0), stops)


def marble(rng: np.random.Generator, stops: Sequence[str]) -> Image:
    """Fold sine waves with noise so that thin veins branch."""
    fold = spectral_noise(rng, 1.8)
    vein = np.abs(np.sin(14.0 * fold + 6.0 * spectral_noise(rng, 1.5))) ** 0.45
    return palette(0.85 * vein + 0.25 * (spectral_noise(rng, 1.1) - 0.3), stops)


def speckle(rng: np.random.Generator, base: str, spots: str, share: float) -> Image:
    """Sprinkle irregular spots over a cloudy glaze."""
    ground = flat(base) * (0.82 + 0.3 * spectral_noise(rng, 1.4))[..., None]
    return mix(ground, flat(spots), edge(spectral_noise(rng, 0.45) - share, 0.05) * 0.9)


def terrazzo(rng: np.random.Generator, base: str, chips: Sequence[str]) -> Image:
    """Press chips of several stones into cement: nearest-seed cells that are kept well inside their border."""
    u, v = grid_uv()
    count = 900
    seeds = rng.random((count, 2))
    best, second, owner = np.full(u.shape, 9.0), np.full(u.shape, 9.0), np.zeros(u.shape, dtype=int)
    order = np.argsort(seeds[:, 1])
    for index in order:
        low, high = int((seeds[index, 1] - 0.09) * SIZE), int((seeds[index, 1] + 0.09) * SIZE)
        rows = np.arange(low, high) % SIZE
        du = np.abs(u[rows] - seeds[index, 0])
        dv = np.abs(v[rows] - seeds[index, 1])
        distance = np.hypot(np.minimum(du, 1 - du), np.minimum(dv, 1 - dv)) * (0.8 + 0.4 * (index % 7) / 6)
        nearer = distance < best[rows]
        second[rows] = np.where(nearer, best[rows], np.minimum(second[rows], distance))
        owner[rows] = np.where(nearer, index, owner[rows])
        best[rows] = np.minimum(best[rows], distance)
    chip = palette(rng.random(count)[owner], chips)
    inside = edge(0.0035 + 0.006 * rng.random(count)[owner] - (second - best), 0.003)
    return mix(flat(base) * (0.85 + 0.3 * spectral_noise(rng, 0.9))[..., None], chip, inside)


def bricks(rng: np.random.Generator, stops: Sequence[str], rows: int, mortar: str) -> Image:
    """Running bond with a tone per brick and rough mortar."""
    u, v = grid_uv()
    row = np.floor(v * rows).astype(int)
    across = u * rows / 2.6 + 0.5 * (row % 2)
    across = across * (round(rows / 2.6) / (rows / 2.6))
    brick = row * 97 + np.floor(across).astype(int) % round(rows / 2.6)
    tone = 0.55 * rng.random(8192)[brick] + 0.55 * spectral_noise(rng, 0.9) - 0.05
    distance = np.minimum(np.abs(v * rows - np.round(v * rows)), 2.6 * np.abs(across - np.round(across)))
    joint = edge(distance - 0.06 - 0.08 * (spectral_noise(rng, 0.9) - 0.5), 0.06)
    return mix(palette(tone, stops), flat(mortar) * (0.75 + 0.4 * spectral_noise(rng, 0.5))[..., None], joint)


def plaster(rng: np.random.Generator, stops: Sequence[str]) -> Image:
    """Trowelled wall: broad clouds, streaks and fine grain."""
    streaks = spectral_noise(rng, 1.3, 0.35, 1.0)
    return palette(0.4 * spectral_noise(rng, 1.6) + 0.35 * streaks + 0.35 * spectral_noise(rng, 0.6) - 0.05, stops)


# --- cloth and wallpaper ---------------------------------------------------------------------------------------------------


def weave(rng: np.random.Generator, stripes: Sequence[str], repeats: int, threads: int = 128) -> Image:
    """Weave threads over and under; warp stripes in ``stripes``, brightness varies per thread."""
    u, v = grid_uv()
    warp, weft = u * threads, v * threads
    over = (np.floor(warp) + np.floor(weft)) % 2
    bulge = np.where(over > 0, np.abs(np.sin(np.pi * warp)), np.abs(np.sin(np.pi * weft)))
    thread = rng.random((2, threads))
    tone = np.where(over > 0, thread[0][np.floor(warp).astype(int)], thread[1][np.floor(weft).astype(int)])
    stripe = (np.floor(u * repeats * len(stripes)).astype(int) % len(stripes)) / max(len(stripes) - 1, 1)
    return palette(stripe, stripes) * (0.45 + 0.3 * bulge + 0.3 * tone + 0.2 * spectral_noise(rng, 1.2))[..., None]


def rug(rng: np.random.Generator, colors: Sequence[str]) -> Image:
    """Knotted rug: nested borders, diamonds and stepped motifs, mirrored twice."""
    u, v = grid_uv()
    knots = 120
    x, y = np.floor(np.abs(u - 0.5) * knots), np.floor(np.abs(v - 0.5) * knots)
    ring = np.maximum(x, y)
    motif = (x * 3 + np.floor(y / 2) * 5 + np.floor(ring / 9) * 2) % 11
    field = (np.floor((x + y) / 7) + (np.abs(x - y) < 4) * 2 + (motif < 4)) % len(colors)
    border = (np.floor(ring / 6) + (motif < 3)) % len(colors)
    index = np.where(ring > knots * 0.35, border, field)
    cloth = palette(index / (len(colors) - 1), colors)
    return cloth * (0.6 + 0.45 * spectral_noise(rng, 0.35) + 0.15 * spectral_noise(rng, 1.5))[..., None]


def wallpaper(rng: np.random.Generator, ground: str, ink: str, accent: str, repeats: int) -> Image:
    """Print sprigs of leaves on a half-drop lattice, each a little worn."""
    u, v = grid_uv()
    column = np.floor(u * repeats)
    x, y = u * repeats - column - 0.5, (v * repeats + 0.5 * (column % 2)) % 1.0 - 0.5
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    leaves = edge(radius - 0.36 * np.abs(np.cos(2.5 * angle + 0.6)) ** 1.5, 0.03)
    veins = edge(np.abs(np.sin(2.5 * angle + 0.6 - np.pi / 2)) * radius - 0.012, 0.012)
    stem = edge(np.abs(x + 0.12 * np.sin(2 * np.pi * y)) - 0.013, 0.02)
    berries = edge(np.hypot(x - 0.3, y - 0.33) - 0.055, 0.02) + edge(np.hypot(x + 0.3, y + 0.36) - 0.045, 0.02)
    worn = 0.55 + 0.6 * spectral_noise(rng, 1.0)
    paper = flat(ground) * (0.86 + 0.2 * spectral_noise(rng, 0.7))[..., None]
    paper = mix(paper, flat(ink), np.maximum(leaves * (1 - 0.7 * veins), stem) * worn * 0.8)
    return mix(paper, flat(accent), np.clip(berries, 0, 1) * worn)
