"""Colours drawn from predicted depth: they pull depth to the truth, stay finite, and are refused without a rasteriser."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.cli import main
from app.train import camera_config, head_config, refiner_config
from models.mini import MiniNetwork
from models.training import stretch
from models.training.drawn_depth import Depicted, drawn_loss, half_size, pixel_gaussians, pull, shared_surface
from models.training.plan import plan_stretch
from models.training.stretch import update
from models.training.trainer import TrainConfig, make_batch, train, train_step
from models.training.worlds import WorldConfig, Worlds
from recon.records import Cameras
from render.rasterizer import load_rasterizer

NEAR_TRUTH = 0.02
"""Drawn at 128x96 the loss of these worlds is least within 0.5% of the true depth; a step of the descent below is 0.5%."""
SLANTED = 0.02
"""Depth drawn by round Gaussians against the exact one, in the median, on surfaces that are mostly slanted."""


def textured_view(seed: int) -> tuple[torch.Tensor, Depicted]:
    """True depth of the first view of a world without errors of photos and cameras, and two other photos of it."""
    capture = Worlds(None, seed, WorldConfig(photographic=False, simple=0.0)).capture(3, 192, 256)
    photos = half_size(torch.from_numpy(capture.images).float())
    K = torch.from_numpy(capture.K).float() * torch.tensor([0.5, 0.5, 1.0])[:, None]
    T_world_cam = torch.from_numpy(capture.T_world_cam).float()
    depth = torch.from_numpy(capture.depth[2]).float()
    cameras = Cameras(T_world_cam=T_world_cam[1:], K=K[1:], width=128, height=96)
    solid = depth[0] < 1e20
    depicted = Depicted(
        photo=photos[0],
        confidence=torch.full((96, 128), 0.9),
        solid=solid,
        K=K[0],
        T_world_cam=T_world_cam[0],
        target_photos=photos[1:],
        target_cameras=cameras,
        shared=shared_surface(depth[1:], cameras, depth[0], K[0], T_world_cam[0]),
    )
    return torch.where(solid, depth[0], 1.0), depicted


@pytest.mark.parametrize(("seed", "wrong"), [(3, 1.05), (6, 0.95)])
def test_the_colour_loss_moves_depth_to_the_truth(seed: int, wrong: float) -> None:
    true, depicted = textured_view(seed)
    rasterizer, log_scale = load_rasterizer("cpu"), torch.tensor(float(np.log(wrong)), requires_grad=True)
    assert drawn_loss(true, depicted, rasterizer) < 0.5 * drawn_loss(wrong * true, depicted, rasterizer)
    descent = torch.optim.Adam([log_scale], lr=0.005)
    for _ in range(18):
        loss = pull((true * log_scale.exp())[None], [depicted], rasterizer)
        assert loss is not None
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert abs(float(log_scale.detach())) < NEAR_TRUTH < abs(float(np.log(wrong)))


def test_pixels_are_drawn_where_they_were_seen_as_large_as_they_were_seen() -> None:
    true, depicted = textured_view(3)
    own = Cameras(T_world_cam=depicted.T_world_cam[None], K=depicted.K[None], width=128, height=96)
    drawn = load_rasterizer("cpu")(pixel_gaussians(true, depicted), own)
    inner = depicted.solid & (drawn.alpha[0] > 0.9)
    assert float(inner.float().mean()) > 0.5
    assert float((drawn.depth[0] / true - 1).abs()[inner].median()) < SLANTED
    assert float((drawn.color[0] - depicted.photo).abs()[inner].mean()) < 0.05


def test_only_what_a_reference_view_sees_is_compared() -> None:
    facing = torch.eye(4)
    behind = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    K = torch.tensor([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]])
    depth = torch.full((1, 16, 16), 2.0)
    depth[:, :4] = 1e30
    same, other = (Cameras(T_world_cam=T[None], K=K[None], width=16, height=16) for T in (facing, behind))
    assert shared_surface(depth, same, depth[0], K, facing)[0, 4:].all()
    assert not shared_surface(depth, same, depth[0], K, facing)[0, :4].any()
    assert not shared_surface(depth, other, depth[0], K, facing).any()
    hidden = torch.where(torch.arange(16) < 8, depth[0], 0.5 * depth[0])  # something stands before the right half
    assert shared_surface(depth, same, hidden, K, facing)[0, 4:].sum() == 12 * 8


def test_what_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    true, depicted = textured_view(3)
    depth = true[None].clone().requires_grad_()
    honest = load_rasterizer("cpu")

    def broken(spoil: Callable) -> Callable:
        def draw(gaussians, cameras, options):
            gaussians.means.register_hook(spoil)
            return honest(gaussians, cameras, options)

        return draw

    def one_nan(slope: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(len(slope))[:, None] == 5, torch.nan, slope)

    loss = pull(depth, [depicted], broken(one_nan))
    assert loss is not None
    loss.backward()
    assert bool(torch.isfinite(depth.grad).all())
    assert int((depth.grad != 0).sum()) > 500
    empty = dataclasses.replace(depicted, solid=torch.zeros_like(depicted.solid))
    assert pull(depth, [empty], honest) is None
    dark = dataclasses.replace(depicted, target_photos=depicted.target_photos * torch.nan)
    assert pull(depth, [dark], honest) is None


def test_a_step_on_colours_is_logged_and_goes_elsewhere() -> None:
    batch = make_batch(Worlds(None, 3), 2, 2, views=3, size=(96, 128), neighbours=2, hide=True)
    assert batch.hidden is not None
    for world, hidden in enumerate(batch.hidden):
        assert len(batch.captures[world].images) == 4
        assert hidden not in batch.references[world]
        assert hidden not in batch.neighbours[world]
        assert all(ref not in others for ref, others in zip(batch.references[world], batch.neighbours[world], strict=True))
    moved = {}
    for weight in (0.0, 1000.0):
        torch.manual_seed(0)
        network = MiniNetwork()
        average, descent = copy.deepcopy(network), torch.optim.SGD(network.parameters(), lr=0.1)
        config = TrainConfig(out=Path(), colours=weight)
        parts = train_step(network, average, descent, batch, 0, config=config, rasterizer=load_rasterizer("cpu"))
        assert ("colours" in parts) == (weight > 0)
        moved[weight] = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert bool(torch.isfinite(moved[1000.0]).all())
    assert float((moved[1000.0] - moved[0.0]).norm()) > 1e-3


def test_colours_without_a_rasteriser_are_refused(tmp_path: Path) -> None:
    config = TrainConfig(out=tmp_path / "run", colours=1.0)
    for run in (train, plan_stretch):
        with pytest.raises(ValueError, match="colours: 1 wants a rasterizer"):
            run(config)
    assert not (tmp_path / "run").exists()
    batch = make_batch(Worlds(None, 3), 1, 1, views=3, size=(96, 128), neighbours=2)
    network = MiniNetwork()
    with pytest.raises(ValueError, match="hidden views"):
        train_step(network, network, None, batch, 0, config=config, rasterizer=load_rasterizer("cpu"))
    for words in (["mini", "--colours=-1"], ["head", "--colours", "1"], ["mini", "--learning-rate", "0"]):
        assert main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_steps_draw_apart_from_what_casts_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's plainest threads end a program in which two threads launch kernels at once, so worlds are then made elsewhere."""
    monkeypatch.setattr(stretch, "made_by_processes", lambda begin, makers: (part for part in ("processes", makers)))
    monkeypatch.setattr(stretch, "made_ahead", lambda make: (part for part in ("thread",)))

    def begin(number: int) -> Callable[[], int]:
        return lambda: number

    assert list(stretch.made_in_background(begin, 1)) == ["thread"]
    assert list(stretch.made_in_background(begin, 1, apart=True)) == ["processes", 1]
    assert list(stretch.made_in_background(begin, 3)) == ["processes", 3]


