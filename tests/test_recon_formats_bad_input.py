"""Broken and hostile files: an honest error or a scene, never a crash, a hang, or memory without bound."""

from __future__ import annotations

import gzip
import io
import json
import struct
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

from recon.errors import UserError
from recon.formats import compressed_ply, gltf, ksplat, sog, splat, spz
from recon.formats.reading import BadFile
from recon.formats.registry import read_splats
from recon.ply import write_ply

SMALL = cloud(count=5, degree=1)
FILES: dict[str, tuple[bytes, Callable]] = {
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
TRIALS = 150
LONG_TRIALS = 20_000
MEMORY_BYTES = 400 << 20
SLOW_S = 5.0
"""A single file; the promise is one second on a machine that is not busy."""


def survives(decode: Callable, data: bytes) -> bool:
    """True when the bytes were read, False when they were refused in words; anything else fails the test."""
    started = time.perf_counter()
    try:
        count = len(decode(data))
    except BadFile:
        count = 0
    assert count <= 4_000_000
    assert time.perf_counter() - started < SLOW_S
    return count > 0


@pytest.mark.parametrize("name", FILES)
def test_truncated_anywhere(name: str) -> None:
    data, decode = FILES[name]
    assert survives(decode, data)
    steps = sorted({*range(min(len(data), 120)), *range(0, len(data), max(1, len(data) // 120))})
    for length in steps:
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
@pytest.mark.parametrize("name", ["spz4", "spz3", "ksplat", "glb", "compressed-ply"])
def test_every_byte_of_the_header_flipped(name: str) -> None:
    data, decode = FILES[name]
    content = gzip.decompress(data) if name == "spz3" else data
    for at in range(48 if name != "compressed-ply" else 400):
        broken = bytearray(content)
        broken[at] ^= 0xFF
        survives(decode, gzip.compress(bytes(broken)) if name == "spz3" else bytes(broken))


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


@pytest.mark.parametrize("name", list(bombs()))
def test_bombs_are_refused_in_bounded_memory(name: str) -> None:
    decode, data = bombs()[name]
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(BadFile):
        decode(data)
    assert time.perf_counter() - started < SLOW_S
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_BYTES


def test_nan_inside_a_file_is_refused_and_counted(tmp_path: Path) -> None:
    data = bytearray(splat.encode(SMALL)[0])
    data[:4] = struct.pack("<f", float("nan"))
    data[36:40] = struct.pack("<f", float("inf"))
    (tmp_path / "a.splat").write_bytes(bytes(data))
    with pytest.raises(UserError, match="2 of 5"):
        read_splats(tmp_path / "a.splat")
    assert len(read_splats(tmp_path / "a.splat", keep_broken=True)) == 5


def test_a_file_of_no_gaussians_is_refused(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", SMALL.select(torch.zeros(5, dtype=torch.bool)))
    with pytest.raises(UserError, match="no Gaussians"):
        read_splats(tmp_path / "a.ply")
    (tmp_path / "a.splat").write_bytes(b"")
    with pytest.raises(UserError, match="no Gaussians"):
        read_splats(tmp_path / "a.splat")
