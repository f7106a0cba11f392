"""Small scenes for the tests of the viewer."""

from __future__ import annotations

import torch

from recon.geometry import rgb_to_sh0
from recon.records import Cameras, Gaussians, Scene

COLORS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def make_scene(unit: float = 1.0) -> Scene:
    """Four coloured blobs in front of three cameras; ``unit`` is the length of one world unit."""
    means = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]) * unit
    quats = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2, 0.1, 0.0]]).repeat(4, 1), dim=1)
    gaussians = Gaussians(
        means=means,
        quats=quats,
        scales=torch.tensor([[0.5, 0.4, 0.3]]).repeat(4, 1) * unit,
        opacities=torch.tensor([0.95, 0.95, 0.95, 0.2]),
        sh=rgb_to_sh0(COLORS)[:, None],
    )
    T_world_cam = torch.eye(4).repeat(3, 1, 1)
    T_world_cam[:, :3, 3] = torch.tensor([[-1.0, 0.0, -6.0], [0.0, 0.0, -6.0], [1.0, 0.0, -6.0]]) * unit
    K = torch.tensor([[400.0, 0.0, 320.0], [0.0, 400.0, 240.0], [0.0, 0.0, 1.0]]).repeat(3, 1, 1)
    cameras = Cameras(T_world_cam=T_world_cam, K=K, width=(640,) * 3, height=(480,) * 3, names=("a.jpg", "b.jpg", "c.jpg"))
    return Scene(gaussians=gaussians, cameras=cameras, provenance={"folder": "/somewhere/blobs"})
