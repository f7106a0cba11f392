"""The CPU rasteriser: Numba kernels behind a ``torch.autograd.Function``.

Input: ``Gaussians`` and ``Cameras`` on the CPU. Output: ``Rendering``, differentiable in everything that shapes it.

    Gaussians ─ project ─ splats ─ depth_order ─ bin_splats ─ draw ─ color, alpha, depth          one view after the other,
    gradients ─ reduce ──────────────── per-hit sums ─ gather ──────── their gradients            each stage on all cores

Does not: validate (``checks`` does), or differentiate median depth, normals and contribution.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from .constants import TILE
from .kernels import backward, extras, forward, jit, layout, projection, reduce
from .kernels.binning import bin_splats
from .kernels.sorting import depth_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Settings:
    """What stays fixed over the views of a call."""

    width: int
    height: int
    near: float
    far: float
    antialiased: bool
    sh_count: int
    background: np.ndarray
    wanted: np.ndarray | None
    linked: bool
    """Number the hits by splat even when no gradient is wanted."""

    @property
    def tile_shape(self) -> tuple[int, int]:
        return -(-self.height // TILE), -(-self.width // TILE)

    def wanted_tiles(self, view: int) -> np.ndarray:
        return np.ones(self.tile_shape, np.bool_) if self.wanted is None else self.wanted[view]


def aligned_empty(rows: int, columns: int) -> np.ndarray:
    """Uninitialised float32 ``rows columns`` that starts on a cache line, so that a 16-float row is one line."""
    memory = np.empty(rows * columns + 16, np.float32)
    skip = -memory.ctypes.data % 64 // 4
    return memory[skip : skip + rows * columns].reshape(rows, columns)


class _Report:
    """What leaves a call beside the differentiable pictures."""

    def __init__(self, options: RasterOptions) -> None:
        self.options = options
        self.dropped: list[int] = []
        self.extras: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    @property
    def wants_extras(self) -> bool:
        return self.options.median_depth or self.options.normals or self.options.contribution

    def stacked(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Median depth, normals and contribution of all views."""
        if not self.extras:
            return None, None, None
        median, normals, contribution = (torch.from_numpy(np.stack(part)) for part in zip(*self.extras, strict=True))
        return median, normals, contribution


@dataclass
class _View:
    """One drawn view: what the backward pass and the extra outputs need."""

    camera: np.ndarray
    splats: np.ndarray
    ids: np.ndarray
    slots: np.ndarray
    totals: np.ndarray
    bases: np.ndarray
    starts: np.ndarray
    hit_rows: np.ndarray
    hit_slots: np.ndarray
    tile_order: np.ndarray
    saved: np.ndarray
    seen: np.ndarray

    @property
    def slot_count(self) -> int:
        return int(self.totals[:, 2].sum())


