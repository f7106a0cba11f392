"""Every picture in the sample scene, painted by arithmetic: woods, stone, cloth, print and a view out of the window.

Input: a seed. Output: named sRGB images, all of one size, u to the right and v downwards.
Does not: read files; nothing here was photographed or drawn by somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZE = 512
"""Side of every texture in pixels."""

Image = np.ndarray
"""float ``SIZE SIZE 3`` in [0, 1]."""


def spectral_noise(rng: np.random.Generator, power: float, stretch_u: float = 1.0, stretch_v: float = 1.0) -> np.ndarray:
    """Make tileable noise around 0.5 whose amplitude falls as frequency to ``-power``; a small stretch makes streaks."""
    rows, columns = np.fft.fftfreq(SIZE, 1.0 / SIZE), np.fft.rfftfreq(SIZE, 1.0 / SIZE)
    radius = np.hypot(columns[None, :] * stretch_u, rows[:, None] * stretch_v)
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * np.maximum(radius, 2.0) ** -power
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
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
    grain = spectral_noise(rng, 1.55, 1.0, 0.045) * 0.75 + spectral_noise(rng, 1.1, 1.0, 0.03) * 0.25
    figure = 0.5 + 0.5 * np.sin(38.0 * spectral_noise(rng, 2.1, 1.0, 0.16) + 4.0 * v * rows)
    shift = rng.integers(0, SIZE, 4096)[board]
    rows_at, columns_at = np.indices((SIZE, SIZE))
    grain = grain[(rows_at + shift) % SIZE, (columns_at + 3 * shift) % SIZE]
    tone = np.clip(0.62 * grain + 0.14 * figure + 0.34 * rng.random(4096)[board] - 0.03, 0.0, 1.0)
    wood = palette(tone, stops)
    across = np.abs(v * rows - np.round(v * rows)) / rows
    along = np.abs(shifted - np.round(shifted)) * length
    return mix(wood, wood * 0.25, edge(np.minimum(across, along) - gap * 0.5, gap * 0.5))


def wood_rings(rng: np.random.Generator, stops: Sequence[str]) -> Image:
    """Cut through a trunk off its centre: wavy rings and fine radial grain."""
    u, v = grid_uv()
    radius = np.hypot(u - 0.38, (v - 0.6) * 1.3) + 0.07 * spectral_noise(rng, 2.0)
    ring = (radius * 26.0) % 1.0
    return palette(0.55 * ring**1.6 + 0.4 * spectral_noise(rng, 1.2, 0.2, 1.0), stops)


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
    return palette(0.55 * spectral_noise(rng, 1.8) + 0.35 * streaks + 0.12 * spectral_noise(rng, 0.9) - 0.01, stops)


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


def linen(rng: np.random.Generator, ground: str, bands: Sequence[str]) -> Image:
    """Weave a runner: slubbed linen, bands of colour along both long sides and broad ones at the ends."""
    u, v = grid_uv()
    cloth = flat(ground)
    rim = np.minimum(v, 1 - v)
    for color, at, half in ((bands[0], 0.11, 0.035), (bands[1], 0.19, 0.014), (bands[2], 0.245, 0.006)):
        cloth = mix(cloth, flat(color), edge(np.abs(rim - at) - half, 0.012) * 0.9)
    end = np.minimum(u, 1 - u)
    for color, at, half in ((bands[1], 0.05, 0.012), (bands[0], 0.095, 0.02), (bands[2], 0.13, 0.004)):
        cloth = mix(cloth, flat(color), edge(np.abs(end - at) - half, 0.004) * 0.9)
    slubs = 0.5 * spectral_noise(rng, 0.9, 0.06, 1.0) + 0.5 * spectral_noise(rng, 0.9, 1.0, 0.06)
    return cloth * (0.72 + 0.3 * slubs + 0.22 * spectral_noise(rng, 1.7))[..., None]
