"""SOG version 2 of PlayCanvas: Gaussians as lossless WebP pictures in a ZIP, with codebooks and an SH palette.

Input: ``Gaussians`` or bytes (a `.sog` archive), or the folder of a `meta.json`. Output: bytes or ``Gaussians``.
Does not: keep order (Gaussians follow a Z curve), or read streamed `lod-meta.json` scenes.

Positions are 16 bits per axis of sign(p) ln(1 + |p|); quaternions drop their largest component (its index is the alpha
channel minus 252); scales (logarithms) and degree 0 colours are indices into 256-value codebooks; SH beyond degree 0 is an
index into a palette of at most 65,536 vectors. World axes are those of the PLY file.
Source: developer.playcanvas.com, "The SOG Format".
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..records import Gaussians
from .codebooks import codebook, nearest_level, palette
from .packing import as_numpy, from_smallest_three, make_gaussians, morton_order, smallest_three
from .reading import BadFile, check_count, integer, number_list, parse_json, unfolding_limit

BANDS = {1: 3, 2: 8, 3: 15}
PER_ROW = 64
MOST_META = 4 << 20
"""Bytes of a meta.json; three codebooks of 256 numbers take 10 thousand."""
MOST_PALETTE = 65_536
QUAT_ALPHA = 252
FREE_COUNT = 1 << 20
"""A file may promise this many Gaussians however small it is; more need at least a byte each."""


def encode(gaussians: Gaussians) -> tuple[bytes, tuple[str, ...]]:
    """Pack to a `.sog` archive. Nothing is clamped: every range follows the scene."""
    gaussians = gaussians.select(torch.from_numpy(morton_order(as_numpy(gaussians.means))))
    count, sh = len(gaussians), as_numpy(gaussians.sh)
    width = math.ceil(math.sqrt(count) / 4) * 4
    pictures: dict[str, bytes] = {}

    def add(name: str, *channels: np.ndarray) -> str:
        pictures[f"{name}.webp"] = _picture(np.column_stack(channels).astype(np.uint8), width)
        return f"{name}.webp"

    means = as_numpy(gaussians.means).astype(np.float64)
    folded = np.sign(means) * np.log1p(np.abs(means))
    lower, upper = folded.min(axis=0), folded.max(axis=0)
    fixed = np.rint((folded - lower) / np.maximum(upper - lower, 1e-12) * 65535).astype(np.uint32)
    largest, others = smallest_three(as_numpy(gaussians.quats))
    log_scales = np.log(as_numpy(gaussians.scales))
    scale_levels, colour_levels = codebook(log_scales), codebook(sh[:, 0])
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "recon"},
        "count": count,
        "means": {
            "mins": lower.tolist(),
            "maxs": upper.tolist(),
            "files": [add("means_l", fixed & 255), add("means_u", fixed >> 8)],
        },
        "scales": {"codebook": _numbers(scale_levels), "files": [add("scales", nearest_level(log_scales, scale_levels))]},
        "quats": {"files": [add("quats", np.rint((others * np.sqrt(2.0) * 0.5 + 0.5) * 255), QUAT_ALPHA + largest)]},
        "sh0": {
            "codebook": _numbers(colour_levels),
            "files": [add("sh0", nearest_level(sh[:, 0], colour_levels), np.rint(as_numpy(gaussians.opacities) * 255))],
        },
    }
    if gaussians.sh_degree:
        meta["shN"] = _encode_palette(sh[:, 1:], gaussians.sh_degree, pictures, add)
    return _archive(meta, pictures), ()


def _encode_palette(rest: np.ndarray, bands: int, pictures: dict[str, bytes], add: Callable[..., str]) -> dict[str, Any]:
    """Write the palette of SH vectors and which entry every Gaussian takes."""
    count = len(rest)
    size = count if count < 1024 else min(MOST_PALETTE, 1024 << int(math.log2(count / 1024)))
    entries, labels = palette(rest.reshape(count, -1), size)
    levels = codebook(entries)
    rows = math.ceil(len(entries) / PER_ROW)
    padded = np.zeros((rows * PER_ROW, BANDS[bands], 3), dtype=np.uint8)
    padded[: len(entries)] = nearest_level(entries, levels).reshape(-1, BANDS[bands], 3)
    pictures["shN_centroids.webp"] = _webp(padded.reshape(rows, PER_ROW * BANDS[bands], 3))
    files = ["shN_centroids.webp", add("shN_labels", labels & 255, labels >> 8, np.zeros(count))]
    return {"count": len(entries), "bands": bands, "codebook": _numbers(levels), "files": files}


def _numbers(levels: np.ndarray) -> list[float]:
    return [float(f"{level:.7g}") for level in levels]


def _picture(channels: np.ndarray, width: int) -> bytes:
    """Lay N values of 3 or 4 channels out in rows; the rest of the picture stays 0."""
    height = math.ceil(len(channels) / width / 4) * 4
    padded = np.zeros((height * width, channels.shape[1]), dtype=np.uint8)
    padded[: len(channels)] = channels
    return _webp(padded.reshape(height, width, -1))


def _webp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # exact: colour under alpha 0 is data here
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=True, exact=True, quality=60, method=3)
    return buffer.getvalue()


def _archive(meta: dict[str, Any], pictures: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [("meta.json", json.dumps(meta, separators=(",", ":")).encode()), *pictures.items()]:
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def decode(data: bytes) -> Gaussians:
    """Unpack a `.sog` archive.

    Raises:
        BadFile: it is no archive, a part is missing or broken, or it lies about its size.
    """
    limit = unfolding_limit(len(data))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if sum(entry.file_size for entry in archive.infolist()) > limit:
                raise BadFile("its archive unfolds to far more than its size.")

            def read(name: str) -> bytes:
                if name not in names:
                    raise BadFile(f"its archive lacks {name[:80]!r}.")
                most = min(limit, MOST_META) if name == "meta.json" else limit
                if archive.getinfo(name).file_size > most:
                    raise BadFile(f"its {name[:80]!r} unfolds to far more than such a part holds.")
                with archive.open(name) as part:
                    return part.read(most)

            return decode_parts(read, len(data))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error) as error:
        raise BadFile(f"its archive is broken ({error}).") from error


def decode_parts(read: Callable[[str], bytes], total_bytes: int) -> Gaussians:
    """Unpack a scene whose parts ``read`` finds by name.

    Args:
        read: name of a part -> its bytes; raises BadFile when there is none.
        total_bytes: size of all parts together, which bounds what they may promise.
    """
    meta = parse_json(read("meta.json"), "its meta.json")
    if meta.get("version") != 2:
        raise BadFile(f"its meta.json says version {str(meta.get('version'))[:20]!r}; only SOG version 2 is read.")
    count = check_count(integer(meta, "count", "its meta.json", most=1 << 40), FREE_COUNT + total_bytes, 1, "it")

    def planes(part: str, names: int) -> list[np.ndarray]:
        files = meta.get(part, {}).get("files") if isinstance(meta.get(part), dict) else None
        if not isinstance(files, list) or len(files) < names or not all(isinstance(f, str) for f in files):
            raise BadFile(f"its meta.json lists no files for {part!r}.")
        return [_pixels(read(name), name, 2 * count + (1 << 22)) for name in files[:names]]

    low, high = (_rows(plane, count) for plane in planes("means", 2))
    lower, upper = (number_list(meta["means"], key, "its means", 3) for key in ("mins", "maxs"))
    folded = lower + ((high[:, :3].astype(np.uint32) << 8) | low[:, :3]) * ((upper - lower) / np.float32(65535))
    folded = np.clip(folded, -60, 60)
    quats = _rows(planes("quats", 1)[0], count)
    if quats[:, 3].min() < QUAT_ALPHA:
        raise BadFile("its quaternions name no dropped component.")
    scales, sh0 = _rows(planes("scales", 1)[0], count), _rows(planes("sh0", 1)[0], count)
    levels = {part: number_list(meta[part], "codebook", f"its {part}", 256) for part in ("scales", "sh0")}
    parts = [levels["sh0"][sh0[:, None, :3]]]
    if meta.get("shN") is not None:
        parts.append(_decode_palette(meta["shN"], planes("shN", 2), count))
    return make_gaussians(
        means=np.sign(folded) * np.expm1(np.abs(folded)),
        quats=from_smallest_three(
            quats[:, 3].astype(np.int64) - QUAT_ALPHA, (quats[:, :3] / np.float32(255) - 0.5) * np.float32(np.sqrt(2.0))
        ),
        scales=np.exp(np.clip(levels["scales"][scales[:, :3]], -60, 60)),
        opacities=sh0[:, 3] / np.float32(255),
        sh=np.concatenate(parts, axis=1),
    )


def _decode_palette(meta: Any, planes: list[np.ndarray], count: int) -> np.ndarray:
    """N K-1 3 coefficients."""
    bands, size = integer(meta, "bands", "its shN", least=1, most=3), integer(meta, "count", "its shN", least=1, most=MOST_PALETTE)
    centroids, labels = planes
    if centroids.shape[1] != PER_ROW * BANDS[bands] or centroids.shape[0] * PER_ROW < size:
        raise BadFile(f"its SH palette picture is {centroids.shape[1]} x {centroids.shape[0]}, which does not hold {size} entries.")
    table = number_list(meta, "codebook", "its shN", 256)[centroids[..., :3]].reshape(-1, BANDS[bands], 3)
    stored = _rows(labels, count)
    label = stored[:, 0].astype(np.int64) | (stored[:, 1].astype(np.int64) << 8)
    if int(label.max()) >= size:
        raise BadFile("an SH label points beyond the palette.")
    return table[label]


def _pixels(data: bytes, name: str, most_pixels: int) -> np.ndarray:
    """Decode a WebP picture as ``H W 4``."""
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            if picture.width * picture.height > most_pixels:
                raise BadFile(f"{name} is {picture.width} x {picture.height} pixels, far more than its Gaussians need.")
            return np.asarray(picture.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadFile(f"{name} is no readable WebP picture ({error}).") from error


def _rows(plane: np.ndarray, count: int) -> np.ndarray:
    """First ``count`` pixels, row by row."""
    if plane.shape[0] * plane.shape[1] < count:
        raise BadFile(f"a picture of {plane.shape[1]} x {plane.shape[0]} pixels does not hold {count:,} Gaussians.")
    return plane.reshape(-1, 4)[:count]
