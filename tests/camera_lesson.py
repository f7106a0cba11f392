"""A small camera network, and one that has learnt a few photos by heart, for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from models.camera_network import CameraAnswer, CameraConfig, CameraNetwork, rotation_of
from models.training.camera_batches import CAMERA_WORLDS
from models.training.camera_losses import TrueViews, camera_loss, camera_metrics
from models.training.worlds import Worlds
from recon.photos import open_photos
from recon.records import Cameras

SMALL = CameraConfig(channels=32, layers=1, heads=2)
LEARNING_STEPS = 30
SAME = 1e-4
"""Sums in another order differ by as much in single precision."""


def small_network(seed: int = 0, config: CameraConfig = SMALL) -> CameraNetwork:
    torch.manual_seed(seed)
    return CameraNetwork(config).eval()


def random_cameras(batch: int, views: int, seed: int = 0) -> Tensor:
    """Rotations and centres anywhere."""
    drawn = torch.randn(batch, views, 9, generator=torch.Generator().manual_seed(seed))
    T_world_cam = torch.eye(4).repeat(batch, views, 1, 1)
    T_world_cam[..., :3, :3], T_world_cam[..., :3, 3] = rotation_of(drawn[..., :6]), drawn[..., 6:]
    return T_world_cam


def plain_truth(batch: int = 2, views: int = 4, seed: int = 0) -> TrueViews:
    generator = torch.Generator().manual_seed(seed)
    K = torch.eye(3).repeat(batch, views, 1, 1)
    K[..., [0, 1], [0, 1]] = 60 + 40 * torch.rand(batch, views, 2, generator=generator)
    K[..., :2, 2] = torch.tensor([32.0, 24.0])
    depth = 2 + torch.rand(batch, views, 6, 8, generator=generator)
    depth[:, :, :1] = 1e30
    return TrueViews(K=K, T_world_cam=random_cameras(batch, views, seed), sizes=((views, 48, 64),), depth=(depth,))


def perfect(truth: TrueViews, seed: int = 5) -> CameraAnswer:
    """The truth in units of the network's, in another world."""
    T_world_cam, unit = truth.T_world_cam.clone(), truth.unit
    T_world_cam[..., :3, 3] /= unit[:, None, None]
    T_other_world = random_cameras(1, 1, seed)
    zero = torch.zeros(truth.depth[0].shape)
    focal = torch.stack([truth.K[..., 0, 0], truth.K[..., 1, 1]], dim=-1) / truth.longest[:, None]
    return CameraAnswer(
        T_world_cam=T_other_world @ T_world_cam,
        log_focal=focal.log(),
        log_spread=torch.zeros(*truth.K.shape[:2], 3),
        log_depth=tuple((one.clamp(max=1e6) / unit[:, None, None, None]).log() for one in truth.depth),
        log_depth_spread=(zero,),
    )


@dataclass(frozen=True)
class Lesson:
    """Photos of a world, and a network that learned them by heart at a quarter of their size."""

    photos: Path
    truth: Cameras
    """At the size of the photos."""
    network: CameraNetwork
    before: dict[str, float]
    after: dict[str, float]


@pytest.fixture(name="lesson", scope="module")
def learned_by_heart(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    photos = tmp_path_factory.mktemp("photos")
    exact = replace(CAMERA_WORLDS, photographic=False, simple=0.0, stride=0.7, stretch=0.0)
    capture = Worlds(None, 6, exact).capture(5, 192, 256)
    for i, image in enumerate(capture.images):
        Image.fromarray((image * 255).round().astype(np.uint8)).save(photos / f"{i}.png")
    T_world_cam, K = torch.from_numpy(capture.T_world_cam).float(), torch.from_numpy(capture.K).float()
    smaller = K.clone()
    smaller[:, :2] /= 4
    depth = torch.from_numpy(capture.depth[8][:, 2::4, 2::4]).float()
    truth = TrueViews(K=smaller[None], T_world_cam=T_world_cam[None], sizes=((5, 48, 64),), depth=(depth[None],))
    views = open_photos(photos, long_side=128).views
    images = [torch.stack([view.load_at(64, 48).permute(2, 0, 1) for view in views])[None]]
    network = small_network(config=replace(SMALL, channels=64, layers=2))
    for norm in (one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)):
        norm.momentum = 0.5  # it sees one batch alone, and few steps
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    with torch.no_grad():
        before = camera_metrics(network(images), truth)
    for _ in range(LEARNING_STEPS):
        answer = network.train()(images)
        optimizer.zero_grad()
        camera_loss(answer, truth)[0].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        after = camera_metrics(network.eval()(images), truth)
    return Lesson(photos, Cameras(T_world_cam=T_world_cam, K=K, width=256, height=192), network, before, after)


def written(folder: Path, network: torch.nn.Module) -> Path:
    path = folder / "cameras.safetensors"
    metadata = {name: str(value) for name, value in vars(network.config).items()}
    kept = {name: value.contiguous() for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(kept, path, metadata=metadata)
    return path
