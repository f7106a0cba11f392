"""Broken and hostile files: an honest error or a scene, never a crash, a hang, or memory without bound."""

from __future__ import annotations

import gzip
import io
import json
import math
import struct
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from splat_scenes import cloud
from test_recon_formats import ksplat_file

from recon.editing import CleanConfig, clean
from recon.errors import UserError
from recon.formats import compressed_ply, gltf, ksplat, sog, splat, spz
from recon.formats.registry import FORMATS, finite_mask, read_splats, write_splats
from recon.ply import read_ply, write_ply
from recon.records import Gaussians

SMALL = cloud(count=5, degree=1)


def through_a_file(data: bytes) -> Gaussians:
    """The PLY reader takes a path."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.ply").write_bytes(data)
        return read_ply(Path(folder) / "a.ply", keep_broken=True)


def ply_bytes(gaussians: Gaussians) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_ply(Path(folder) / "a.ply", gaussians)
        return (Path(folder) / "a.ply").read_bytes()


FILES: dict[str, tuple[bytes, Callable]] = {
    "ply": (ply_bytes(SMALL), through_a_file),
    "splat": (splat.encode(SMALL)[0], splat.decode),
    "compressed-ply": (compressed_ply.encode(SMALL)[0], compressed_ply.decode),
    "spz2": (spz.encode(SMALL, version=2)[0], spz.decode),
    "spz3": (spz.encode(SMALL, version=3)[0], spz.decode),
    "spz4": (spz.encode(SMALL, version=4)[0], spz.decode),
    "sog": (sog.encode(SMALL)[0], sog.decode),
    "ksplat": (ksplat_file(SMALL, 1), ksplat.decode),
    "glb": (gltf.encode(SMALL)[0], gltf.decode),
    "gltf": (gltf.encode(SMALL, binary=False)[0], gltf.decode),
}
SELF_DESCRIBING = sorted(set(FILES) - {"splat"})
"""Formats with a header; a .splat is nothing but records."""
TRIALS = 150
LONG_TRIALS = 20_000
MEMORY_BYTES = 400 << 20
SLOW_S = 1.0
"""A single file, processor time: a busy machine does not count."""
EVERY_BYTE = 12_000
"""Files up to this size are cut at every byte."""


def survives(decode: Callable, data: bytes) -> bool:
    """True when the bytes were read, False when they were refused in words; anything else fails the test."""
    started = time.process_time()
    try:
        count = len(decode(data))
    except UserError:
        count = 0
    assert count <= 4_000_000
    assert time.process_time() - started < SLOW_S
    return count > 0


@pytest.mark.parametrize("name", FILES)
def test_truncated_anywhere(name: str) -> None:
    data, decode = FILES[name]
    assert survives(decode, data)
    assert len(data) <= EVERY_BYTE
    for length in range(len(data)):
        if survives(decode, data[:length]):
            assert name == "splat", f"{length} of {len(data)} bytes were taken for a whole {name} file"
            assert length % 32 == 0


def damaged(data: bytes, rng: np.random.Generator, head: int) -> bytes:
    """Change one to four bytes, mostly near the front."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        reach = min(head, len(data)) if rng.random() < 0.7 else len(data)
        broken[int(rng.integers(reach))] = int(rng.integers(256))
    return bytes(broken)


def run_fuzz(name: str, trials: int, seed: int) -> None:
    data, decode = FILES[name]
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        survives(decode, damaged(data, rng, 1200))
        survives(decode, rng.bytes(int(rng.integers(1, 400))))


@pytest.mark.filterwarnings("ignore")  # numpy reports overflow of absurd values; what counts is that they are refused or read
@pytest.mark.parametrize("name", FILES)
def test_fuzz_with_a_fixed_budget(name: str) -> None:
    run_fuzz(name, TRIALS, seed=7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_long_fuzz(name: str) -> None:
    run_fuzz(name, LONG_TRIALS, seed=11)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SELF_DESCRIBING)
def test_every_byte_of_the_header_flipped(name: str) -> None:
    """All bits of a byte, its lowest and its highest; of the outer file and of what a gzip stream holds."""
    data, decode = FILES[name]
    folded = name in ("spz2", "spz3")
    contents = [(data, bytes)] + ([(gzip.decompress(data), gzip.compress)] if folded else [])
    for content, close in contents:
        for at in header_bytes(name, content):
            for flip in (0xFF, 0x01, 0x80):
                broken = bytearray(content)
                broken[at] ^= flip
                survives(decode, close(bytes(broken)))


def header_bytes(name: str, content: bytes) -> list[int]:
    """Where the bytes of a file's headers are."""
    if name in ("ply", "compressed-ply"):
        return list(range(content.index(b"end_header") + 11))
    if name == "ksplat":  # the file's header, then that of its one section
        return [*range(64), *range(4096, 4096 + 64)]
    return list(range(min(len(content), {"glb": 20, "gltf": 200, "sog": 200}.get(name, 64))))


