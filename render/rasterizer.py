"""The one seam through which the project draws Gaussians.

Input: a device name. Output: a ``Rasterizer``: the Numba kernels on the CPU, CUDA where there is a GPU, or the torch twin.
Does not: hold state; a rasteriser may be called from many threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from recon.errors import UserError
from recon.records import Cameras, Gaussians, RasterOptions, Rendering

from . import checks, cpu, cuda, nvrtc, twin
from .kernels import jit

DEVICES = ("cpu", "cuda", "torch", "auto")
VECTOR_UNITS = {"avx512f": "AVX-512", "avx2": "AVX2", "neon": "NEON", "sse2": "SSE2"}
"""LLVM feature -> what people call it, widest first."""


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


@dataclass(frozen=True)
class Backend:
    """One implementation, and whether this machine can use it."""

    name: str
    """As ``load_rasterizer`` takes it."""
    usable: bool
    reason: str
    """What it runs on, or why it cannot."""


def _why_no_cuda() -> str:
    """Why neither gsplat's kernels nor those compiled at run time work here; empty when one does."""
    gsplat_reason = cuda.why_unavailable()
    if not gsplat_reason:
        return ""
    nvrtc_reason = nvrtc.why_unavailable()
    if not nvrtc_reason:
        return ""
    return gsplat_reason if gsplat_reason == nvrtc_reason else f"{gsplat_reason}; {nvrtc_reason}"


def _cuda_engine() -> str:
    reason = cuda.why_unavailable()
    return f"kernels compiled at run time (not gsplat: {reason})" if reason else "gsplat"


def describe_backends() -> tuple[Backend, ...]:
    """Say what each implementation runs on here, best first. The first usable one is what "auto" takes."""
    layer = jit.prepare()
    missing = _why_no_cuda()
    gpu = missing or f"{_cuda_engine()} on {torch.cuda.get_device_name()}"
    lanes = next((name for feature, name in VECTOR_UNITS.items() if jit.machine_features().get(feature)), "no vector unit known")
    return (
        Backend("cuda", not missing, gpu),
        Backend("cpu", True, f"Numba kernels, {lanes}, {jit.thread_count()} threads ({layer})"),
        Backend("torch", True, "slow twin, for checking"),
    )


def describe() -> str:
    """One line: what "auto" takes, and why not CUDA where it does not."""
    backends = describe_backends()
    used = next(backend for backend in backends if backend.usable)
    unused = "; ".join(f"not {b.name}: {b.reason}" for b in backends if not b.usable)
    return f"{used.name}: {used.reason}" + (f" ({unused})" if unused else "")


def warm() -> float:
    """Compile and cache every CPU kernel, forward and backward, and return the seconds it took."""
    began = time.perf_counter()
    leaf = torch.zeros(8, 3)
    leaf[:, 0] = torch.linspace(-0.5, 0.5, 8)
    gaussians = Gaussians(
        means=leaf.requires_grad_(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(8, 1),
        scales=torch.full((8, 3), 0.1),
        opacities=torch.full((8,), 0.8),
        sh=torch.zeros(8, 4, 3),
    )
    T_world_cam = torch.eye(4)[None].clone()
    T_world_cam[0, 2, 3] = -2.0
    K = torch.tensor([[[40.0, 0.0, 16.0], [0.0, 40.0, 16.0], [0.0, 0.0, 1.0]]])
    cameras = Cameras(T_world_cam=T_world_cam, K=K, width=(32,), height=(32,))
    options = RasterOptions(median_depth=True, normals=True, contribution=True)
    with torch.enable_grad():
        load_rasterizer("cpu")(gaussians, cameras, options).color.sum().backward()
    return time.perf_counter() - began


def load_rasterizer(device: str = "auto") -> CheckedRasterizer:
    """Return the rasteriser for a device.

    Args:
        device: "cpu" for the Numba kernels, "cuda" for the GPU, "torch" for the slow readable twin (any device, float64 too),
            "auto" for CUDA where it works and the CPU elsewhere.

    Raises:
        ValueError: an unknown name.
        UserError: "cuda" where it cannot run, with the reason.
    """
    if device == "auto":
        device = "cpu" if _why_no_cuda() else "cuda"
    if device == "cpu":
        return CheckedRasterizer("cpu", torch.device("cpu"), cpu.rasterize)
    if device == "cuda":
        missing = _why_no_cuda()
        if missing:
            raise UserError(f"CUDA cannot draw here: {missing}.", 'Use the device "cpu".')
        draw = nvrtc.rasterize if cuda.why_unavailable() else cuda.rasterize
        return CheckedRasterizer("cuda", torch.device("cuda"), draw)
    if device == "torch":
        return CheckedRasterizer("torch", None, twin.rasterize)
    raise ValueError(f"device: wanted one of {DEVICES}, got {device!r}")
