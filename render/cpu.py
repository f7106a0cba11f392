"""The CPU rasteriser: Numba kernels behind a ``torch.autograd.Function``.

Input: checked ``Gaussians`` and ``Cameras`` on the CPU. Output: ``Rendering``, differentiable in everything that shapes it.
Does not: validate (``checks`` does), or differentiate median depth, normals and contribution.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from .drawing import Settings, camera_rows, draw_view, extra_pictures, fill_cameras, to_arrays, view_gradients
from .kernels import jit, layout

logger = logging.getLogger(__name__)


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


class _Draw(torch.autograd.Function):
    """(Gaussian tensors, V 19 camera rows) -> color, alpha, depth."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, opacities, sh, rows, settings: Settings, report: _Report):
        arrays = to_arrays((means, quats, scales, opacities, sh))
        keep = any(ctx.needs_input_grad)
        count = rows.shape[0]
        cameras = fill_cameras(rows, settings)
        color = torch.empty((count, settings.height, settings.width, 3))
        alpha = torch.empty((count, settings.height, settings.width))
        depth = torch.empty((count, settings.height, settings.width))
        pictures = tuple(t.numpy() for t in (color, alpha, depth))
        views = []
        with jit.guard():
            for v in range(count):
                view_pictures = tuple(p[v] for p in pictures)
                view = draw_view(arrays, cameras[v], settings, settings.wanted_tiles(v), view_pictures, keep)
                report.dropped.append(int(view.totals[:, 1].sum()))
                if report.wants_extras:
                    report.extras.append(extra_pictures(view, arrays, settings, report.options))
                if keep:
                    views.append(view)
        if keep:
            ctx.save_for_backward(means, quats, scales, opacities, sh, alpha, depth)
            ctx.views, ctx.settings = views, settings
        return color, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *picture_gradients):  # pyright: ignore[reportIncompatibleMethodOverride] torch's own way
        *tensors, alpha, depth = ctx.saved_tensors
        settings = ctx.settings
        arrays = to_arrays(tensors)
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
                rows[v] = view_gradients(view, arrays, settings, columns, pictures, tuple(g[v] for g in incoming), gradients)
        return (*map(torch.from_numpy, gradients), torch.from_numpy(rows), None, None)


def rasterize(gaussians: Gaussians, cameras: Cameras, options: RasterOptions) -> Rendering:
    """Draw checked Gaussians from checked cameras."""
    settings = Settings.of(gaussians, cameras, options)
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
