"""Procedural worlds, losses and the trainer."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import weights as shipped_weights
from app.cli import main
from data.pack_textures import pack_textures
from models.mini import MiniConfig, MiniNetwork, MiniOutput
from models.registry import load_predictor, load_splat_head
from models.training import plan as stretch_plan
from models.training import raycast, shading, shapes
from models.training.curves import draw_curves, read_curves
from models.training.losses import depth_loss, depth_metrics, normal_loss, surface_normals, target_position
from models.training.photography import photograph
from models.training.plan import plan_stretch
from models.training.sheet import GAP, contact_sheet, depth_picture, normal_picture
from models.training.textures import load_textures
from models.training.trainer import TrainConfig, make_batch, train, train_step
from models.training.worlds import LEAST_OFF_PLANE, LEAST_TEXTURED, WorldConfig, Worlds, off_plane, textured
from recon.errors import UserError


@pytest.fixture(scope="module")
def clean_capture():
    return Worlds(None, seed=11, config=WorldConfig(photographic=False)).capture(3, 64, 80)


def one_primitive(shape: int, center, half) -> np.ndarray:
    row = np.zeros((1, 1, shapes.FIELDS), np.float32)
    row[..., 0], row[..., 1:4], row[..., 4:13], row[..., 13:16] = shape, center, np.eye(3).reshape(-1), half
    row[..., 17], row[..., 18:21], row[..., 25] = 1.0, 1.0, np.linalg.norm(half)
    return row


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(shapes.BOX, 3.0), (shapes.ELLIPSOID, 3.0), (shapes.CYLINDER, 3.0), (shapes.CARD, 4.0), (shapes.ROOM, 5.0)],
)
def test_each_shape_is_hit_at_its_depth(shape, expected):
    K = np.array([[[40.0, 0, 8], [0, 40.0, 8], [0, 0, 1]]], np.float32)
    world = shading.World(one_primitive(shape, (0, 0, 4), (1, 1, 1)), np.zeros((1, 2, 2), np.float32))
    eyes = shading.Eyes(np.eye(4, dtype=np.float32)[None], K, np.zeros(1, np.float32))
    depth = raycast.cast_depth(world, eyes, 16, 16, 2)
    assert depth[0, 4, 4] == pytest.approx(expected, abs=0.01)


def test_the_same_seed_makes_the_same_capture():
    first, second = (Worlds(None, seed=5).capture(2, 32, 40) for _ in range(2))
    other = Worlds(None, seed=6).capture(2, 32, 40)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.depth[2], second.depth[2])
    assert not np.array_equal(first.images, other.images)


def test_worlds_of_one_plane_or_one_colour_are_thrown_away():
    y, x = np.mgrid[0:24, 0:32].astype(np.float32)
    wall = 1.0 / (0.2 + 0.002 * x + 0.004 * y)[None]
    assert off_plane(wall) == pytest.approx(0.0, abs=1e-6)
    behind = wall.copy()
    behind[0, :, 20:] *= 2.0
    assert off_plane(behind) == pytest.approx(12 / 32, abs=0.02)
    half = np.full((1, 64, 64, 3), 0.5, np.float32)
    assert textured(half) == 0.0
    half[:, :32] += np.random.default_rng(0).normal(0, 0.1, (1, 32, 64, 3)).astype(np.float32)
    assert textured(half) == pytest.approx(0.5)
    worlds = Worlds(None, seed=4, config=WorldConfig(photographic=False, simple=0.0))
    for _ in range(4):
        capture = worlds.capture(3, 96, 128)
        assert off_plane(capture.depth[8]) > LEAST_OFF_PLANE
        assert textured(capture.images) > LEAST_TEXTURED


def test_a_contact_sheet_shows_photos_depth_and_normals(clean_capture, tmp_path):
    views, height, width = clean_capture.images.shape[:3]
    sheet = contact_sheet([clean_capture, clean_capture])
    assert sheet.shape == (2 * height + GAP, (views + 2) * (width + GAP) - GAP, 3)
    assert np.abs(sheet[:height, :width] / 255.0 - clean_capture.images[0]).max() < 0.01
    shown = normal_picture(np.array([[[0, 0, -1.0], [-1, 0, 0], [0, -1, 0], [0, 0, 0]]]))
    assert np.allclose(shown[0], [[0.5, 0.5, 1.0], [1, 0.5, 0.5], [0.5, 1, 0.5], [1, 1, 1]], atol=1e-6)
    corner = normal_picture(clean_capture.normals[0])[-1, -1]
    assert np.abs(sheet[height - 2 : height, -2:] / 255.0 - corner).max() < 0.01, "the last picture is of the first photo's normals"
    with pytest.raises(ValueError, match="normals"):
        contact_sheet([dataclasses.replace(clean_capture, normals=None)])
    near, far = depth_picture(np.array([[1.0, 4.0, 1e30]], np.float32), np.array([1.0, 4.0]))[0, :2]
    assert (near[0], near[2], far[0], far[2]) == (1.0, 0.0, 0.0, 1.0)
    assert (
        main(
            [
                "worlds",
                "--sheet",
                str(tmp_path / "in" / "sheet.png"),
                "--worlds",
                "1",
                "--views",
                "2",
                "--height",
                "64",
                "--width",
                "64",
            ]
        )
        == 0
    )
    with Image.open(tmp_path / "in" / "sheet.png") as drawn:
        assert drawn.size == (4 * (64 + GAP) - GAP, 64)
    for words in (["--width", "100"], ["--worlds", "0"], ["--textures", "README.md"]):
        assert main(["worlds", "--sheet", str(tmp_path / "none.png"), *words]) == 2
    assert main(["worlds", "--sheet", str(tmp_path / "none.jpg")]) == 2
    assert not (tmp_path / "none.png").exists()


def test_depth_and_cameras_explain_where_colours_go(clean_capture):
    """A pixel moved by its depth into another view, where that view's depth agrees, finds its own colour."""
    c = clean_capture
    depth = c.depth[2][0]
    rows, columns = np.nonzero(depth < 1e20)
    pixel = np.stack([columns * 2 + 1.0, rows * 2 + 1.0, np.ones(len(rows))])
    points = (np.linalg.inv(c.K[0]) @ pixel * depth[rows, columns]).astype(np.float64)
    world = c.T_world_cam[0, :3, :3] @ points + c.T_world_cam[0, :3, 3:]
    own = c.images[0, rows * 2, columns * 2]
    agreed, close = 0, 0
    for view in (1, 2):
        T_cam_world = np.linalg.inv(c.T_world_cam[view].astype(np.float64))
        q = c.K[view] @ (T_cam_world[:3, :3] @ world + T_cam_world[:3, 3:])
        x, y = q[0] / q[2], q[1] / q[2]
        inside = (q[2] > 0.01) & (x > 2) & (y > 2) & (x < 78) & (y < 62)
        x, y, z = x[inside], y[inside], q[2][inside]
        there = c.depth[2][view][(y / 2).astype(int), (x / 2).astype(int)]
        same = np.abs(there / z - 1) < 0.01
        difference = np.abs(c.images[view, y.astype(int), x.astype(int)] - own[inside]).mean(axis=1)
        agreed += int(same.sum())
        close += int((difference[same] < 0.12).sum())
    assert agreed > 200
    assert close / agreed > 0.85


