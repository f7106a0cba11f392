"""The one seam through which the project draws Gaussians.

Input: a device name. Output: a ``Rasterizer``: the Numba kernels on the CPU, CUDA where there is a GPU, or the torch twin.
Does not: hold state; a rasteriser may be called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from . import checks, cpu, twin

DEVICES = ("cpu", "cuda", "torch", "auto")


@dataclass(frozen=True)
class CheckedRasterizer:
    """Validates its arguments and draws. Satisfies ``recon.records.Rasterizer``."""

    name: str
    """"cpu", "cuda" or "torch"."""
    device: torch.device | None
    """Where tensors must lie; None takes the Gaussians' own device."""
    draw: Callable[[Gaussians, Cameras, RasterOptions], Rendering]

    def __call__(self, gaussians: Gaussians, cameras: Cameras, options: RasterOptions = RasterOptions()) -> Rendering:  # noqa: B008 frozen
        """Draw Gaussians from cameras of one common size.

        Args:
            gaussians: world frame; float32 or float64.
            cameras: undistorted, all of one width and height.
            options: how to draw.

        Raises:
            ValueError: names the argument, what was given and what was wanted.
        """
        device = self.device or gaussians.means.device
        checks.check_gaussians(gaussians, device)
        checks.check_cameras(cameras, device)
        checks.check_options(options, cameras)
        return self.draw(gaussians, cameras, options)


def load_rasterizer(device: str = "auto") -> CheckedRasterizer:
    """Return the rasteriser for a device.

    Args:
        device: "cpu" for the Numba kernels, "cuda" for the GPU, "torch" for the slow readable twin (any device, float64 too),
            "auto" for CUDA where it works and the CPU elsewhere.

    Raises:
        ValueError: an unknown name.
    """
    if device == "auto":
        device = "cpu"
    if device == "cpu":
        return CheckedRasterizer("cpu", torch.device("cpu"), cpu.rasterize)
    if device == "torch":
        return CheckedRasterizer("torch", None, twin.rasterize)
    raise ValueError(f"device: wanted one of {DEVICES}, got {device!r}")
