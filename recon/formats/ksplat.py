"""Read .ksplat of mkkellogg's GaussianSplats3D: sections of buckets, three levels of compression.

Input: bytes. Output: ``Gaussians``.
Does not: write; the viewer it was made for is no longer developed.

A 4096-byte header, one 1024-byte header per section, then per section: lengths of partly filled buckets, bucket centres,
Gaussians. Positions of levels 1 and 2 are 16-bit offsets from the centre of the Gaussian's bucket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..records import Gaussians
from .packing import make_gaussians, sh0_of
from .reading import BadFile, Reader, check_count

MAIN_HEADER, SECTION_HEADER = 4096, 1024
WIDE = [("mean", "<f4", 3), ("scale", "<f4", 3), ("quat", "<f4", 4), ("colour", "u1", 4)]
NARROW = [("mean", "<u2", 3), ("scale", "<f2", 3), ("quat", "<f2", 4), ("colour", "u1", 4)]
LEVELS = {0: (WIDE, "<f4"), 1: (NARROW, "<f2"), 2: (NARROW, "u1")}
"""Compression level -> fields of a Gaussian and the kind of its SH values."""
COEFFICIENTS = {0: 0, 1: 9, 2: 24, 3: 45}
MOST_SECTIONS = 4096


@dataclass(frozen=True)
class Section:
    """The header of one section."""

    count: int
    most: int
    bucket_size: int
    buckets: int
    block_size: float
    bucket_bytes: int
    scale_range: int
    full_buckets: int
    partial_buckets: int
    degree: int


def decode(data: bytes) -> Gaussians:
    """Unpack bytes.

    Raises:
        BadFile: it is no .ksplat of a known level, it is short, or it lies about its size.
    """
    head = Reader(data, "the .ksplat header").take(MAIN_HEADER)
    major, minor = head[0], head[1]
    sections_most, sections, _, count = (int(v) for v in np.frombuffer(head, "<u4", 4, 4))
    level = int(np.frombuffer(head, "<u2", 1, 20)[0])
    sh_range = np.frombuffer(head, "<f4", 2, 36)
    if major != 0 or minor < 1 or level not in LEVELS or not 0 < sections_most <= MOST_SECTIONS or sections > sections_most:
        raise BadFile(f"it is no .ksplat of version 0.1 or later with a known compression level ({major}.{minor}, level {level}).")
    check_count(count, len(data), np.dtype(LEVELS[level][0]).itemsize, "it")
    lower, upper = (float(v) for v in sh_range) if np.isfinite(sh_range).all() and sh_range.any() else (-1.5, 1.5)
    body = Reader(data, "the .ksplat file")
    body.take(MAIN_HEADER)
    headers = [_section(body.take(SECTION_HEADER)) for _ in range(sections_most)][
        : sections or sections_most
    ]  # some writers leave the number in use at 0
    parts = [_decode_section(body, section, level, (lower, upper)) for section in headers]
    parts = [part for part in parts if part is not None]
    if not parts or sum(len(part) for part in parts) != count:
        raise BadFile(f"its sections hold {sum(len(p) for p in parts):,} Gaussians where its header says {count:,}.")
    return Gaussians.concatenate(parts)


def _section(head: memoryview) -> Section:
    words = [int(v) for v in np.frombuffer(head, "<u4", 10)]
    return Section(
        count=words[0],
        most=words[1],
        bucket_size=words[2],
        buckets=words[3],
        block_size=float(np.frombuffer(head, "<f4", 1, 16)[0]),
        bucket_bytes=int(np.frombuffer(head, "<u2", 1, 20)[0]),
        scale_range=words[6] or 32767,
        full_buckets=words[8],
        partial_buckets=words[9],
        degree=int(np.frombuffer(head, "<u2", 1, 40)[0]),
    )


def _decode_section(body: Reader, section: Section, level: int, sh_range: tuple[float, float]) -> Gaussians | None:
    fields, sh_kind = LEVELS[level]
    if section.degree not in COEFFICIENTS or section.count > section.most:
        raise BadFile(f"a section says SH degree {section.degree} and {section.count:,} of {section.most:,} Gaussians.")
    record = np.dtype([*fields, ("sh", sh_kind, COEFFICIENTS[section.degree])])
    lengths = body.array("<u4", section.partial_buckets)
    if section.buckets and section.bucket_bytes < 12:
        raise BadFile(f"a section has buckets of {section.bucket_bytes} bytes.")
    buckets = body.array("u1", section.buckets, section.bucket_bytes)
    stored = np.frombuffer(body.take(section.most * record.itemsize), dtype=record)[: section.count]
    if section.count == 0:
        return None
    means = stored["mean"].astype(np.float32)
    if level:
        centres = np.ascontiguousarray(buckets[:, :12]).view("<f4").reshape(-1, 3)
        step = np.float32(section.block_size / 2.0 / section.scale_range)
        means = (means - section.scale_range) * step + centres[_bucket_of(section, lengths)]
    colour = stored["colour"].astype(np.float32) / 255.0
    return make_gaussians(
        means=means,
        quats=stored["quat"].astype(np.float32),
        scales=stored["scale"].astype(np.float32),
        opacities=colour[:, 3],
        sh=np.concatenate([sh0_of(colour[:, None, :3]), _sh(stored["sh"], level, sh_range)], axis=1),
    )


def _bucket_of(section: Section, lengths: np.ndarray) -> np.ndarray:
    """Which bucket every Gaussian lies in: full buckets first, then those whose lengths are listed."""
    full = section.full_buckets * section.bucket_size
    if section.full_buckets + section.partial_buckets > section.buckets or full + int(lengths.sum(dtype=np.uint64)) < section.count:
        raise BadFile("the buckets of a section do not hold its Gaussians.")
    index = np.arange(section.count)
    of = index // max(section.bucket_size, 1)
    ends = full + np.cumsum(lengths, dtype=np.int64)
    return np.where(index < full, of, section.full_buckets + np.searchsorted(ends, index, side="right"))


def _sh(stored: np.ndarray, level: int, sh_range: tuple[float, float]) -> np.ndarray:
    """N K-1 3. Each degree is stored on its own, coefficient by coefficient with red, green and blue apart."""
    values = stored.astype(np.float32)
    if level == 2:
        values = values / 255.0 * (sh_range[1] - sh_range[0]) + sh_range[0]
    bands = np.split(values, [9, 24], axis=1)
    parts = [band.reshape(len(values), 3, -1).transpose(0, 2, 1) for band in bands if band.shape[1]]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(values), 0, 3), dtype=np.float32)
