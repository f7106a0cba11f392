"""glTF 2.0 with KHR_gaussian_splatting: `.glb`, and `.gltf` with its data inside.

Input: ``Gaussians`` (world y-down, OpenCV) or bytes. Output: bytes or ``Gaussians``.
Does not: compress, or read vendor compression (SPZ inside glTF).

glTF demands y up, so the world is turned by 180 degrees about x. Scales and opacities are linear, quaternions xyzw. A reader
that does not know the extension shows the coloured points of COLOR_0. Of several splat primitives all are read, each
through the transforms of its nodes.
Source: Khronos glTF, extensions/2.0/Khronos/KHR_gaussian_splatting.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np

from ..records import Gaussians
from .conventions import Y_UP, Similarity, moved_gaussians
from .gltf_nodes import placed_primitives
from .packing import as_numpy, colour_of, make_gaussians
from .reading import MAX_GAUSSIANS, BadFile, Reader, check_count, integer, parse_json

EXTENSION = "KHR_gaussian_splatting"
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
FLOAT, BYTE = 5126, 5121
ARRAY_BUFFER, POINTS = 34962, 0
DATA_URI = "data:application/octet-stream;base64,"


def encode(gaussians: Gaussians, *, binary: bool = True) -> tuple[bytes, tuple[str, ...]]:
    """Pack to a `.glb` (``binary``) or a `.gltf` that holds its data as base64."""
    turned = moved_gaussians(gaussians, Similarity(R_new_old=Y_UP))
    sh = as_numpy(turned.sh)
    columns: dict[str, np.ndarray] = {
        "POSITION": as_numpy(turned.means),
        "COLOR_0": _fallback_colour(colour_of(sh), as_numpy(turned.opacities)),
        f"{EXTENSION}:ROTATION": np.roll(as_numpy(turned.quats), -1, axis=1),
        f"{EXTENSION}:SCALE": as_numpy(turned.scales),
        f"{EXTENSION}:OPACITY": as_numpy(turned.opacities)[:, None],
    }
    columns |= {name: sh[:, index] for index, name in enumerate(_sh_names(turned.sh_degree))}
    document, blob = _document(columns)
    if not binary:
        document["buffers"][0]["uri"] = DATA_URI + base64.b64encode(blob).decode("ascii")
        return json.dumps(document).encode(), ()
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(blob), BINARY_CHUNK) + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks, ()


def _sh_names(degree: int) -> list[str]:
    return [f"{EXTENSION}:SH_DEGREE_{band}_COEF_{index}" for band in range(degree + 1) for index in range(2 * band + 1)]


def _fallback_colour(colour: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """N 4 bytes; glTF wants vertex colours linear, ours are sRGB."""
    srgb = np.clip(colour, 0.0, 1.0)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.rint(np.column_stack([linear, opacities]) * 255.0).astype(np.uint8)


def _document(columns: dict[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """One node, one mesh, one primitive of points, one buffer view per attribute."""
    views, accessors, parts, start = [], [], [], 0
    for name, values in columns.items():
        data = np.ascontiguousarray(values).tobytes()
        accessor: dict[str, Any] = {
            "bufferView": len(views),
            "componentType": BYTE if values.dtype == np.uint8 else FLOAT,
            "count": len(values),
            "type": {width: kind for kind, width in WIDTHS.items()}[values.shape[1]],
        }
        if values.dtype == np.uint8:
            accessor["normalized"] = True
        if name == "POSITION":
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        views.append({"buffer": 0, "byteOffset": start, "byteLength": len(data), "target": ARRAY_BUFFER})
        accessors.append(accessor)
        parts.append(data)
        start += len(data)
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display", "projection": "perspective"}
    primitive = {
        "attributes": {name: index for index, name in enumerate(columns)},
        "mode": POINTS,
        "extensions": {EXTENSION: extension | {"sortingMethod": "cameraDistance"}},
    }
    document = {
        "asset": {"version": "2.0", "generator": "recon"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "splats"}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": start}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return document, b"".join(parts)


def decode(data: bytes) -> Gaussians:
    """Unpack a `.glb` or a self-contained `.gltf`.

    Raises:
        BadFile: it is neither, it holds no splats, it is compressed, or it lies about its size.
    """
    document, blob = split(data)
    found = placed_primitives(document, EXTENSION)
    if not found:
        raise BadFile(f"it holds no primitive with {EXTENSION}; a mesh is not a splat scene.")
    buffers = _buffers(document, blob)
    to_ours = Similarity(R_new_old=Y_UP.T)
    parts = [moved_gaussians(_primitive(document, primitive, buffers), to_ours.after(place)) for primitive, place in found]
    return Gaussians.concatenate(parts)


def split(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON document and the binary chunk, if any."""
    if not data.startswith(b"glTF"):
        return parse_json(data, "it"), None
    reader = Reader(data, "the .glb file")
    version, length = (int(v) for v in reader.array("<u4", 3)[1:])
    if version != 2 or length > len(data):
        raise BadFile(f"its header says glTF {version} and {length:,} bytes of {len(data):,}.")
    chunks: dict[int, memoryview] = {}
    while reader.left >= 8 and len(chunks) < 8:
        size, kind = (int(v) for v in reader.array("<u4", 2))
        chunks.setdefault(kind, reader.take(size))
    if JSON_CHUNK not in chunks:
        raise BadFile("it has no JSON chunk.")
    blob = chunks.get(BINARY_CHUNK)
    return parse_json(chunks[JSON_CHUNK], "its JSON chunk"), None if blob is None else bytes(blob)


