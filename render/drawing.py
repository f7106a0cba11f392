"""One view drawn by the kernels, stage after stage, and its way back.

    Gaussians ─ project ─ splats ─ depth_order ─ bin_splats ─ draw ─ color, alpha, depth
    gradients ─ reduce ──────────────── per-hit sums ─ gather ──────── their gradients

Input: NumPy arrays and ``Settings``. Output: pictures written in place, and a ``View`` that remembers how.
Does not: know autograd; that is ``cpu``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.records import Cameras, Gaussians, RasterOptions

from .constants import TILE
from .kernels import backward, extras, forward, jit, layout, projection, reduce
from .kernels.binning import bin_splats
from .kernels.sorting import depth_order

DEFAULTS = RasterOptions()


@dataclass(frozen=True)
class Settings:
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

    @staticmethod
    def of(gaussians: Gaussians, cameras: Cameras, options: RasterOptions = DEFAULTS) -> Settings:
        """Collect the settings of a call."""
        degree = gaussians.sh_degree if options.sh_degree is None else min(options.sh_degree, gaussians.sh_degree)
        return Settings(
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


def to_arrays(tensors: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """Contiguous NumPy views of float32 tensors."""
    return tuple(np.ascontiguousarray(t.detach().numpy()) for t in tensors)


def arrays_of(gaussians: Gaussians) -> tuple[np.ndarray, ...]:
    """Means, quats, scales, opacities and SH as float32 arrays."""
    return to_arrays([t.float() for t in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh)])


def camera_array(cameras: Cameras, settings: Settings) -> np.ndarray:
    """Cameras as the kernels read them, ``V 24`` float64 (see ``layout``)."""
    return fill_cameras(camera_rows(cameras), settings)


def fill_cameras(rows: Tensor, settings: Settings) -> np.ndarray:
    """Add near, far, width and height to camera rows ``V 19``."""
    cameras = np.zeros((rows.shape[0], layout.CAMERA))
    cameras[:, : layout.CAMERA_GRADIENT] = rows.detach().numpy()
    cameras[:, layout.NEAR :][:, :4] = settings.near, settings.far, settings.width, settings.height
    return cameras


def camera_rows(cameras: Cameras) -> Tensor:
    """Pack cameras as ``V 19`` float64: R_cam_world, t_cam_world, center_world, fx, fy, cx, cy. Differentiable."""
    T_world_cam, K = cameras.T_world_cam.double(), cameras.K.double()
    R_cam_world = T_world_cam[:, :3, :3].transpose(1, 2)
    center_world = T_world_cam[:, :3, 3]
    t_cam_world = -(R_cam_world @ center_world[:, :, None])[:, :, 0]
    intrinsics = torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], dim=1)
    return torch.cat([R_cam_world.reshape(-1, 9), t_cam_world, center_world, intrinsics], dim=1)


@dataclass
class View:
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


def draw_view(arrays, camera: np.ndarray, settings: Settings, wanted: np.ndarray, pictures, keep: bool) -> View:
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
    return View(camera, splats, ids, slots, totals, bases, starts, hit_rows, hit_slots, tile_order, saved, seen)


def view_gradients(view: View, arrays, settings: Settings, columns: int, pictures, picture_gradients, gradients) -> np.ndarray:
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


def extra_pictures(view: View, arrays, settings: Settings, options: RasterOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