def _draw_view(arrays, camera: np.ndarray, settings: _Settings, wanted: np.ndarray, pictures, keep: bool) -> _View:
    count = arrays[0].shape[0]
    splats, ids = aligned_empty(count, layout.SPLAT), np.empty(count, np.int32)
    words, slots = np.empty(count, np.int64), np.empty(count, np.int32)
    totals = np.zeros((-(-count // projection.PART), 3), np.int64)
    with jit.chunks(1):
        projection.project(*arrays, settings.sh_count, camera, settings.antialiased, splats, words, slots, ids, totals)
    bases = np.cumsum(totals[:, 2]) - totals[:, 2]
    order = depth_order(splats, np.ascontiguousarray(totals[:, 0]))
    linked = keep or settings.linked
    starts, hit_rows, hit_slots = bin_splats(order, splats, words, slots, bases, settings.width, settings.height, wanted, linked)
    tile_order = np.argsort(-np.diff(starts), kind="stable")
    saved = np.empty((wanted.size if keep else 0, 2, forward.PIXELS), np.float32)
    seen = np.zeros(wanted.size if keep else 0, np.int64)
    with jit.chunks(4):
        forward.draw(tile_order, starts, hit_rows, splats, settings.background, wanted.shape[1], *pictures, saved, seen)
    return _View(camera, splats, ids, slots, totals, bases, starts, hit_rows, hit_slots, tile_order, saved, seen)


def _view_gradients(view: _View, arrays, settings: _Settings, columns: int, pictures, picture_gradients, gradients) -> np.ndarray:
    """Add one view's gradients to ``gradients`` and return those of its camera."""
    sums = aligned_empty(view.slot_count, layout.HIT_GRADIENT)
    touched = np.zeros(view.slot_count, np.bool_)
    with jit.chunks(4):
        backward.gather(
            view.tile_order,
            view.starts,
            view.hit_rows,
            view.hit_slots,
            view.splats,
            settings.background,
            columns,
            view.saved,
            view.seen,
            pictures,
            picture_gradients,
            sums,
            touched,
        )
    camera_gradients = np.zeros((len(view.totals), layout.CAMERA_GRADIENT))
    with jit.chunks(1):
        reduce.reduce(
            view.totals,
            view.bases,
            view.ids,
            view.slots,
            sums,
            touched,
            arrays,
            settings.sh_count,
            view.camera,
            settings.antialiased,
            gradients,
            camera_gradients,
        )
    return camera_gradients.sum(axis=0)


def _extra_pictures(view: _View, arrays, settings: _Settings, options: RasterOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median depth ``H W``, normals ``H W 3`` and contribution ``N``; those not asked for are empty."""
    means, quats, scales = arrays[:3]
    size = (settings.height, settings.width)
    normals = np.empty((len(view.splats) if options.normals else 0, 3), np.float32)
    median_out = np.empty(size, np.float32)
    normals_out = np.empty((*size, 3) if options.normals else (0, 0, 3), np.float32)
    hit_weights = np.zeros(view.slot_count if options.contribution else 0, np.float32)
    if options.normals:
        extras.splat_normals(view.totals, view.ids, means, quats, scales, view.camera, normals)
    with jit.chunks(4):
        extras.draw_extras(
            view.tile_order,
            view.starts,
            view.hit_rows,
            view.hit_slots,
            view.splats,
            normals,
            settings.tile_shape[1],
            median_out,
            normals_out,
            hit_weights,
        )
    contribution = np.zeros(means.shape[0] if options.contribution else 0, np.float32)
    if options.contribution:
        extras.sum_contributions(view.totals, view.bases, view.ids, view.slots, hit_weights, contribution)
    return median_out, normals_out, contribution


class _Draw(torch.autograd.Function):
    """(Gaussian tensors, V 19 camera rows) -> color, alpha, depth."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, opacities, sh, camera_rows, settings: _Settings, report: _Report):
        arrays = tuple(np.ascontiguousarray(t.detach().numpy()) for t in (means, quats, scales, opacities, sh))
        keep = any(ctx.needs_input_grad)
        count = camera_rows.shape[0]
        cameras = np.zeros((count, layout.CAMERA))
        cameras[:, : layout.CAMERA_GRADIENT] = camera_rows.detach().numpy()
        cameras[:, layout.NEAR :][:, :4] = settings.near, settings.far, settings.width, settings.height
        color = torch.empty((count, settings.height, settings.width, 3))
        alpha = torch.empty((count, settings.height, settings.width))
        depth = torch.empty((count, settings.height, settings.width))
        pictures = tuple(t.numpy() for t in (color, alpha, depth))
        views = []
        with jit.guard():
            for v in range(count):
                view_pictures = tuple(p[v] for p in pictures)
                view = _draw_view(arrays, cameras[v], settings, settings.wanted_tiles(v), view_pictures, keep)
                report.dropped.append(int(view.totals[:, 1].sum()))
                if report.wants_extras:
                    report.extras.append(_extra_pictures(view, arrays, settings, report.options))
                if keep:
                    views.append(view)
        if keep:
            ctx.save_for_backward(means, quats, scales, opacities, sh, alpha, depth)
            ctx.views, ctx.settings = views, settings
        return color, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *picture_gradients):
        *tensors, alpha, depth = ctx.saved_tensors
        settings = ctx.settings
        arrays = tuple(np.ascontiguousarray(t.detach().numpy()) for t in tensors)
        gradients = tuple(np.zeros_like(a) for a in arrays)
        shapes = ((*alpha.shape, 3), alpha.shape, alpha.shape)
        incoming = tuple(
            np.zeros(s, np.float32) if g is None else np.ascontiguousarray(g.numpy())
            for g, s in zip(picture_gradients, shapes, strict=True)
        )
        rows = np.empty((len(ctx.views), layout.CAMERA_GRADIENT))
        columns = settings.tile_shape[1]
        with jit.guard():
            for v, view in enumerate(ctx.views):
                pictures = alpha[v].numpy(), depth[v].numpy()
                rows[v] = _view_gradients(view, arrays, settings, columns, pictures, tuple(g[v] for g in incoming), gradients)
        return (*map(torch.from_numpy, gradients), torch.from_numpy(rows), None, None)


def camera_rows(cameras: Cameras) -> Tensor:
    """Pack cameras as ``V 19`` float64: R_cam_world, t_cam_world, center_world, fx, fy, cx, cy. Differentiable."""
    T_world_cam, K = cameras.T_world_cam.double(), cameras.K.double()
    R_cam_world = T_world_cam[:, :3, :3].transpose(1, 2)
    center_world = T_world_cam[:, :3, 3]
    t_cam_world = -(R_cam_world @ center_world[:, :, None])[:, :, 0]
    intrinsics = torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], dim=1)
    return torch.cat([R_cam_world.reshape(-1, 9), t_cam_world, center_world, intrinsics], dim=1)


def rasterize(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Rendering:
    """Draw checked Gaussians from checked cameras."""
    degree = gaussians.sh_degree if options.sh_degree is None else min(options.sh_degree, gaussians.sh_degree)
    settings = _Settings(
        width=cameras.width[0],
        height=cameras.height[0],
        near=options.near,
        far=options.far,
        antialiased=options.antialiased,
        sh_count=(degree + 1) ** 2,
        background=np.asarray(options.background, np.float32),
        wanted=None if options.tiles is None else np.ascontiguousarray(options.tiles.numpy()),
        linked=options.contribution,
    )
    tensors = tuple(t.float() for t in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh))
    report = _Report(options)
    color, alpha, depth = _Draw.apply(*tensors, camera_rows(cameras), settings, report)
    if any(report.dropped):
        logger.warning("%d Gaussians are not finite or have an opacity outside [0, 1]; they are not drawn", max(report.dropped))
    median, normals, contribution = report.stacked()
    return Rendering(
        color=color,
        alpha=alpha,
        depth=depth,
        median_depth=median if options.median_depth else None,
        normals=normals if options.normals else None,
        contribution=contribution if options.contribution else None,
        dropped=tuple(report.dropped),
    )
