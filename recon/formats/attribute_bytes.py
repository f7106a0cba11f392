"""Where the bytes of a splat file go: positions, sizes, colour.

Input: a file that `registry.read_splats` has read. Output: bytes per attribute.
Does not: check anything, or unfold what lies folded: a gzip stream hides where its bytes go, so for SPZ 2 and 3 they are those of
its content.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..ply import MAX_HEADER_BYTES, parse_header
from . import compressed_ply, gltf, ksplat, spz
from .gltf_nodes import placed_primitives
from .reading import gunzip

WHOLE = "headers and the rest"
COLOUR_AND_OPACITY = "colour and opacity"
"""Formats that keep both in one word or picture."""
PLY_KINDS = (("f_dc_", "colour"), ("f_rest_", "SH beyond degree 0"), ("scale_", "scale"), ("rot_", "rotation"))
SOG_KINDS = {"means": "position", "scales": "scale", "quats": "rotation", "sh0": COLOUR_AND_OPACITY, "shN": "SH beyond degree 0"}
SPZ_ORDER = ("position", "opacity", "colour", "scale", "rotation", "SH beyond degree 0")
GLTF_KINDS = {"POSITION": "position", "ROTATION": "rotation", "SCALE": "scale", "OPACITY": "opacity", "SH": "SH beyond degree 0"}
KSPLAT_KINDS = {"mean": "position", "scale": "scale", "quat": "rotation", "colour": COLOUR_AND_OPACITY}


def attribute_bytes(path: Path, format_name: str) -> dict[str, int]:
    """Bytes of every attribute in a whole file, and what is left over; together the size of the file (or of its content)."""
    size = path.stat().st_size
    if path.name.lower() == "meta.json":
        parts = {part.stem: part.stat().st_size for part in path.parent.glob("*.webp")}
        return _with_rest(_sog(parts.items()), size + sum(parts.values()))
    if format_name in ("ply", "ply-normals"):
        with path.open("rb") as file:
            return _with_rest(_ply(path, file.read(MAX_HEADER_BYTES)), size)
    reader, data = READERS[format_name.rstrip("24")], path.read_bytes()
    folded = format_name.startswith("spz") and data[:2] == b"\x1f\x8b"
    found = reader(data)
    return _with_rest(found, sum(found.values()) + spz.HEADER_BYTES[3] if folded else size)


def _with_rest(found: dict[str, int], total: int) -> dict[str, int]:
    return found | {WHOLE: total - sum(found.values())}


def _summed(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    counter: Counter[str] = Counter()
    for name, size in pairs:
        counter[name] += size
    return dict(counter)


def _ply(path: Path, head: bytes) -> dict[str, int]:
    count, record, _, _ = parse_header(path, head)
    known = {"x": "position", "y": "position", "z": "position", "nx": "normals", "ny": "normals", "nz": "normals"}
    known["opacity"] = "opacity"

    def kind(name: str) -> str:
        return known.get(name) or next((label for start, label in PLY_KINDS if name.startswith(start)), "other columns")

    return _summed((kind(name), count * record[name].itemsize) for name in record.names or ())


def _compressed_ply(data: bytes) -> dict[str, int]:
    elements, _ = compressed_ply.parse_header(data)
    chunks, vertices = elements["chunk"], elements["vertex"][0]
    words = {"packed_position": "position", "packed_rotation": "rotation", "packed_scale": "scale"}
    found = {words.get(name, COLOUR_AND_OPACITY): 4 * vertices for name in elements["vertex"][1]}
    rest = elements.get("sh", (0, [], set()))
    return found | {"SH beyond degree 0": rest[0] * len(rest[1]), "boxes of chunks": 4 * chunks[0] * len(chunks[1])}


def _spz(data: bytes) -> dict[str, int]:
    head = gunzip(data, 16) if data[:2] == b"\x1f\x8b" else data[:32]
    _, version, count, degree = struct.unpack_from("<IIIB", head)
    if version == 4:
        streams, at = struct.unpack_from("<BI", head, 15)
        sizes = np.frombuffer(data, "<u8", 2 * streams, at)[::2].tolist()
    else:
        sizes = [count * size for size in (9, 1, 3, 3, 3 if version == 2 else 4, 3 * spz.DIMENSIONS[degree])]
    return dict(zip(SPZ_ORDER, sizes, strict=False))


def _sog(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    return _summed((SOG_KINDS.get(stem.split("_")[0], "other parts"), size) for stem, size in parts)


def _sog_archive(data: bytes) -> dict[str, int]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pictures = [entry for entry in archive.infolist() if entry.filename.endswith(".webp")]
        return _sog((Path(entry.filename).stem, entry.compress_size) for entry in pictures)


def _splat(data: bytes) -> dict[str, int]:
    count = len(data) // 32
    return {"position": 12 * count, "scale": 12 * count, COLOUR_AND_OPACITY: 4 * count, "rotation": 4 * count}


def _ksplat(data: bytes) -> dict[str, int]:
    count, level = struct.unpack_from("<I", data, 16)[0], struct.unpack_from("<H", data, 20)[0]
    record = np.dtype(ksplat.LEVELS[level][0])
    return {KSPLAT_KINDS[name]: count * record[name].itemsize for name in record.names or ()}


def _gltf(data: bytes) -> dict[str, int]:
    document, blob = gltf.split(data)
    stored = 1.0 if blob is not None else 4 / 3  # base64 spends four characters on three bytes
    sizes: dict[int, tuple[str, int]] = {}
    for primitive, _ in placed_primitives(document, gltf.EXTENSION):
        for name, index in primitive["attributes"].items():
            accessor, last = document["accessors"][index], name.rpartition(":")[2]
            each = np.dtype(gltf.KINDS[accessor["componentType"]]).itemsize * gltf.WIDTHS[accessor["type"]]
            kind = "colour" if last.startswith(("SH_DEGREE_0", "COLOR")) else GLTF_KINDS.get(last.split("_")[0], "other attributes")
            sizes[index] = (kind, round(accessor["count"] * each * stored))
    return _summed(sizes.values())


READERS: dict[str, Callable[[bytes], dict[str, int]]] = {
    "compressed-ply": _compressed_ply,
    "spz": _spz,
    "sog": _sog_archive,
    "splat": _splat,
    "ksplat": _ksplat,
    "glb": _gltf,
    "gltf": _gltf,
}
"""Name of the format (every SPZ under one) -> bytes per attribute."""
