"""SPZ, the compact format of Niantic's Scaniverse, versions 2, 3 and 4.

Input: ``Gaussians`` (world y-down, OpenCV) or bytes. Output: bytes or ``Gaussians``.
Does not: read version 1 or vendor extensions (they are stepped over).

On disk the world is RUB (x right, y up, z backward): y and z change sign, with the quaternion components and the SH
coefficients that are odd in them. All values of one attribute lie together: positions (24-bit fixed point), opacities,
colours, log scales (1/16), rotations, SH. Versions 2 and 3 are one gzip member, 4 has one Zstandard stream per attribute.
Source: github.com/nianticlabs/spz, README.
"""

from __future__ import annotations

import gzip
import struct

import numpy as np
import zstandard

from ..records import SH_COUNTS, Gaussians
from .packing import as_numpy, clamped, from_smallest_three, make_gaussians, smallest_three, unit_quats
from .reading import BadFile, Reader, check_count, gunzip, unfolding_limit

MAGIC = 0x5053474E
COLOUR_SCALE = 0.15
HEADER_BYTES = {2: 16, 3: 16, 4: 32}
USUAL_FRACTIONAL_BITS = 12
MOST_FRACTIONAL_BITS = 20
SH_BITS = {1: 5, 2: 4, 3: 4}
"""Bits kept of every SH byte per degree, as the reference encoder does by default."""
DIMENSIONS = {0: 0, 1: 3, 2: 8, 3: 15, 4: 24}
"""Stored SH degree -> coefficients beyond degree 0. Degree 4 is read, and cut to 3."""
FLIPPED = np.array([True, True, False, True, False, False, True, False, True, False, True, True, False, True, False])
"""Which of the 15 coefficients change sign when y and z do: those whose polynomial is odd in y and z together."""


def encode(gaussians: Gaussians, *, version: int = 3) -> tuple[bytes, tuple[str, ...]]:
    """Pack to bytes; the notes say what was clamped.

    Args:
        version: 2 (8-bit rotations; oldest readers), 3 (read nearly everywhere) or 4 (smallest; new readers only).
    """
    if version not in HEADER_BYTES:
        raise ValueError(f"SPZ version: wanted 2, 3 or 4, got {version}")
    means = as_numpy(gaussians.means) * np.array([1, -1, -1], dtype=np.float32)
    sh, log_scales, opacities = as_numpy(gaussians.sh), np.log(as_numpy(gaussians.scales)), as_numpy(gaussians.opacities)
    bits = fractional_bits(means, as_numpy(gaussians.scales))
    reach = (2**23 - 1) / 2**bits
    colours = sh[:, 0] * COLOUR_SCALE + 0.5
    notes = clamped(means, -reach, reach, "positions") + clamped(log_scales, -10.03, 5.97, "log scales")
    notes += clamped(colours, -1 / 510, 1 + 1 / 510, "colours") + clamped(sh[:, 1:], -1.0, 127.5 / 128, "SH")
    blocks = [
        _pack_positions(means, bits),
        _byte(np.clip(opacities * 255.0, 1.0, 254.0)),  # 0 and 255 have an infinite logit, which other readers trip over
        _byte(colours * 255.0),
        _byte((log_scales + 10.0) * 16.0),
        _pack_rotations(as_numpy(gaussians.quats) * np.array([1, 1, -1, -1], dtype=np.float32), version),
    ]
    if gaussians.sh_degree:
        blocks.append(_pack_sh(sh[:, 1:]))
    return _contain(blocks, len(gaussians), gaussians.sh_degree, bits, version), notes


