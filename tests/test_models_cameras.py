"""The camera network: no photo is preferred, what is known comes in gently, exact losses, and training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from camera_lesson import SAME, SMALL, perfect, plain_truth, random_cameras, small_network, written

from models.camera_network import CameraNetwork, KnownViews, common_frame
from models.matcher import MatcherNetwork
from models.registry import load_camera_predictor
from models.training.camera_batches import CAMERA_WORLDS, CameraBatch, batch_of, camera_batches, shoot, told
from models.training.camera_losses import camera_errors, camera_loss, camera_metrics
from models.training.camera_trainer import CameraTraining, begin_with_any, train_cameras
from models.training.makers import made_by_processes
from models.training.plan import plan_cameras
from models.training.textures import generated_textures
from models.training.worlds import Worlds
from recon.geometry import backproject, inside_image, project, transform


@pytest.fixture(scope="module")
def batch() -> CameraBatch:
    """Two small worlds, four photos of each."""
    worlds = Worlds(None, 0, CAMERA_WORLDS)
    return batch_of([shoot(worlds, 4, 64) for _ in range(2)], 4, worlds.rng, plain=True)


def test_the_network_is_small_enough():
    assert sum(value.numel() for value in CameraNetwork().parameters()) <= 5_000_000


@torch.no_grad()
def test_no_photo_is_preferred():
    network, images = small_network(), torch.rand(1, 5, 3, 48, 64)
    T_world_cam = random_cameras(1, 5)
    has = torch.tensor([[True, False, True, True, False]])
    known = KnownViews(
        K=50 * torch.eye(3).repeat(1, 5, 1, 1), has_K=~has, T_frame_cam=common_frame(T_world_cam, has), has_place=has
    )
    for layer in (network.known_lens, network.known_rays, network.known_place):
        torch.nn.init.normal_(layer.weight, std=0.1)
    order = torch.tensor([3, 0, 4, 2, 1])
    straight = network([images], known)
    mixed = network(
        [images[:, order]],
        KnownViews(
            K=known.K[:, order],
            has_K=known.has_K[:, order],
            T_frame_cam=common_frame(T_world_cam[:, order], has[:, order]),
            has_place=has[:, order],
        ),
    )
    for name in ("T_world_cam", "log_focal", "log_spread"):
        torch.testing.assert_close(getattr(mixed, name), getattr(straight, name)[:, order], atol=SAME, rtol=0)
    torch.testing.assert_close(mixed.log_depth[0], straight.log_depth[0][:, order], atol=SAME, rtol=0)
    moved = random_cameras(1, 1, seed=9) @ T_world_cam  # the world the user has them in does not matter
    moved[..., :3, 3] *= 7
    torch.testing.assert_close(common_frame(moved, has), common_frame(T_world_cam, has), atol=SAME, rtol=0)


@torch.no_grad()
def test_any_number_of_photos_of_any_shape():
    network = small_network()
    for views in (1, 2, 41):
        answer = network([torch.rand(1, views, 3, 32, 32)])
        R = answer.T_world_cam[..., :3, :3]
        torch.testing.assert_close(R @ R.transpose(-1, -2), torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
        assert answer.log_depth[0].shape == (1, views, 4, 4)
    upright, flat = torch.rand(2, 2, 3, 64, 48), torch.rand(2, 1, 3, 32, 80)
    one, other = network([upright, flat]), network([flat, upright])
    torch.testing.assert_close(one.T_world_cam, other.T_world_cam[:, [1, 2, 0]], atol=SAME, rtol=0)
    assert [tuple(x.shape) for x in one.log_depth] == [(2, 2, 8, 6), (2, 1, 4, 10)]
    alone = network([upright[:1], flat[:1]])  # captures do not look at each other
    torch.testing.assert_close(alone.T_world_cam, one.T_world_cam[:1], atol=SAME, rtol=0)


def test_what_is_known_does_nothing_at_first_and_matters_after_a_step(batch: CameraBatch):
    network = small_network()
    images, truth, _ = batch.on("cpu")
    every = torch.ones(truth.K.shape[:2], dtype=torch.bool)
    known = KnownViews(K=truth.K, has_K=every, T_frame_cam=common_frame(truth.T_world_cam, every), has_place=every)
    with torch.no_grad():
        torch.testing.assert_close(network(images, known).T_world_cam, network(images).T_world_cam, atol=0, rtol=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    camera_loss(network(images, known), truth)[0].backward()
    optimizer.step()
    with torch.no_grad():
        nothing = KnownViews(**{**vars(known), "has_K": ~every, "has_place": ~every})
        assert not torch.allclose(network(images, known).T_world_cam, network(images).T_world_cam, atol=SAME)
        torch.testing.assert_close(network(images, nothing).T_world_cam, network(images).T_world_cam, atol=0, rtol=0)


def test_losses_are_zero_for_the_truth_in_any_world():
    truth = plain_truth()
    answer = perfect(truth)
    errors = camera_errors(answer, truth)
    for error in (errors.rotation, errors.place, errors.focal, errors.depth[0]):
        assert float(error.abs().max()) < 1e-4
    _, parts = camera_loss(answer, truth)
    assert all(float(value) < 1e-4 for name, value in parts.items() if name != "told")
    metrics = camera_metrics(answer, truth)
    assert metrics["auc30"] > 0.99
    assert max(metrics["rotation_deg"], metrics["direction_deg"]) < 0.1
    assert max(metrics["focal_error"], metrics["depth_error"]) < 1e-4


def test_losses_do_not_change_with_the_world():
    truth, wrong = plain_truth(seed=1), perfect(plain_truth(seed=2))
    moved = random_cameras(1, 1, seed=3) @ truth.T_world_cam
    moved[..., :3, 3] *= 4.0
    elsewhere = replace(truth, T_world_cam=moved, depth=tuple(torch.where(one < 1e20, 4 * one, one) for one in truth.depth))
    before, after = camera_loss(wrong, truth)[1], camera_loss(wrong, elsewhere)[1]
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-3, rtol=1e-3)
    assert float(before["rotation"]) > 0.3
    assert float(before["place"]) > 0.1


def test_a_rotation_error_is_counted_in_radians():
    truth = plain_truth()
    answer = perfect(truth)
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    T_world_cam = answer.T_world_cam.clone()
    T_world_cam[:, 0] = T_world_cam[:, 0] @ turn
    errors = camera_errors(replace(answer, T_world_cam=T_world_cam), truth)
    chord = (2 * np.sqrt(2) * np.sin(0.1)) / np.sqrt(2)
    assert float(errors.rotation[0, 0, 1]) == pytest.approx(chord, abs=0.011)
    assert float(errors.rotation[0, 1, 2]) < 1e-4


def test_batches_show_what_their_cameras_say():
    """A point that the depth of one photo gives lies where another photo's depth has it, in photos of two shapes."""
    worlds = Worlds(None, 4, replace(CAMERA_WORLDS, simple=0.0))
    shots = [shoot(worlds, 4, 96)]
    shapes, mixed, agreed, count = set(), 0, 0, 0
    for _ in range(16):
        batch = batch_of(shots, 3, worlds.rng)
        shapes |= {size[1:] for size in batch.truth.sizes}
        mixed += len(batch.truth.sizes) > 1
        sizes = [size[1:] for size in batch.truth.sizes for _ in range(size[0])]
        depth = [one[0, i] for one in batch.truth.depth for i in range(one.shape[1])]
        assert [tuple(one.shape[2:4]) for one in batch.images] == [size[1:] for size in batch.truth.sizes]
        assert [tuple(one.shape) for one in depth] == [(h // 8, w // 8) for h, w in sizes]
        K, T = batch.truth.K[0].clone(), batch.truth.T_world_cam[0]
        K[:, :2] /= 8
        points = transform(T[0], backproject(depth[0], K[0]).reshape(-1, 3))[depth[0].flatten() < 1e20]
        px, z = project(transform(torch.linalg.inv(T[1]), points), K[1])
        inside = inside_image(px, depth[1].shape[1], depth[1].shape[0]) & (z > 0)
        px, z = px[inside].long(), z[inside]
        agreed += int(((depth[1][px[:, 1], px[:, 0]] / z - 1).abs() < 0.1).sum())
        count += int(inside.sum())
    assert len(shapes) >= 3
    assert 0 < mixed < 16
    assert agreed > 0.5 * count > 0


@pytest.mark.usefixtures("small_training")
def test_worlds_are_used_several_times_with_other_things_known():
    made = camera_batches(None, 0, photos=6, views=3, side=64, makers=1, uses=3, kept=4)
    batches = [next(made) for _ in range(4)]
    made.close()
    assert all(2 <= len(one.truth.K[0]) <= 3 for one in batches)
    truth, rng = plain_truth(), np.random.default_rng(0)
    drawn = [told(truth, rng) for _ in range(20)]
    assert {0.0, 1.0} <= {float(one.has_K.float().mean()) for one in drawn}
    assert any(0 < float(one.has_place.float().mean()) < 1 for one in drawn)
    assert any(not torch.equal(one.K, truth.K) for one in drawn)
    assert any(torch.equal(one.K, truth.K) for one in drawn)


def test_a_process_makes_what_it_is_told_and_says_when_it_fails():
    made = made_by_processes([[3, 2, 1].pop].__getitem__, 1)  # number 0 takes from a list until it is empty
    assert [next(made) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(IndexError):
        next(made)


@pytest.fixture
def small_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, and few textures, which take long to make."""
    for file in ("camera_trainer", "plan"):
        monkeypatch.setattr(f"models.training.{file}.CameraNetwork", lambda: CameraNetwork(SMALL))
    monkeypatch.setattr("models.training.worlds.generated_textures", lambda rng, count: generated_textures(rng, 6))


@pytest.mark.usefixtures("small_training")
def test_training_goes_on_where_it_stopped_and_its_weights_load(tmp_path: Path):
    config = CameraTraining(
        out=tmp_path, minutes=5.0, threads=1, photos=4, side=64, views=3, validation_worlds=1, max_steps=1, kept=2
    )
    path = train_cameras(config)
    train_cameras(replace(config, max_steps=2))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "validation" in record] == [1, 2]
    assert {"auc30", "rotation_deg", "direction_deg", "focal_error", "depth_error"} <= set(records[-1]["validation"])
    assert load_camera_predictor("network", weights=path).name == "camera-network"
    matcher, network = MatcherNetwork(), CameraNetwork(SMALL)
    begin_with_any(written(tmp_path, matcher), network)  # the same encoder
    assert torch.equal(network.encode.down8[1].body[0][0].weight, matcher.encode.down8[1].body[0][0].weight)
    with pytest.raises(ValueError, match="two photos"):
        train_cameras(replace(config, out=tmp_path / "other", views=1))


@pytest.mark.usefixtures("small_training")
def test_a_stretch_is_foretold(tmp_path: Path):
    plan = plan_cameras(CameraTraining(out=tmp_path / "out", threads=1, photos=4, side=64, views=3, validation_worlds=1), steps=1)
    assert plan.steps > 0
    assert plan.photos >= 2 * plan.worlds > 0
    assert not (tmp_path / "out").exists()
