"""Is the file that was written the scene it was written from? Read it back, draw both, compare.

Input: the file, the Gaussians it should hold, cameras, a rasteriser. Output: ``FileCheck``.
Does not: compare numbers in the file; what counts is what a viewer shows.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..records import Cameras, Gaussians, Rasterizer, RasterOptions
from .conventions import Similarity, moved_gaussians
from .reading import BadFile
from .registry import Format, cut_sh, read_splats
from .second_reader import NAME, read_elsewhere, second_reader_missing

VIEWS = 4
LONG_SIDE = 400
SECOND_READER_MARGIN_DB = 1.0
"""The other program may be this much worse than our own reader (it rounds in another place)."""
EXACT_DB = 100.0
"""Shown for renderings that differ by less than this tells."""


class ExportCheckFailed(UserError):
    """The file does not show what the scene shows."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """What came of reading a written file back."""

    format: str
    """Name of the format."""
    count: int
    """Gaussians in the file; the same as in the scene."""
    bytes: int
    """Size of the file."""
    bytes_per_gaussian: float
    """The same per Gaussian."""
    psnr_db: float
    """Renderings of the file against those of the scene, lowest of all views; EXACT_DB at most."""
    psnr_same_sh_db: float
    """The same against the scene cut to the SH degree the format holds: what packing alone costs."""
    floor_db: float
    """Below this ``psnr_same_sh_db`` the export counts as broken."""
    second_reader: str
    """Name of the other program that read it, or why none did."""
    second_psnr_db: float | None
    """``psnr_same_sh_db`` with the other program's reading."""
    read_s: float
    """Seconds our reader took."""
    losses: tuple[str, ...]
    """What the format does not hold."""


def check_file(
    path: Path,
    entry: Format,
    gaussians: Gaussians,
    rasterizer: Rasterizer,
    *,
    cameras: Cameras | None = None,
    R_file_world: Tensor | None = None,
    losses: tuple[str, ...] = (),
) -> FileCheck:
    """Read a written file back, here and with gaussforge, and compare renderings with the scene.

    Args:
        path: the file.
        entry: its format.
        gaussians: what it was written from, in our world frame.
        cameras: where to look from, our world frame; None looks from four sides.
        R_file_world: axes the file was written with; None: those of the format.
        losses: notes of the writer, copied into the result.

    Raises:
        ExportCheckFailed: another number of Gaussians, or renderings below the format's floor.
    """
    started = time.perf_counter()
    read = read_splats(path, entry.name)
    read_s = time.perf_counter() - started
    _require_count(read, gaussians, "our reader", path)
    undo = None if R_file_world is None else Similarity(R_new_old=R_file_world.T @ entry.R_file_world)
    read = read if undo is None else moved_gaussians(read, undo)
    cameras = small_cameras(gaussians, cameras)
    packed_only = cut_sh(gaussians, entry.max_sh)
    pictures = _draw(rasterizer, packed_only, cameras)
    same_sh_db = _worst_psnr(_draw(rasterizer, read, cameras), pictures)
    full_db = (
        same_sh_db if packed_only.sh_degree == gaussians.sh_degree else _worst_psnr(pictures, _draw(rasterizer, gaussians, cameras))
    )
    other, other_db = _second_opinion(path, entry, packed_only, R_file_world, (rasterizer, cameras, pictures))
    size = path.stat().st_size
    check = FileCheck(
        format=entry.name,
        count=len(read),
        bytes=size,
        bytes_per_gaussian=size / len(read),
        psnr_db=min(full_db, same_sh_db),
        psnr_same_sh_db=same_sh_db,
        floor_db=entry.floor_db,
        second_reader=other,
        second_psnr_db=other_db,
        read_s=read_s,
        losses=losses,
    )
    _require_floor(check, path)
    return check


def _second_opinion(
    path: Path,
    entry: Format,
    gaussians: Gaussians,
    R_file_world: Tensor | None,
    drawn: tuple[Rasterizer, Cameras, list[Tensor]],
) -> tuple[str, float | None]:
    """Name of the second reader and the PSNR it sees, or the reason why there is none."""
    if entry.second_reader is None:
        return f"{NAME} does not read {entry.name}", None
    missing = second_reader_missing()
    if missing:
        return missing, None
    rasterizer, cameras, pictures = drawn
    try:
        seen = read_elsewhere(path, entry.second_reader)
    except BadFile as error:
        raise ExportCheckFailed(f"{path.name}: {error.reason}", "Please report this; the file may not open elsewhere.") from error
    _require_count(seen, gaussians, NAME, path)
    R = entry.R_file_world if R_file_world is None else R_file_world
    seen_frame = R if not entry.second_reader_turns else entry.R_file_world.T @ R
    seen = moved_gaussians(seen, Similarity(R_new_old=seen_frame.T.contiguous()))
    return NAME, _worst_psnr(_draw(rasterizer, seen, cameras), pictures)