def test_depth_ranges_hold_most_of_the_scene(clean_capture):
    for depth, (near, far) in zip(clean_capture.depth[8], clean_capture.depth_range, strict=True):
        solid = depth[depth < 1e20]
        assert ((solid >= near) & (solid <= far)).mean() > 0.85


def test_photographs_stay_photographs(clean_capture):
    photos = photograph(clean_capture.images, np.random.default_rng(0))
    assert photos.shape == clean_capture.images.shape
    assert 0 <= photos.min() <= photos.max() <= 1
    assert np.abs(photos - np.clip(clean_capture.images, 0, 1)).mean() > 1e-4


def perfect_output(config: MiniConfig, position: torch.Tensor, sure: float) -> MiniOutput:
    """What a network that is right everywhere would say about one flat surface at ``position``."""
    low = int(position.floor().flatten()[0])
    logits = torch.full((1, config.planes, 2, 2), -30.0)
    logits[:, low] = 0.0
    fine_logits = torch.full((1, config.fine_planes, 4, 4), -30.0)
    fine_logits[:, config.fine_planes // 2 - 1 : config.fine_planes // 2 + 1] = 0.0
    at = {size: torch.full((1, size, size), float(low)) for size in (2, 4, 8)}
    return MiniOutput(logits, at[2], at[4], fine_logits, at[4], at[8], torch.full((1, 8, 8), sure))


def test_right_answers_cost_little_and_wrong_confidence_costs():
    config = MiniConfig()
    ranges = torch.tensor([[1.0, 10.0]])
    step = (1.0 - 0.1) / 63
    depth = {cell: torch.full((1, size, size), 1.0 / (0.1 + step * 20)) for cell, size in ((2, 8), (4, 4), (8, 2))}
    target = target_position(depth, ranges, config.planes)
    assert torch.allclose(target.position[2], torch.tensor(20.0), atol=1e-3)
    sure, _ = depth_loss(perfect_output(config, target.position[2], 8.0), target, config)
    unsure, _ = depth_loss(perfect_output(config, target.position[2], -8.0), target, config)
    assert float(sure) < 0.3
    assert float(unsure) > float(sure) + 2.0
    metrics = depth_metrics(perfect_output(config, target.position[2], 8.0), depth[2], depth[2], target)
    assert metrics["within_half_plane"] == 1.0
    assert metrics["calibration_error"] < 0.01


def test_what_lies_outside_the_range_is_handled():
    ranges = torch.tensor([[2.0, 10.0]])
    depth = {2: torch.tensor([[[1.0, 1e30, 50.0, 4.0]]])}
    target = target_position(depth, ranges, 64)
    assert target.valid[2].tolist() == [[[False, True, True, True]]]
    assert target.position[2][0, 0, 1:3].tolist() == [0.0, 0.0]


def test_training_runs_resumes_and_its_weights_load(tmp_path):
    config = TrainConfig(out=tmp_path, minutes=5.0, captures=1, references=1, max_steps=1, threads=1, validation_worlds=1)
    weights = train(config)
    assert weights.stat().st_size < 3_000_000
    train(TrainConfig(out=tmp_path, minutes=5.0, captures=1, references=1, max_steps=2, threads=1, validation_worlds=1))
    journal = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in journal if "validation" in r] == [1, 2]
    drawn = (tmp_path / "curves.svg").read_text()
    assert "validation: within_plane" in drawn
    assert drawn.count("<polyline") == len(journal[-1]["validation"])
    ElementTree.fromstring(drawn)
    load_predictor("mini", weights=weights)
    state = torch.load(tmp_path / "mini.checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    with pytest.raises(UserError, match="another network"):
        load_splat_head(weights=weights)


def test_a_stretch_begins_with_the_weights_of_an_earlier_one(tmp_path):
    rest = {"minutes": 5.0, "captures": 1, "references": 1, "threads": 1, "validation_worlds": 1}
    shipped = Path(shipped_weights.__file__).parent / "mini.safetensors"
    before = load_file(shipped)
    same = load_file(train(TrainConfig(out=tmp_path / "same", start=shipped, max_steps=0, **rest)))
    assert all(torch.equal(same[name], before[name]) for name in before)
    other = {"wrong": torch.zeros(1)}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not hold weights of this network"):
        train(TrainConfig(out=tmp_path / "wrong", start=tmp_path / "other.safetensors", max_steps=0, **rest))


def test_a_plan_foretells_steps_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(stretch_plan, "WARM_UP", 1)
    config = TrainConfig(out=tmp_path / "run", minutes=60.0, captures=1, references=1, threads=1, validation_worlds=2)
    plan = plan_stretch(config, steps=2)
    assert not (tmp_path / "run").exists()
    assert plan.validations == 12
    assert 0.5 * 3600 < plan.steps * plan.step_s < 3600
    assert plan.worlds == plan.steps
    assert 3 * plan.worlds <= plan.photos <= 5 * plan.worlds
    assert plan.photos * 160 * 208 <= plan.pixels <= plan.photos * 256 * 320
    weights = train(dataclasses.replace(config, max_steps=1))
    assert weights.stat().st_size == pytest.approx(plan.weights_bytes, rel=0.1)
    assert (tmp_path / "run" / "mini.checkpoint.pt").stat().st_size == pytest.approx(plan.checkpoint_bytes, rel=0.15)


def test_packed_textures_come_back(tmp_path):
    for i, color in enumerate(((250, 10, 10), (10, 250, 10))):
        Image.new("RGB", (40, 30), color).save(tmp_path / f"{i}.png")
    assert pack_textures(tmp_path, tmp_path / "pack.npz") == 2
    textures = load_textures(tmp_path / "pack.npz")
    assert textures.shape == (2, 256, 256, 3)
    assert textures[:, 0, 0].tolist() == [[250, 10, 10], [10, 250, 10]]
    Worlds(textures, seed=0).capture(2, 32, 40)


def test_curves_hold_every_number_and_survive_a_log_that_was_cut_off(tmp_path):
    log = tmp_path / "log.jsonl"
    records = [
        {"step": 50, "minutes": 1.0, "loss": 3.0, "gradient_norm": float("nan")},
        {"step": 100, "minutes": 2.0, "loss": 2.5, "gradient_norm": 1.0},
        {"step": 100, "minutes": 2.0, "validation": {"within_1%": 0.25}},
    ]
    log.write_text("\n".join(json.dumps(record) for record in records) + '\n{"step": 150, "minu')
    assert read_curves(log) == {
        ("validation", "within_1%"): [(2.0, 0.25)],
        ("training", "loss"): [(1.0, 3.0), (2.0, 2.5)],
        ("training", "gradient_norm"): [(2.0, 1.0)],
    }
    drawn = ElementTree.fromstring(draw_curves(log).read_text())
    circles = [e for e in drawn.iter() if e.tag.endswith("circle")]
    assert len(circles) == 4
    low, high = (float(circle.get("cy")) for circle in circles[1:3])
    assert low < high, "a larger value stands higher"


def test_normals_of_a_slanted_plane_are_its_own_and_their_loss_knows_a_turn():
    K = torch.tensor([[[40.0, 0, 16], [0, 40.0, 12], [0, 0, 1]]])
    v, u = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    rays = torch.stack([(u - 16) / 40, (v - 12) / 40, torch.ones_like(u)], dim=-1)

    def plane(normal: list[float]) -> torch.Tensor:
        return (3.0 / (rays @ torch.nn.functional.normalize(torch.tensor(normal), dim=0)))[None]

    slanted, facing = plane([0.4, -0.2, 1.0]), plane([0.0, 0.0, 1.0])
    own = surface_normals(slanted, K)
    expected = torch.nn.functional.normalize(torch.tensor([0.4, -0.2, 1.0]), dim=0)
    assert torch.allclose((own * expected).sum(-1).abs(), torch.ones(1, 23, 31), atol=1e-4)
    everywhere = torch.ones(1, 24, 32, dtype=torch.bool)
    exact = -expected.expand(1, 24, 32, 3)  # towards the camera
    assert float(normal_loss(slanted, slanted, exact, everywhere, K)) < 1e-5
    assert float(normal_loss(facing, slanted, exact, everywhere, K)) == pytest.approx(1 - float(expected[2]), abs=1e-3)
    for farther in (1.6, 1.03):  # no normal is asked for across the edge of two surfaces, be it as small as a picture's frame
        stepped = slanted.clone()
        stepped[:, :, 16:] *= farther
        assert float(normal_loss(stepped, stepped, exact, everywhere, K)) < 1e-5
    assert float(normal_loss(slanted, slanted * 2, exact, torch.zeros_like(everywhere), K)) == 0.0


def test_the_right_depth_of_worlds_has_hardly_any_loss_on_normals_and_depth_that_is_off_has(clean_capture):
    depth, normals = (torch.from_numpy(one) for one in (clean_capture.depth[2], clean_capture.normals))
    K = torch.from_numpy(clean_capture.K) * torch.tensor([0.5, 0.5, 1.0])[:, None]
    solid = depth < 1e20
    depth = torch.where(solid, depth, 1e3)
    right = float(normal_loss(depth, depth, normals, solid, K))
    noise = torch.randn(depth.shape, generator=torch.Generator().manual_seed(0))
    assert right < 5e-3
    assert float(normal_loss(depth * (1 + 0.01 * noise), depth, normals, solid, K)) > 20 * right


def test_a_step_on_normals_is_logged_and_goes_elsewhere():
    batch = make_batch(Worlds(None, 3), 1, 1, views=3, size=(96, 128), neighbours=2)
    moved = {}
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        network = MiniNetwork()
        average, optimizer = copy.deepcopy(network), torch.optim.SGD(network.parameters(), lr=0.1)
        parts = train_step(network, average, optimizer, batch, 0, config=TrainConfig(out=Path(), normals=weight))
        assert ("normals" in parts) == (weight > 0)
        moved[weight] = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert bool(torch.isfinite(moved[5.0]).all())
    assert float((moved[5.0] - moved[0.0]).norm()) > 1e-3