def fractional_bits(means: np.ndarray, scales: np.ndarray) -> int:
    """Choose the position step 2^-bits: a tenth of what small Gaussians measure, at most the usual 1/4096 unit.

    A finer step than needed costs bytes (the lowest bits are noise); a scene beyond 2048 units needs a coarser one to fit.
    """
    reach = max(float(np.abs(means).max(initial=0.0)), 1e-9)
    fits = int(np.floor(np.log2((2**23 - 1) / reach)))
    small = max(float(np.quantile(scales.max(axis=1), 0.1)), 1e-9)
    wanted = int(np.ceil(np.log2(10.0 / small)))
    return int(np.clip(min(max(wanted, USUAL_FRACTIONAL_BITS), fits), 0, MOST_FRACTIONAL_BITS))


def _byte(values: np.ndarray) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


def _pack_positions(means: np.ndarray, bits: int) -> bytes:
    fixed = np.clip(np.rint(means.astype(np.float64) * 2**bits), -(2**23 - 1), 2**23 - 1).astype("<i4")
    return fixed.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def _pack_rotations(quats: np.ndarray, version: int) -> bytes:
    """Version 2: x, y, z as bytes with w >= 0. Later: index of the largest of xyzw and the others as sign and 9 bits."""
    if version == 2:
        quats = unit_quats(quats)
        quats = np.where(quats[:, :1] < 0, -quats, quats)
        return _byte(quats[:, 1:] * 127.5 + 127.5)
    largest, others = smallest_three(np.roll(quats, -1, axis=1))
    magnitude = np.floor(np.abs(others) * np.float32(511 * np.sqrt(2)) + 0.5).clip(0, 511).astype(np.uint32)
    tens = magnitude | ((others < 0).astype(np.uint32) << 9)
    words = (largest.astype(np.uint32) << 30) | (tens[:, 0] << 20) | (tens[:, 1] << 10) | tens[:, 2]
    return words.astype("<u4").tobytes()