def _buffers(document: dict[str, Any], blob: bytes | None) -> list[bytes]:
    """Bytes of every buffer: the binary chunk or a data URI. Other files are not opened."""
    buffers = []
    for index, buffer in enumerate(_list(document, "buffers")):
        uri = buffer.get("uri") if isinstance(buffer, dict) else None
        if uri is None and index == 0 and blob is not None:
            buffers.append(blob)
        elif isinstance(uri, str) and uri.startswith("data:") and ";base64," in uri[:100]:
            try:
                buffers.append(base64.b64decode(uri.split(",", 1)[1], validate=True))
            except (binascii.Error, ValueError) as error:
                raise BadFile(f"buffer {index} is not valid base64 ({error}).") from error
        else:
            raise BadFile(f"buffer {index} lies outside the file; only self-contained glTF is read.")
    return buffers


def _list(document: dict[str, Any], key: str) -> list[Any]:
    content = document.get(key, [])
    return content if isinstance(content, list) else []


def _primitive(document: dict[str, Any], primitive: dict[str, Any], buffers: list[bytes]) -> Gaussians:
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or primitive.get("mode") != POINTS:
        raise BadFile("its splat primitive is not made of points.")

    def column(name: str) -> np.ndarray:
        return _accessor(document, attributes.get(name), buffers, name)

    means = column("POSITION")
    names = [name for degree in range(4) for name in _sh_names(degree)[degree * degree :] if _sh_names(degree)[-1] in attributes]
    if "KHR_gaussian_splatting:SH_DEGREE_0_COEF_0" not in names:
        raise BadFile("its splats carry no colour; a compressed variant is not read.")
    values = {
        "quats": np.roll(column(f"{EXTENSION}:ROTATION"), 1, axis=1),
        "scales": column(f"{EXTENSION}:SCALE"),
        "opacities": column(f"{EXTENSION}:OPACITY"),
        "sh": np.stack([column(name) for name in names], axis=1),
    }
    wide = {"quats": 4, "scales": 3, "opacities": 1, "sh": 3}
    if means.shape[1] != 3 or any(len(v) != len(means) or v.shape[-1] != wide[k] for k, v in values.items()):
        raise BadFile("the attributes of its splats differ in length or kind.")
    return make_gaussians(means=means, **{**values, "opacities": values["opacities"][:, 0]})


def _accessor(document: dict[str, Any], index: Any, buffers: list[bytes], name: str) -> np.ndarray:
    """Read one accessor as float32 N C, applying `normalized`.

    Raises:
        BadFile: it is missing, sparse, of an unknown kind, or points outside its buffer.
    """
    accessors, views = _list(document, "accessors"), _list(document, "bufferViews")
    if type(index) is not int or not 0 <= index < len(accessors) or not isinstance(accessors[index], dict):
        raise BadFile(f"attribute {name} has no accessor.")
    accessor = accessors[index]
    at = integer(accessor, "bufferView", f"the accessor of {name}", most=max(len(views) - 1, 0))
    component = accessor.get("componentType")
    kind, width = KINDS.get(component) if isinstance(component, int) else None, WIDTHS.get(str(accessor.get("type")))
    if not buffers:
        raise BadFile("it has no buffer that holds its splats.")
    if kind is None or width is None or "sparse" in accessor or not views or not isinstance(views[at], dict):
        raise BadFile(f"the accessor of {name} is of a kind that is not read.")
    view = views[at]
    buffer = integer(view, "buffer", "a buffer view", most=max(len(buffers) - 1, 0))
    offsets = [integer({"byteOffset": 0} | part, "byteOffset", name) for part in (view, accessor)]
    size = np.dtype(kind).itemsize * width
    stride = integer({"byteStride": size} | view, "byteStride", "a buffer view", least=size, most=252)
    count = check_count(integer(accessor, "count", name, most=MAX_GAUSSIANS * 100), len(buffers[buffer]) + stride, stride, "it")
    body = Reader(buffers[buffer], "its buffer")
    body.take(sum(offsets))
    data = np.frombuffer(body.take((count - 1) * stride + size), dtype=np.uint8)
    rows = np.lib.stride_tricks.as_strided(data, (count, size), (stride, 1), writeable=False)
    values = np.ascontiguousarray(rows).view(kind).astype(np.float32)
    if accessor.get("normalized") is True and kind != "<f4":
        values = np.maximum(values / np.float32(np.iinfo(np.dtype(kind)).max), -1.0)
    return values
