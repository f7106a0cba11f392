"""What fits in memory: how many views at once, at which size, in which number format; or a refusal with numbers.

Input: a network, photo sizes, a device. Output: ``Plan``.
Does not: measure; the estimates were fitted to measured peaks and are checked by the benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from recon.errors import UserError

from ..precision import autocast_dtype
from .canvas import lay_out
from .layers.patch_vit import PATCH
from .zoo import Network, on_meta

OVERLAP = 3
"""Views two groups share."""
LEAST_GROUP = 2 * OVERLAP
"""Smallest group worth joining."""
LEAST_SIDE_SHARE = 0.6
"""The long side is not lowered below this share of what the network was made for."""
FREE_SHARE = 0.85
"""Share of the free memory that may be planned with."""
FIXED_BYTES = 300 << 20
"""Buffers that do not depend on the input."""
TOKEN_FLOATS = 48
"""Floats per token and channel alive at once: residual, taps, and the widest moment of a block."""
TOKEN_FLOATS_IN_PIECES = 22
"""The same on a CPU, where a block works on some tokens at a time."""
HEAD_FLOATS = 9
"""Floats per pixel and head feature alive at once in a dense head."""
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a set of views will be run."""

    group: int
    """Views at a time; all of them when they fit."""
    long_side: int
    """Longest side of the canvas in pixels."""
    head_chunk: int
    """Views a dense head takes at a time."""
    dtype: torch.dtype
    """Number format of the backbone's matrix products."""
    bytes_needed: int
    """Estimated peak, weights included."""
    bytes_free: int
    """What was free when the plan was made."""


def free_bytes(device: torch.device | str) -> int:
    """Ask how much memory is free on a device; half of the machine's where the system does not tell."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    facts = Path("/proc/meminfo")
    if facts.is_file():
        lines = dict(line.split(":", 1) for line in facts.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * GIB


def fastest_dtype(device: torch.device | str) -> torch.dtype:
    """Choose the number format of a backbone."""
    return autocast_dtype(torch.device(device).type) or torch.float32


def weight_bytes(network: Network, dtype: torch.dtype = torch.float32) -> int:
    """Compute the memory of the parameters; a backbone in a shorter format is stored in it."""
    built = on_meta(network.build)
    total = sum(parameter.numel() for parameter in built.parameters())
    backbone = sum(parameter.numel() for parameter in built.get_submodule("backbone").parameters())
    return 4 * (total - backbone) + dtype.itemsize * backbone


def needed_bytes(
    network: Network,
    views: int,
    canvas: tuple[int, int],
    head_chunk: int,
    dtype: torch.dtype,
    weights: int,
    *,
    in_pieces: bool = True,
) -> int:
    """Estimate the peak of one pass.

    Args:
        views: views in the pass.
        canvas: (width, height).
        weights: memory of the parameters.
        in_pieces: blocks work on some tokens at a time, as they do on a CPU.
    """
    tokens = views * ((canvas[0] // PATCH) * (canvas[1] // PATCH) + 5)
    share = 0.65 if dtype != torch.float32 else 1.0  # the residual stream and the taps stay float32
    backbone = 4 * (TOKEN_FLOATS_IN_PIECES if in_pieces else TOKEN_FLOATS) * network.dim * tokens * share
    pixels = canvas[0] * canvas[1]
    head = 4 * HEAD_FLOATS * network.head_features * pixels * min(head_chunk, views)
    per_pixel = 40 + (800 if network.makes_gaussians else 0)
    return int(weights + FIXED_BYTES + backbone + head + per_pixel * pixels * views)


def make_plan(
    network: Network,
    sizes: Sequence[tuple[int, int]],
    device: torch.device | str,
    *,
    bytes_free: int | None = None,
    dtype: torch.dtype | None = None,
) -> Plan:
    """Choose the largest group, then the largest size, that fits; prefers one pass, then full size in groups.

    Args:
        sizes: (width, height) of the photos.
        bytes_free: memory that may be used, weights included; None asks the device.
        dtype: None takes the fastest of the device.

    Raises:
        UserError: not even a small group at reduced size fits; says what is needed and what is free.
    """
    kind = torch.device(device).type
    chosen = dtype or fastest_dtype(kind)
    free = free_bytes(device) if bytes_free is None else bytes_free
    weights, views = weight_bytes(network, chosen), len(sizes)
    least = min(views, LEAST_GROUP)
    lowest, needed = int(LEAST_SIDE_SHARE * network.long_side), 0
    canvas = lay_out(sizes, network.long_side)
    for side in range(network.long_side, lowest - 1, -2 * PATCH):
        canvas = lay_out(sizes, side)
        for group in range(views, least - 1, -1):
            for head_chunk in (8, 4, 2, 1) if kind == "cuda" else (1,):
                needed = needed_bytes(
                    network, group, (canvas.width, canvas.height), head_chunk, chosen, weights, in_pieces=kind == "cpu"
                )
                if needed <= FREE_SHARE * free:
                    return Plan(
                        group=group, long_side=side, head_chunk=head_chunk, dtype=chosen, bytes_needed=needed, bytes_free=free
                    )
    raise UserError(
        f"{network.title} needs about {needed / GIB:.1f} GiB for {least} views of {canvas.width} x {canvas.height} px "
        f"({weights / GIB:.1f} GiB are weights), and {free / GIB:.1f} GiB are free on {kind}.",
        "Close other programs, choose a smaller model (da3-small needs about 1 GiB), or use a machine with more memory.",
    )


def verdict(network: Network, device: torch.device | str, *, bytes_free: int | None = None) -> tuple[bool, str]:
    """Say whether a network can run here with a usual capture of twelve 4:3 photos, and how or why not."""
    try:
        plan = make_plan(network, [(640, 480)] * 12, device, bytes_free=bytes_free)
    except UserError as error:
        return False, error.reason
    how = "all 12 at once" if plan.group == 12 else f"{plan.group} at a time"
    kind = str(plan.dtype).removeprefix("torch.")
    return True, f"12 photos at {plan.long_side} px, {how}, {kind}, about {plan.bytes_needed / GIB:.1f} GiB"
