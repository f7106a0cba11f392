"""A small network of the published family, its checkpoint files, and posed photos of a textured plane for the door tests."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.published.networks.da3 import Da3Config, DepthAnything3, da3_keys
from models.published.zoo import Network
from recon.posed import PosedViews
from recon.records import Cameras

TINY_CONFIG = Da3Config(dim=64, heads=1, features=16, widths=(8, 16, 16, 16))
TINY = Network(
    title="Tiny DA3",
    build=lambda: DepthAnything3(TINY_CONFIG),
    keys=da3_keys,
    long_side=112,
    uses_cameras=True,
    makes_gaussians=False,
    dim=64,
    head_features=8,
)


def tiny_network(seed: int = 0) -> DepthAnything3:
    """Make the tiny network with small random weights that give moderate depths."""
    network = DepthAnything3(TINY_CONFIG)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
            norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * drawn if norm_weight else 0.5 * drawn / math.sqrt(fan_in))
        network.cam_dec.fc_qvec.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 2.0]))
        network.cam_dec.fc_fov.bias.copy_(torch.tensor([1.0, 1.0]))
    return network.eval()


def published_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Name a DA3 network's tensors as its published file does, the shared norm stored once."""
    keys = da3_keys()
    named = {keys.published_name(name): tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    return {keys.copies.get(name, name): tensor for name, tensor in named.items()}


def write_tiny(path: Path, seed: int = 0) -> DepthAnything3:
    """Write the tiny network's checkpoint as safetensors; returns the network."""
    network = tiny_network(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(published_tensors(network), path)
    return network


def posed_plane(sizes: list[tuple[int, int]], *, points: int = 200) -> PosedViews:
    """Make posed views before the plane z = 4, with sparse points on it.

    Args:
        sizes: (width, height) of each view.
    """
    views = len(sizes)
    T_world_cam = torch.eye(4).repeat(views, 1, 1)
    T_world_cam[:, 0, 3] = 0.3 * torch.arange(views)
    K = torch.stack([torch.tensor([[0.9 * w, 0.0, w / 2], [0.0, 0.9 * w, h / 2], [0.0, 0.0, 1.0]]) for w, h in sizes])
    cameras = Cameras(T_world_cam=T_world_cam, K=K, width=tuple(w for w, _ in sizes), height=tuple(h for _, h in sizes))
    generator = torch.Generator().manual_seed(1)
    flat = torch.rand(points, 2, generator=generator) * 1.2 - 0.6
    points_world = torch.cat((flat + torch.tensor([0.3, 0.0]), torch.full((points, 1), 4.0)), dim=1)

    def read(index: int) -> tuple[Tensor, Tensor]:
        width, height = sizes[index]
        x, y = torch.arange(width) / width, torch.arange(height)[:, None] / height
        image = torch.stack(((9 * x + 0 * y).sin(), (7 * y + 0 * x).cos(), (5 * (x + y)).sin()), dim=-1) * 0.4 + 0.5
        valid = torch.ones(height, width, dtype=torch.bool)
        valid[:, :2] = False
        return image, valid

    return PosedViews(
        names=tuple(f"view{k}.jpg" for k in range(views)),
        cameras=cameras,
        read=read,
        points_world=points_world,
        visibility=torch.ones(views, points, dtype=torch.bool),
    )
