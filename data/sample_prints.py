"""Everything printed or pictured in the sample scene: invented letters, books, labels, posters and the view outside.

Input: a random generator and colours. Output: sRGB images like those of ``sample_textures``.
Does not: use a font or any picture made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sample_textures import SIZE, Image, edge, flat, grid_uv, mix, palette, spectral_noise


def glyphs(rng: np.random.Generator, count: int = 40) -> np.ndarray:
    """Invent an alphabet: ``count 9 6`` binary letters of joined strokes, blank at the right and below."""
    letters = np.zeros((count, 9, 6))
    for letter in letters:
        x, y = rng.integers(0, 5), rng.choice([0, 6])
        for _ in range(4):
            to_x, to_y = rng.integers(0, 5), rng.choice([0, 3, 6])
            if rng.random() < 0.5:
                letter[y, min(x, to_x) : max(x, to_x) + 1] = 1.0
                x = to_x
            else:
                letter[min(y, to_y) : max(y, to_y) + 1, x] = 1.0
                y = to_y
    return letters


def print_text(rng: np.random.Generator, page: Image, box: tuple[float, float, float, float], lines: int, ink: str) -> None:
    """Print ``lines`` of invented words into ``box`` (u0, v0, u1, v1) of ``page``, in place."""
    u0, v0, u1, v1 = (round(x * SIZE) for x in box)
    scale = max((v1 - v0) // (lines * 9), 1)
    columns = (u1 - u0) // (6 * scale)
    letters = glyphs(rng)
    for line in range(lines):
        text = letters[rng.integers(0, len(letters), columns)]
        text[rng.random(columns) < 0.17] = 0.0
        if line % 5 == 4:
            text[int(columns * rng.uniform(0.3, 0.8)) :] = 0.0
        row = np.kron(np.concatenate(list(text), axis=1), np.ones((scale, scale)))
        target = page[v0 + line * 9 * scale :, u0:][: row.shape[0], : row.shape[1]]
        row = row[: target.shape[0], : target.shape[1]]
        target[:] = mix(target, flat(ink)[: row.shape[0], : row.shape[1]], row * 0.9)


def cover(rng: np.random.Generator, ground: str, ink: str, accent: str, motif: int) -> Image:
    """Bind a book: cloth ground, a framed motif, a title and an author."""
    u, v = grid_uv()
    page = flat(ground) * (0.78 + 0.3 * spectral_noise(rng, 0.6) + 0.1 * spectral_noise(rng, 1.6))[..., None]
    x, y = (u - 0.5) * 2, (v - 0.62) * 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    shapes = (
        edge(np.abs(np.sin(9 * radius + 3 * angle)) - 0.45, 0.08) * edge(radius - 0.6, 0.02),
        edge(radius - 0.55 * (0.6 + 0.4 * np.cos(7 * angle)), 0.02) + edge(np.abs(radius - 0.64) - 0.015, 0.01),
        edge(np.abs((x + y) * 4 % 1 - 0.5) - 0.2, 0.05) * edge(np.abs(x) + np.abs(y) - 0.6, 0.02),
    )
    page = mix(page, flat(accent), shapes[motif % 3])
    frame = np.abs(np.maximum(np.abs(u - 0.5), np.abs(v - 0.5)) - 0.455)
    page = mix(page, flat(ink), edge(frame - 0.006, 0.004))
    print_text(rng, page, (0.12, 0.09, 0.9, 0.27), 2, ink)
    return page


def spines(rng: np.random.Generator, colors: Sequence[str], count: int) -> Image:
    """Stand ``count`` book spines side by side, each with bands and a title running down."""
    page = flat(colors[0])
    width = SIZE // count
    turned = np.zeros_like(page)
    for index in range(count):
        u0 = index * width
        ground = flat(colors[int(rng.integers(len(colors)))])[:, :width] * rng.uniform(0.75, 1.1)
        page[:, u0 : u0 + width] = ground
        for band in rng.uniform(0.04, 0.96, 5):
            page[int(band * SIZE) : int(band * SIZE) + int(rng.integers(6, 26)), u0 : u0 + width] *= rng.uniform(0.45, 1.35)
        turned[:] = page.transpose(1, 0, 2)
        print_text(rng, turned, (0.2, (u0 + 0.25 * width) / SIZE, 0.8, (u0 + 0.8 * width) / SIZE), 1, "#f3e6c4")
        page[:] = turned.transpose(1, 0, 2)
    return np.clip(page * (0.8 + 0.3 * spectral_noise(rng, 1.2))[..., None], 0.0, 1.0)


def page_edges(rng: np.random.Generator) -> Image:
    """Show the cut side of a book: many thin sheets."""
    return palette(spectral_noise(rng, 0.35, 1.0, 0.02) * 0.8 + 0.2 * spectral_noise(rng, 1.2), ["#8f7d5c", "#d8c9a4", "#f4ead0"])


def label(rng: np.random.Generator, ground: str, ink: str, accent: str) -> Image:
    """Design a wrap-around label: bands, medallions and small print, twice around."""
    u, v = grid_uv()
    page = flat(ground) * (0.88 + 0.2 * spectral_noise(rng, 0.9))[..., None]
    page = mix(page, flat(accent), edge(np.abs(np.abs(v - 0.5) - 0.4) - 0.03, 0.01))
    zigzag = np.abs(np.abs(v - 0.5) - 0.3 - 0.02 * np.abs((u * 24) % 1.0 - 0.5))
    page = mix(page, flat(ink), edge(zigzag - 0.006, 0.005))
    for center in (0.25, 0.75):
        x, y = (u - center) * 4.0, (v - 0.5) * 2.6
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        page = mix(page, flat(accent), edge(radius - 0.42 - 0.05 * np.cos(18 * angle), 0.02))
        page = mix(page, flat(ground), edge(radius - 0.34, 0.02))
        page = mix(page, flat(ink), edge(radius - 0.26 * (0.55 + 0.45 * np.cos(5 * angle + 0.4)), 0.02))
    print_text(rng, page, (0.39, 0.36, 0.62, 0.64), 4, ink)
    print_text(rng, page, (0.89, 0.3, 1.0, 0.7), 9, ink)
    print_text(rng, page, (0.0, 0.3, 0.11, 0.7), 9, ink)
    return page


def poster(rng: np.random.Generator, colors: Sequence[str], motif: int) -> Image:
    """Print an abstract poster on white paper: a sun over folded hills, or stacked half circles."""
    u, v = grid_uv()
    picture = flat(colors[0]) * (0.9 + 0.15 * spectral_noise(rng, 0.8))[..., None]
    if motif == 0:
        picture = mix(picture, flat(colors[1]), edge(np.hypot(u - 0.62, (v - 0.33) * 1.2) - 0.17, 0.004))
        for layer in range(5):
            ridge = 0.42 + 0.1 * layer + (0.1 - 0.01 * layer) * np.sin(u * (5 + 2 * layer) + 2.1 * layer)
            ridge += 0.05 * spectral_noise(rng, 1.5)[layer * 75][None, :]
            tone = flat(colors[2 + layer % (len(colors) - 2)]) * (0.75 + 0.35 * spectral_noise(rng, 0.9, 1.0, 0.2))[..., None]
            picture = mix(picture, tone, edge(ridge - v, 0.004))
    else:
        x, y = (u * 4) % 1.0, (v * 5) % 1.0
        cell = (np.floor(u * 4) + 4 * np.floor(v * 5)).astype(int)
        turn = rng.integers(0, 4, 32)[cell]
        x, y = np.where(turn % 2 == 0, x, 1 - x), np.where(turn < 2, y, 1 - y)
        radius = np.hypot(x, y)
        ink = palette(rng.random(32)[cell], colors[1:])
        picture = mix(picture, ink, edge(np.abs(radius - 0.55) - 0.33, 0.02))
        picture = mix(picture, palette(rng.random(32)[::-1][cell], colors[1:]), edge(radius - 0.12, 0.02))
    print_text(rng, picture, (0.1, 0.9, 0.9, 0.96), 1, "#20242a")
    margin = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5)) - 0.46
    return mix(picture, flat("#f1ede2") * (0.95 + 0.06 * spectral_noise(rng, 0.5))[..., None], 1.0 - edge(margin, 0.003))


def garden(rng: np.random.Generator) -> Image:
    """Paint what the window shows, a little out of focus: sky, far hills, a hedge, trees and a lawn in the sun."""
    u, v = grid_uv()
    clouds = 2.0 * (spectral_noise(rng, 2.0, 1.0, 2.2) - 0.45)
    view = mix(palette(v * 1.8, ["#8fb9e6", "#d3e5f5", "#f8f4e6"]), flat("#ffffff"), clouds)
    for layer, stops in enumerate((["#8fa5b0", "#a9bbc0"], ["#6f8d7a", "#93aa8c"], ["#5d7f45", "#9db564"])):
        ridge = 0.42 + 0.13 * layer + 0.14 * (spectral_noise(rng, 2.0)[37 + layer][None, :] - 0.5)
        view = mix(view, palette(spectral_noise(rng, 1.7), stops), edge(ridge - v, 0.02))
    for at, height in ((0.1, 0.42), (0.33, 0.3), (0.52, 0.2), (0.68, 0.46), (0.9, 0.34)):
        crown = spectral_noise(rng, 1.8)
        tree = np.hypot((u - at) * 1.5, v - 0.74 + height * 0.62) - height * (0.3 + 0.34 * crown)
        trunk = np.maximum(np.abs(u - at) - 0.008, np.abs(v - 0.72) - 0.12)
        view = mix(view, flat("#4b3a2a"), edge(trunk, 0.01))
        view = mix(view, palette(crown * 1.3 - 0.1, ["#2d4a24", "#557a32", "#9fb552"]), edge(tree, 0.03))
    return view


def open_pages(rng: np.random.Generator) -> Image:
    """Set two facing pages: a chapter with an initial on the left, a botanical plate on the right."""
    u, v = grid_uv()
    page = palette(0.7 + 0.25 * spectral_noise(rng, 1.6), ["#cdbd98", "#efe6cf", "#f4eddb"])
    for box, lines in (((0.08, 0.1, 0.43, 0.2), 1), ((0.2, 0.26, 0.43, 0.44), 4), ((0.08, 0.46, 0.43, 0.9), 10)):
        print_text(rng, page, box, lines, "#5a5046")
    initial = np.maximum(np.abs(u - 0.135), np.abs(v - 0.345)) - 0.05
    page = mix(page, flat("#a8432f"), edge(initial, 0.01))
    page = mix(page, flat("#f0e6cc"), edge(np.abs(np.hypot(u - 0.135, v - 0.345) - 0.03) - 0.008, 0.006))
    frame = np.abs(np.maximum(np.abs(u - 0.745) / 0.19, np.abs(v - 0.48) / 0.4) - 1.0)
    page = mix(page, flat("#8b7650"), edge(frame - 0.012, 0.01))
    stalk = np.maximum(np.abs(u - 0.745 - 0.02 * np.sin(7 * v)) - 0.006, np.abs(v - 0.55) - 0.27)
    page = mix(page, flat("#4f6b35"), edge(stalk, 0.006))
    for k in range(7):
        side, at = (-1) ** k, 0.72 - 0.055 * k
        x, y = (u - 0.745) * side - 0.055, (v - at) + 0.45 * ((u - 0.745) * side)
        page = mix(page, palette(spectral_noise(rng, 1.5), ["#4f6f38", "#86a257"]), edge(np.hypot(x / 0.055, y / 0.022) - 1, 0.12))
    x, y = (u - 0.752) * 0.62, v - 0.27
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    page = mix(page, flat("#c7604f"), edge(radius - 0.075 * (0.72 + 0.28 * np.cos(6 * angle)), 0.006))
    page = mix(page, flat("#e5b14c"), edge(radius - 0.024, 0.006))
    print_text(rng, page, (0.63, 0.82, 0.87, 0.86), 1, "#5a5046")
    gutter = np.exp(-(((u - 0.5) / 0.018) ** 2))
    return page * (1 - 0.35 * gutter)[..., None]


def globe(rng: np.random.Generator) -> Image:
    """Invent a planet: seas, coasts, lowlands and snow, under a grid of meridians and parallels."""
    u, v = grid_uv()
    height = spectral_noise(rng, 1.55, 1.0, 1.6) + 0.05 * (spectral_noise(rng, 0.7) - 0.5)
    land = palette((height - 0.52) * 2.6, ["#c9b978", "#8aa15a", "#b08a4e", "#efe9dc"])
    sea = palette(height * 1.5, ["#1d4a6e", "#2f7191", "#7db4b8"])
    world = mix(sea, land, edge(0.52 - height, 0.01))
    world = mix(world, flat("#5b4a2c"), edge(np.abs(height - 0.52) - 0.004, 0.004) * 0.9)
    meridians = np.abs(u * 24 - np.round(u * 24)) / 24 * np.maximum(np.sin(np.pi * v), 0.05)
    lines = np.minimum(meridians, np.abs(v * 12 - np.round(v * 12)) / 12)
    return mix(world, flat("#2c3036"), edge(lines - 0.0012, 0.0012) * 0.6)


def cardboard(rng: np.random.Generator) -> Image:
    """Make a parcel: fibres, faint corrugation, a taped seam, an address label and a stamp."""
    u, v = grid_uv()
    board = palette(0.7 * spectral_noise(rng, 0.6) + 0.3 * spectral_noise(rng, 1.4, 1.0, 0.1), ["#7d5a38", "#b08a5c", "#c8a678"])
    board = board * (0.97 + 0.03 * np.sin(u * 420.0))[..., None]
    tape = flat("#c9a15a") * (0.8 + 0.3 * spectral_noise(rng, 1.0, 0.05, 1.0))[..., None]
    board = mix(board, tape, edge(np.abs(v - 0.12) - 0.065, 0.004) * 0.8)
    paper = (u > 0.12) & (u < 0.62) & (v > 0.34) & (v < 0.78)
    board[paper] = (flat("#efeae0") * (0.94 + 0.1 * spectral_noise(rng, 0.6))[..., None])[paper]
    print_text(rng, board, (0.16, 0.38, 0.58, 0.74), 6, "#24262b")
    stamp = np.abs(np.hypot(u - 0.8, v - 0.52) - 0.11)
    board = mix(board, flat("#9b2f2a"), edge(stamp - 0.012, 0.006) * spectral_noise(rng, 0.6) * 1.5)
    print_text(rng, board, (0.72, 0.48, 0.9, 0.57), 2, "#9b2f2a")
    return board


def painted_pottery(rng: np.random.Generator) -> Image:
    """Brush cobalt bands, waves and flowers on white glaze, once around."""
    u, v = grid_uv()
    glaze = flat("#e9ebe6") * (0.93 + 0.1 * spectral_noise(rng, 1.2))[..., None]
    around = u * 10.0
    x, y = (around % 1.0) - 0.5, (v - 0.52) * 5.0
    radius, angle = np.hypot(x, y), np.arctan2(y, x) + np.floor(around)
    brush = edge(radius - 0.42 * (0.5 + 0.5 * np.abs(np.cos(3 * angle))), 0.03) * (1 - edge(radius - 0.07, 0.02))
    for at, width in ((0.06, 0.012), (0.12, 0.03), (0.3, 0.008), (0.74, 0.008), (0.84, 0.03), (0.93, 0.02)):
        brush = np.maximum(brush, edge(np.abs(v - at) - width, 0.006))
    brush = np.maximum(brush, edge(np.abs(v - 0.21 - 0.035 * np.sin(2 * np.pi * 20 * u)) - 0.008, 0.006))
    brush = np.maximum(brush, edge(np.abs(v - 0.79 - 0.03 * np.abs(((u * 24) % 1.0) - 0.5)) - 0.009, 0.006))
    cobalt = palette(spectral_noise(rng, 1.1), ["#12286b", "#2549a0", "#5d86cf"])
    return mix(glaze, cobalt, brush * (0.72 + 0.4 * spectral_noise(rng, 0.8)))


def leaf(rng: np.random.Generator) -> Image:
    """Grow a blade of grass-like leaf: a pale rib along v and fine parallel veins."""
    u, _ = grid_uv()
    green = palette(0.75 * spectral_noise(rng, 0.8, 1.0, 0.05) + 0.3 * spectral_noise(rng, 1.5), ["#23401c", "#4e7a2f", "#9dbb5a"])
    return mix(green, flat("#c9d68c"), edge(np.abs(u - 0.5) - 0.05, 0.08))


def peel(rng: np.random.Generator) -> Image:
    """Cover a citrus fruit: pores, blushes and a few freckles."""
    return fruit(rng, ["#b8500e", "#e88a1a", "#f6b544"], "#7d4413")


def fruit(rng: np.random.Generator, stops: Sequence[str], freckle: str) -> Image:
    """Ripen a fruit: a blush in ``stops``, pores, and freckles."""
    skin = palette(0.75 * spectral_noise(rng, 1.8) + 0.25 * spectral_noise(rng, 0.5), stops)
    return mix(skin, flat(freckle), edge(spectral_noise(rng, 0.7) - 0.16, 0.05) * 0.5)