def _pack_sh(rest: np.ndarray) -> bytes:
    """One byte per value around 128, of which each degree keeps its leading bits; colour varies fastest."""
    count = rest.shape[1]
    rest = np.where(FLIPPED[:count, None], -rest, rest)
    degree = np.repeat([1, 2, 3], [3, 5, 7])[:count]
    bucket = np.array([1 << (8 - SH_BITS[int(d)]) for d in degree])[:, None]
    whole = np.rint(rest * 128.0) + 128.0
    return np.clip(np.floor((whole + bucket // 2) / bucket) * bucket, 0, 255).astype(np.uint8).tobytes()


def _contain(blocks: list[bytes], count: int, degree: int, bits: int, version: int) -> bytes:
    head = struct.pack("<IIIBBB", MAGIC, version, count, degree, bits, 0)
    if version < 4:
        return gzip.compress(head + b"\0" + b"".join(blocks), compresslevel=6, mtime=0)
    packer = zstandard.ZstdCompressor(level=12)
    streams = [packer.compress(block) for block in blocks]
    contents = b"".join(struct.pack("<QQ", len(s), len(b)) for s, b in zip(streams, blocks, strict=True))
    return head + struct.pack("<BI12x", len(streams), HEADER_BYTES[4]) + contents + b"".join(streams)


def decode(data: bytes) -> Gaussians:
    """Unpack bytes.

    Raises:
        BadFile: this is no SPZ file of a known version, it is short, or it lies about its size.
    """
    folded = data[:2] == b"\x1f\x8b"
    head = gunzip(data, 16) if folded else data[:32]
    if len(head) < 16 or (not folded and len(head) < 32):
        raise BadFile("it is too short for an SPZ header.")
    magic, version, count, degree, bits = struct.unpack_from("<IIIBB", head)
    if magic != MAGIC or version not in HEADER_BYTES or folded != (version < 4):
        raise BadFile(f"it is not SPZ of version 2, 3 or 4 (magic {magic:#x}, version {version}).")
    if degree not in DIMENSIONS or bits > 23:
        raise BadFile(f"its header says SH degree {degree} and {bits} fractional bits, which cannot be.")
    sizes = [9, 1, 3, 3, 3 if version == 2 else 4, 3 * DIMENSIONS[degree]]
    check_count(count, unfolding_limit(len(data)), sum(sizes), "it")
    wanted = [count * size for size in sizes if size]
    blocks = _unfold_gzip(data, wanted) if folded else _unfold_zstd(data, head, wanted)
    return _unpack(blocks, count, degree, bits, version)


def _unfold_gzip(data: bytes, wanted: list[int]) -> list[memoryview]:
    body = Reader(gunzip(data, 16 + sum(wanted), whole=True), "the SPZ content")
    body.take(16)
    return [body.take(size) for size in wanted]


def _unfold_zstd(data: bytes, head: bytes, wanted: list[int]) -> list[memoryview]:
    streams, contents_at = struct.unpack_from("<BI", head, 15)
    if streams != len(wanted) or not HEADER_BYTES[4] <= contents_at <= len(data):
        raise BadFile(f"its header announces {streams} streams at byte {contents_at}; {len(wanted)} were expected.")
    body = Reader(data, "the SPZ file")
    body.take(contents_at)
    table = body.array("<u8", streams, 2)
    if [int(size) for size in table[:, 1]] != wanted:
        raise BadFile("the sizes of its streams do not fit its number of Gaussians.")
    blocks = []
    for index, size in enumerate(wanted):
        folded = bytes(body.take(int(table[index, 0])))
        try:
            blocks.append(zstandard.ZstdDecompressor().stream_reader(folded).read(size + 1))
        except zstandard.ZstdError as error:
            raise BadFile(f"its Zstandard stream {index} is broken ({error}).") from error
        if len(blocks[-1]) != size:
            raise BadFile(f"its Zstandard stream {index} does not unfold to {size:,} bytes.")
    return [memoryview(block) for block in blocks]


def _unpack(blocks: list[memoryview], count: int, degree: int, bits: int, version: int) -> Gaussians:
    parts = [np.frombuffer(block, dtype=np.uint8).reshape(count, -1) for block in blocks]
    padded = np.zeros((count * 3, 4), dtype=np.uint8)
    padded[:, 1:] = parts[0].reshape(-1, 3)
    means = (padded.view("<i4").reshape(count, 3) >> 8) / np.float32(2.0**bits)
    sh = np.zeros((count, min(DIMENSIONS[degree], 15) + 1, 3), dtype=np.float32)
    sh[:, 0] = (parts[2] / np.float32(255.0) - 0.5) / COLOUR_SCALE
    if degree:
        rest = (parts[5].reshape(count, -1, 3)[:, :15].astype(np.float32) - 128.0) / 128.0
        sh[:, 1:] = np.where(FLIPPED[: rest.shape[1], None], -rest, rest)
    assert sh.shape[1] in SH_COUNTS
    return make_gaussians(
        means=means * np.array([1, -1, -1], dtype=np.float32),
        quats=_unpack_rotations(parts[4], version) * np.array([1, 1, -1, -1], dtype=np.float32),
        scales=np.exp(parts[3] / np.float32(16.0) - 10.0),
        opacities=parts[1][:, 0] / np.float32(255.0),
        sh=sh,
    )


def _unpack_rotations(stored: np.ndarray, version: int) -> np.ndarray:
    """Quaternions wxyz."""
    if version == 2:
        xyz = stored / np.float32(127.5) - 1.0
        w = np.sqrt(np.clip(1.0 - (xyz**2).sum(axis=1, keepdims=True), 0.0, 1.0))
        return np.concatenate([w, xyz], axis=1)
    words = np.ascontiguousarray(stored).view("<u4")[:, 0]
    tens = np.stack([words >> 20, words >> 10, words], axis=1)
    magnitude = (tens & 511).astype(np.float32) * np.float32(np.sqrt(0.5) / 511)
    others = np.where((tens >> 9) & 1, -magnitude, magnitude)
    return np.roll(from_smallest_three((words >> 30).astype(np.int64), others), 1, axis=1)
