"""Scenes for the rasteriser's tests: random ones, and ones made to hurt."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recon.records import Cameras, Gaussians

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def random_scene(count: int, *, sh_degree: int = 3, seed: int = 0, spread: float = 0.6) -> Gaussians:
    """Gaussians about the origin, with colours that leave [0, 1] on both sides."""
    g = torch.Generator().manual_seed(seed)
    sh = torch.randn(count, (sh_degree + 1) ** 2, 3, generator=g) * 0.3
    return Gaussians(
        means=torch.randn(count, 3, generator=g) * spread,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=torch.exp(torch.rand(count, 3, generator=g) * 2.5 - 4.5),
        opacities=torch.rand(count, generator=g) * 0.95 + 0.02,
        sh=sh + torch.randn(count, 1, 3, generator=g) * 0.8 * (torch.arange(sh.shape[1])[:, None] == 0),
    )


def cameras_around(views: int, *, width: int = 50, height: int = 37, distance: float = 2.5, fov_deg: float = 50.0) -> Cameras:
    """Cameras on a circle that look at the origin, with an off-centre principal point and unequal focal lengths."""
    T_world_cam = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    for v in range(views):
        angle = 2 * math.pi * v / max(views, 1)
        c, s = math.cos(angle), math.sin(angle)
        T_world_cam[v, :3, :3] = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=torch.float64)
        T_world_cam[v, :3, 3] = T_world_cam[v, :3, :3] @ torch.tensor([0.1, -0.05, -distance], dtype=torch.float64)
    focal = height / 2 / math.tan(math.radians(fov_deg) / 2)
    K = torch.tensor([[focal * 1.03, 0.0, width * 0.52], [0.0, focal, height * 0.47], [0.0, 0.0, 1.0]])
    return Cameras(T_world_cam=T_world_cam.float(), K=K.repeat(views, 1, 1), width=width, height=height)


def with_changes(gaussians: Gaussians, **changes: Tensor) -> Gaussians:
    """Replace some tensors."""
    return Gaussians(**{name: changes.get(name, getattr(gaussians, name)) for name in FIELDS})


def adversarial_scenes() -> dict[str, Gaussians]:
    """Scenes at the edges of what can be drawn, by name."""
    base = random_scene(40, seed=3)
    n = len(base)
    needles = base.scales.clone()
    needles[:, 0], needles[:, 1:] = 3.0, 1e-4
    discs = base.scales.clone()
    discs[:, 0], discs[:, 1:] = 1e-6, 0.3
    near = base.means.clone()
    near[:, 2] = -2.5 + 0.01 + torch.linspace(-0.02, 0.05, n)
    wide = base.means.clone()
    wide[:, 0] *= 20.0
    one_depth = base.means.clone()
    one_depth[:, 2] = 0.25
    edges = base.opacities.clone()
    edges[::4], edges[1::4], edges[2::4] = 0.0, 1.0, 0.9999
    faint = torch.linspace(0.5 / 255, 2.0 / 255, n)
    return {
        "huge": with_changes(base, scales=base.scales * 0 + 40.0),
        "tiny": with_changes(base, scales=base.scales * 0 + 1e-7),
        "no size": with_changes(base, scales=base.scales * 0),
        "needles": with_changes(base, scales=needles),
        "discs": with_changes(base, scales=discs),
        "behind": with_changes(base, means=base.means - torch.tensor([0.0, 0.0, 6.0])),
        "near plane": with_changes(base, means=near, scales=base.scales * 0.1),
        "outside the view": with_changes(base, means=wide, scales=base.scales * 6.0),
        "one depth": with_changes(base, means=one_depth),
        "opacity 0 and 1": with_changes(base, opacities=edges),
        "opacity about 1/255": with_changes(base, opacities=faint),
        "opaque wall": with_changes(
            random_scene(300, seed=5), opacities=torch.full((300,), 0.95), scales=torch.full((300, 3), 0.4)
        ),
        "quaternions not unit": with_changes(base, quats=base.quats * torch.linspace(0.01, 100.0, n)[:, None]),
        "one Gaussian": random_scene(1, seed=9),
    }