def _require_count(read: Gaussians, gaussians: Gaussians, reader: str, path: Path) -> None:
    if len(read) != len(gaussians):
        reason = f"{path.name} was written from {len(gaussians):,} Gaussians, but {reader} finds {len(read):,} in it."
        raise ExportCheckFailed(reason, "Please report this; the file is not usable.")


def _require_floor(check: FileCheck, path: Path) -> None:
    seen = [check.psnr_same_sh_db] + ([] if check.second_psnr_db is None else [check.second_psnr_db + SECOND_READER_MARGIN_DB])
    if min(seen) < check.floor_db:
        reason = f"{path.name} does not show the scene: {min(seen):.1f} dB; {check.format} should reach {check.floor_db:.0f} dB."
        lost = "; ".join(check.losses)
        raise ExportCheckFailed(
            reason, f"Choose another format{f' (lost: {lost})' if lost else ''}, or --no-check to keep the file."
        )


def _draw(rasterizer: Rasterizer, gaussians: Gaussians, cameras: Cameras) -> list[Tensor]:
    """Pictures of the cameras, one by one: they may differ in size."""
    options = RasterOptions()
    with torch.no_grad():
        return [rasterizer(gaussians, cameras.select([i]), options).color[0].clamp(0, 1) for i in range(len(cameras))]


def _worst_psnr(pictures: list[Tensor], wanted: list[Tensor]) -> float:
    """Lowest PSNR over the views, dB."""
    error = max(float((a - b).square().mean()) for a, b in zip(pictures, wanted, strict=True))
    return EXACT_DB if error <= 10 ** (-EXACT_DB / 10) else -10.0 * math.log10(error)


def small_cameras(gaussians: Gaussians, cameras: Cameras | None) -> Cameras:
    """Pick ``VIEWS`` pinhole cameras spread over those given, at most ``LONG_SIDE`` pixels; without any, look from four sides."""
    if cameras is None or not bool(cameras.registered_mask.any()):
        return cameras_around(gaussians)
    placed = torch.nonzero(cameras.registered_mask).flatten()
    picked = cameras.select(placed[torch.linspace(0, len(placed) - 1, min(VIEWS, len(placed))).round().long()].tolist())
    shrink = [min(1.0, LONG_SIDE / max(w, h)) for w, h in zip(picked.width, picked.height, strict=True)]
    widths = [max(1, round(w * s)) for w, s in zip(picked.width, shrink, strict=True)]
    heights = [max(1, round(h * s)) for h, s in zip(picked.height, shrink, strict=True)]
    resized = picked.resized(widths, heights)
    return Cameras(T_world_cam=resized.T_world_cam.float(), K=resized.K.float(), width=resized.width, height=resized.height)


def cameras_around(gaussians: Gaussians, views: int = VIEWS, side_px: int = LONG_SIDE) -> Cameras:
    """Place cameras on a circle about the middle nine tenths of a scene, world y down, 60 degrees wide."""
    means = gaussians.means[:: max(1, len(gaussians) // 100_000)]
    lower, upper = torch.quantile(means, torch.tensor([0.05, 0.95]), dim=0)
    typical = float(gaussians.scales.max(dim=1).values.median())
    centre, radius = (lower + upper) / 2, max(float((upper - lower).norm()) / 2, 3.0 * typical, 1e-6)
    focal_px = side_px / 2 / math.tan(math.radians(30.0))
    T_world_cam = torch.eye(4).repeat(views, 1, 1)
    for index in range(views):
        angle = 2 * math.pi * index / views
        forward = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
        T_world_cam[index, :3, 0] = torch.tensor([math.cos(angle), 0.0, -math.sin(angle)])
        T_world_cam[index, :3, 2] = forward
        T_world_cam[index, :3, 3] = centre - forward * 2.2 * radius
    K = torch.tensor([[focal_px, 0.0, side_px / 2], [0.0, focal_px, side_px / 2], [0.0, 0.0, 1.0]]).repeat(views, 1, 1)
    return Cameras(T_world_cam=T_world_cam, K=K, width=(side_px,) * views, height=(side_px,) * views)