def bombs() -> dict[str, tuple[Callable, bytes]]:
    """Small files that promise, or unfold to, far more than they are."""
    zeros = bytes(32 << 20)
    most = 0xFFFFFFFF
    head = struct.pack("<IIIBBBB", spz.MAGIC, 3, 40_000_000, 0, 12, 0, 0)
    sog_bomb = io.BytesIO()
    with zipfile.ZipFile(sog_bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", zeros * 4)
    stream = zstandard.ZstdCompressor().compress(zeros)
    v4 = struct.pack("<IIIBBBBI12x", spz.MAGIC, 4, 40_000_000, 0, 12, 0, 5, 32)
    table = b"".join(struct.pack("<QQ", len(stream), 40_000_000 * size) for size in (9, 1, 3, 3, 4))
    meta = json.dumps({"version": 2, "count": 2**32, "means": {}, "scales": {}, "quats": {}, "sh0": {}})
    lying_sog = io.BytesIO()
    with zipfile.ZipFile(lying_sog, "w") as archive:
        archive.writestr("meta.json", meta)
    text = compressed_ply.encode(SMALL)[0]
    document = json.loads(gltf.encode(SMALL, binary=False)[0])
    for accessor in document["accessors"]:
        accessor["count"] = 2**32
    nested = b"[" * 200_000
    return {
        "ply: 2^32 Gaussians": (through_a_file, ply_bytes(SMALL).replace(b"vertex 5", b"vertex 4294967296")),
        "spz4: 2^32 Gaussians": (spz.decode, struct.pack("<IIIBBBBI12x", spz.MAGIC, 4, most, 0, 12, 0, 5, 32) + table),
        "spz: a thousand times its size": (spz.decode, gzip.compress(head + zeros)),
        "spz4: lying streams": (spz.decode, v4 + table + stream * 5),
        "spz: 2^32 Gaussians": (spz.decode, gzip.compress(struct.pack("<IIIBBBB", spz.MAGIC, 3, most, 0, 12, 0, 0))),
        "sog: zip bomb": (sog.decode, sog_bomb.getvalue()),
        "sog: 2^32 Gaussians": (sog.decode, lying_sog.getvalue()),
        "compressed-ply: 2^32 Gaussians": (compressed_ply.decode, text.replace(b"vertex 5", b"vertex 4294967296")),
        "gltf: 2^32 Gaussians": (gltf.decode, json.dumps(document).encode()),
        "gltf: nested lists": (gltf.decode, nested),
        "ksplat: 2^32 Gaussians": (ksplat.decode, ksplat_file(SMALL, 0)[:16] + struct.pack("<I", most) + bytes(5000)),
    }


BOMBS = bombs()


@pytest.mark.parametrize("change", [{"buffers": []}, {"buffers": 7}, {"accessors": [{"bufferView": 0, "componentType": [5126]}]}])
def test_gltf_parts_that_are_missing_or_of_another_kind_are_refused(change: dict) -> None:
    document = json.loads(gltf.encode(SMALL, binary=False)[0])
    with pytest.raises(UserError):
        gltf.decode(json.dumps(document | change).encode())


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_bounded_memory(name: str) -> None:
    decode, data = BOMBS[name]
    started = time.process_time()
    with pytest.raises(UserError):
        decode(data)
    assert time.process_time() - started < SLOW_S
    tracemalloc.start()
    with pytest.raises(UserError):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BYTES


def raw_file(name: str, folder: Path) -> Path:
    """A file of five Gaussians, of which the first is NaN and the second infinite, patched into good bytes."""
    scene = cloud(count=5, degree=0)
    marks = {0: (1234.5, math.nan), 1: (2345.5, math.inf)}
    for index, (mark, _) in marks.items():
        scene.means[index] = mark
    path = folder / f"a{FORMATS[name].ending}"
    write_splats(path, scene, FORMATS[name])
    data = path.read_bytes()
    for mark, bad in marks.values():
        for sign in (1.0, -1.0):
            data = data.replace(struct.pack("<f", sign * mark), struct.pack("<f", bad))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["ply", "splat", "glb"])
def test_numbers_that_are_none_are_refused_counted_and_cleaned(name: str, tmp_path: Path) -> None:
    path = raw_file(name, tmp_path)
    started = time.process_time()
    with pytest.raises(UserError, match="2 of 5") as caught:
        read_splats(path)
    assert "recon clean" in caught.value.remedy
    whole = read_splats(path, keep_broken=True)
    assert int((~finite_mask(whole)).sum()) == 2
    assert len(clean(whole, CleanConfig(floater_share=0.0)).gaussians) == 3
    assert time.process_time() - started < SLOW_S


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if entry.write and entry.read])
def test_a_scene_of_one_is_written_and_read_and_one_of_none_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].ending}"
    write_splats(path, SMALL.select(torch.tensor([2])), FORMATS[name])
    assert len(read_splats(path, name)) == 1
    before = path.read_bytes()
    with pytest.raises(UserError, match="no Gaussians"):
        write_splats(path, SMALL.select(torch.zeros(5, dtype=torch.bool)), FORMATS[name])
    assert path.read_bytes() == before, "what was there stays"


@pytest.mark.parametrize("name", ["ply", "splat", "spz"])
def test_a_file_of_no_gaussians_is_refused(name: str, tmp_path: Path) -> None:
    nothing = SMALL.select(torch.zeros(5, dtype=torch.bool))
    empty = {"splat": b"", "spz": gzip.compress(struct.pack("<IIIBBBB", spz.MAGIC, 3, 0, 0, 12, 0, 0))}
    path = tmp_path / f"a.{name}"
    path.write_bytes(empty[name] if name in empty else ply_bytes(nothing))
    with pytest.raises(UserError, match="no Gaussians"):
        read_splats(path)