def test_a_step_that_is_not_finite_leaves_nothing_behind() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    average, optimizer = copy.deepcopy(network), torch.optim.SGD(network.parameters(), lr=0.1)

    def step(rows: torch.Tensor) -> None:
        update(network, average, optimizer, network(rows).square().mean(), 5)

    step(torch.randn(8, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert float(before["1.running_mean"].abs().sum()) > 0
    step(torch.full((8, 3), torch.nan))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(bool(torch.isfinite(value).all()) for value in average.state_dict().values())
    step(torch.randn(8, 3))
    assert all(bool(torch.isfinite(value).all()) for value in average.state_dict().values())
    assert torch.equal(average[1].running_mean, network[1].running_mean)
    assert not torch.equal(average[1].running_mean, before["1.running_mean"])


def test_a_learning_rate_that_is_given_is_meant() -> None:
    usual, given = TrainConfig(out=Path()), TrainConfig(out=Path(), learning_rate=3e-4)
    kinds = {"mini": (lambda config: config, 1e-3), "refiner": (refiner_config, 2e-3), "cameras": (camera_config, 4e-4)}
    for name, (made, rate) in {**kinds, "head": (head_config, 2e-3)}.items():
        assert made(usual).peak_rate == rate, name
        assert made(given).peak_rate == 3e-4, name


@pytest.mark.requires_cuda
def test_colours_reach_depth_on_a_gpu() -> None:
    batch = make_batch(Worlds(None, 3), 1, 2, views=3, size=(96, 128), neighbours=2, hide=True)
    network = MiniNetwork().cuda()
    average, descent = copy.deepcopy(network), torch.optim.SGD(network.parameters(), lr=0.1)
    config = TrainConfig(out=Path(), colours=1.0, device="cuda")
    parts = train_step(network, average, descent, batch, 0, config=config, rasterizer=load_rasterizer("cuda"))
    assert np.isfinite(parts["colours"])
    assert np.isfinite(parts["gradient_norm"])
