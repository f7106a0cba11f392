"""The stretch that trains the splat head, and the real scenes that a training is judged by."""

from __future__ import annotations

import copy
import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import weights as shipped_weights
from app import bare_training
from app.cli import main
from data import pack_training as packing
from data.pack_textures import differences
from data.pack_training import meeting_points, scene_arrays
from models.head import HeadNetwork, LearnedSplatHead
from models.registry import load_predictor, load_splat_head
from models.training import head_trainer
from models.training import plan as stretch_plan
from models.training.head_trainer import HeadTrainConfig, capture_to_posed, head_maker, head_step, train_head
from models.training.plan import plan_head
from models.training.real_scenes import HeadExam, RealScene, depth_on_photos, load_scenes
from models.training.textures import whole_pictures
from models.training.trainer import held_out_batches, validate
from models.training.worlds import Capture, WorldConfig, Worlds
from recon.errors import UserError
from recon.posed import PosedViews
from recon.records import Prediction
from render.rasterizer import load_rasterizer

SHIPPED = Path(shipped_weights.__file__).parent / "head.safetensors"
MATCHABLE = 5
"""Seed of a world whose textures SIFT can match at 256 pixels."""
HALF = 1 / 255
"""Of a colour that is stored in 8 bits."""


@pytest.fixture
def worlds_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds are made between steps, in this process: nothing has to start."""

    def made(config: HeadTrainConfig, textures: np.ndarray | None, seed: int) -> Generator[Capture, None, None]:
        make = head_maker(config, textures, seed, 0)
        while True:
            yield make()

    for module in (head_trainer, stretch_plan):
        monkeypatch.setattr(module, "made_worlds", made)


def small(out: Path, **rest) -> HeadTrainConfig:
    return HeadTrainConfig(out=out, minutes=5.0, size=(64, 80), validation_worlds=1, **rest)


@pytest.mark.usefixtures("worlds_here")
def test_the_head_trains_resumes_and_its_weights_load(tmp_path: Path) -> None:
    rasterizer = load_rasterizer("cpu")
    path = train_head(small(tmp_path, max_steps=1), rasterizer)
    early = load_file(path)
    train_head(small(tmp_path, max_steps=2), rasterizer)
    journal = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in journal if "validation" in record] == [1, 2]
    first, second = (record["validation"] for record in journal)
    assert set(first) == {"loss", "psnr", "rule_loss", "rule_psnr"}
    assert first["rule_psnr"] == second["rule_psnr"]
    assert (tmp_path / "curves.svg").exists()
    assert torch.load(tmp_path / "head.checkpoint.pt", weights_only=True)["step"] == 2
    assert isinstance(load_splat_head(weights=path), LearnedSplatHead)
    before, after = load_file(SHIPPED), load_file(path)
    assert any(not torch.equal(after[name], early[name]) for name in after)
    assert {name: (value.shape, value.dtype) for name, value in after.items()} == {
        name: (value.shape, value.dtype) for name, value in before.items()
    }


@pytest.mark.usefixtures("worlds_here")
def test_a_head_of_before_goes_on(tmp_path: Path) -> None:
    same = load_file(train_head(small(tmp_path, max_steps=0, start=SHIPPED), load_rasterizer("cpu")))
    assert all(torch.equal(same[name], value) for name, value in load_file(SHIPPED).items())
    record = json.loads((tmp_path / "log.jsonl").read_text())["validation"]
    assert record["loss"] != record["rule_loss"]
    wrong = small(tmp_path / "wrong", start=SHIPPED.with_name("mini.safetensors"))
    with pytest.raises(ValueError, match="does not hold weights of this network"):
        train_head(wrong, load_rasterizer("cpu"))


def test_steps_of_the_head_lower_the_loss_of_a_world() -> None:
    capture, rasterizer = head_maker(small(Path()), None, 2, 0)(), load_rasterizer("cpu")
    torch.manual_seed(0)
    head = HeadNetwork()
    average, optimizer = copy.deepcopy(head), torch.optim.Adam(head.parameters(), lr=5e-3)
    losses = [
        head_step(capture, average, optimizer, n, head=head, rasterizer=rasterizer, predictor=None, rng=np.random.default_rng(1))[
            "loss"
        ]
        for n in range(12)
    ]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.usefixtures("worlds_here")
def test_a_plan_for_the_head_foretells_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch_plan, "WARM_UP", 1)
    plan = plan_head(small(tmp_path / "run"), load_rasterizer("cpu"), None, steps=2)
    assert not (tmp_path / "run").exists()
    assert plan.photos == 6 * plan.worlds == 6 * plan.steps > 0
    assert plan.pixels == plan.photos * 64 * 80


def synthetic_scene() -> tuple[RealScene, tuple[torch.Tensor, ...]]:
    """Photos of a world as a pack would hold them, points on its true surface, and true depth at half the size."""
    capture = Worlds(None, 6, WorldConfig(photographic=False, simple=0.0)).capture(4, 96, 128)
    posed, rng = capture_to_posed(capture, range(4)), np.random.default_rng(0)
    points, seen = [], []
    for view in range(4):
        rows, columns = (rng.integers(side, size=60) for side in (48, 64))
        z = capture.depth[2][view][rows, columns].astype(np.float64)
        rays = np.linalg.inv(capture.K[view].astype(np.float64)) @ np.stack([2 * columns + 1.0, 2 * rows + 1.0, np.ones(60)])
        T_world_cam = capture.T_world_cam[view]
        points.append(((rays * z).T @ T_world_cam[:3, :3].T + T_world_cam[:3, 3])[z < 1e20])
        seen += [view] * int((z < 1e20).sum())
    visibility = torch.from_numpy(np.arange(4)[:, None] == np.array(seen))
    posed = replace(posed, points_world=torch.from_numpy(np.concatenate(points)).float(), visibility=visibility)
    arrays = scene_arrays(posed)
    photos = whole_pictures(arrays.pop("differences"))
    assert np.abs(photos / 255 - capture.images).max() <= HALF
    return RealScene(name="made", photos=photos, **arrays), tuple(torch.from_numpy(z).clamp(max=1e4) for z in capture.depth[2])


class KnownDepth:
    """A predictor that knows the truth, times a factor."""

    def __init__(self, depth: tuple[torch.Tensor, ...], factor: float) -> None:
        self.depth, self.factor = depth, factor

    def __call__(self, posed: PosedViews, neighbours, depth_range, progress) -> Prediction:
        depth = tuple(self.depth[int(name.split()[-1])] * self.factor for name in posed.names)
        sure = tuple(torch.full_like(z, 0.9) for z in depth)
        return Prediction(cameras=posed.cameras.resized(64, 48), depth=depth, confidence=sure)


def test_depth_on_photos_is_measured_at_sparse_points() -> None:
    scene, depth = synthetic_scene()
    right = depth_on_photos(KnownDepth(depth, 1.0), [scene])
    wrong = depth_on_photos(KnownDepth(depth, 1.1), [scene])
    assert right["photos_median_error"] < 1e-3
    assert right["photos_within_5%"] > 0.95
    assert wrong["photos_median_error"] == pytest.approx(0.1, abs=2e-3)
    assert wrong["photos_within_5%"] < 0.05
    assert depth_on_photos(None, []) == {}


def test_a_validation_of_mini_says_how_it_does_on_photos() -> None:
    scene, _ = synthetic_scene()
    predictor = load_predictor("mini")
    found = validate(predictor.network, held_out_batches(None, 1), "cpu", [scene])
    assert 0 < found["photos_median_error"] < 0.2
    assert found["photos_within_5%"] == depth_on_photos(predictor, [scene])["photos_within_5%"]


def test_a_head_is_judged_by_photos_held_out_from_it() -> None:
    scene, depth = synthetic_scene()
    rasterizer, head = load_rasterizer("cpu"), LearnedSplatHead(HeadNetwork())
    right = HeadExam([scene], KnownDepth(depth, 1.0), rasterizer, "cpu")
    assert right.rows[0][1] == [2]
    assert [name.split()[-1] for name in right.rows[0][2].names] == ["0", "1", "3"]
    wrong = HeadExam([scene], KnownDepth(depth, 1.15), rasterizer, "cpu")
    good, bad = right.psnr(head), wrong.psnr(head)
    assert good is not None
    assert bad is not None
    assert good > bad + 1.0
    assert HeadExam([], None, rasterizer, "cpu").psnr(head) is None


def test_pictures_come_back_from_differences_exactly() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 7, 9, 3)).astype(np.uint8)
    assert np.array_equal(whole_pictures(differences(pictures)), pictures)


def test_rays_meet_at_the_points_they_were_drawn_to() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 3), (1, 1, 6), (50, 3))
    T_second_first = np.eye(4)[:3]
    T_second_first[:, 3] = (-0.7, 0.1, 0.05)
    there = points + T_second_first[:, 3]
    first, second = points / points[:, 2:], there / there[:, 2:]
    assert np.abs(meeting_points(T_second_first, first, second, focal_px=500.0) - points).max() < 1e-9
    second[:25, 1] += 0.01  # five pixels off their lines
    assert np.abs(meeting_points(T_second_first, first, second, focal_px=500.0) - points[25:]).max() < 1e-9
    T_second_first[:, 3] /= 50  # rays all but parallel
    there = points + T_second_first[:, 3]
    assert not len(meeting_points(T_second_first, first, there / there[:, 2:], focal_px=500.0))


def photographed_scene(folder: Path) -> Path:
    """A folder of photos with cameras as a person would have them, of a textured world."""
    (folder / "images").mkdir(parents=True)
    capture = Worlds(None, MATCHABLE, WorldConfig(photographic=False, simple=0.0)).capture(4, 192, 256)
    frames = []
    for view in range(4):
        Image.fromarray((capture.images[view] * 255).round().astype(np.uint8)).save(folder / "images" / f"{view:03}.png")
        fx, fy, cx, cy = (float(capture.K[view][at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        frames.append({"file": f"images/{view:03}.png", "width": 256, "height": 192, "fx": fx, "fy": fy, "cx": cx, "cy": cy})
        frames[-1]["c2w"] = capture.T_world_cam[view].tolist()
    (folder / "poses.json").write_text(json.dumps({"frames": frames}))
    return folder


def test_one_command_packs_textures_and_scenes_and_refuses_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    scene = photographed_scene(tmp_path / "courtyard")
    Image.new("RGB", (40, 30), (250, 10, 10)).save(tmp_path / "red.png")
    words = [str(tmp_path), str(tmp_path / "packs"), "--long-side", "128", "--scenes", str(scene)]
    assert packing.main(words) == 0
    (found,) = load_scenes(tmp_path / "packs" / "scenes.npz")
    assert found.name == "courtyard"
    assert found.photos.shape == (4, 96, 128, 3)
    assert len(found.points_world) > 50
    capture = Worlds(None, MATCHABLE, WorldConfig(photographic=False, simple=0.0)).capture(4, 192, 256)
    errors = torch.cat([found.relative_errors(i, torch.from_numpy(capture.depth[2][i])) for i in range(4)])
    assert float(errors.median()) < 0.01
    before = {path.name: path.read_bytes() for path in (tmp_path / "packs").iterdir()}
    assert set(before) == {"textures.npz", "scenes.npz"}
    monkeypatch.setattr(packing, "LARGEST_BYTES", 1000)
    assert packing.main(words) == 2
    assert "too large" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "packs").iterdir()} == before
    assert packing.main([str(scene), *words[1:]]) == 2, "a folder without textures"
    with pytest.raises(ValueError, match="holds no scenes"):
        load_scenes(tmp_path / "packs" / "textures.npz")


def test_scenes_belong_to_networks_that_are_judged_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "scenes.npz"
    assert main(["train", "mini", "--out", str(tmp_path / "run"), "--scenes", str(pack)]) == 2
    assert "holds no scenes" in capsys.readouterr().err
    scene, _ = synthetic_scene()
    arrays = {name: getattr(scene, name) for name in ("K", "T_world_cam", "points_world", "visibility")}
    arrays["differences"] = differences(scene.photos)
    np.savez_compressed(pack, scenes=np.array(["made"]), **{f"0_{name}": value for name, value in arrays.items()})
    assert np.array_equal(load_scenes(pack)[0].photos, scene.photos)
    for model in ("refiner", "matcher", "cameras"):
        assert main(["train", model, "--out", str(tmp_path / "run"), "--scenes", str(pack)]) == 2
        assert "belongs to 'mini' and 'head'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="wanted a predictor"):
        train_head(HeadTrainConfig(out=tmp_path / "run", scenes=pack), load_rasterizer("cpu"))
    assert not (tmp_path / "run").exists()


def test_a_scene_wants_three_photos_with_cameras(tmp_path: Path) -> None:
    scene = photographed_scene(tmp_path / "two")
    frames = json.loads((scene / "poses.json").read_text())["frames"][:2]
    (scene / "poses.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(UserError, match="2 photos of one shape"):
        packing.packed_scene(scene, 128, 12)
    (scene / "poses.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be understood"):
        packing.packed_scene(scene, 128, 12)


@pytest.mark.requires_cuda
def test_the_head_trains_on_a_gpu(tmp_path: Path) -> None:
    config = replace(small(tmp_path, max_steps=2), device="cuda", makers=1)
    path = train_head(config, load_rasterizer("cuda"), load_predictor("mini", device="cuda"))
    assert isinstance(load_splat_head(weights=path), LearnedSplatHead)


def test_a_bare_machine_has_what_draws_and_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(bare_training, "train", lambda config, rasterizer: asked.append((config.colours, rasterizer)))
    out = ["--out", str(tmp_path / "run")]
    assert bare_training.main(["mini", "--colours", "0.5", *out]) == 0
    assert bare_training.main(["mini", *out]) == 0
    assert [colours for colours, _ in asked] == [0.5, 0.0]
    assert asked[0][1].name == "cpu"
    assert asked[1][1] is None
    assert bare_training.main(["head", *out, "--scenes", str(tmp_path / "absent.npz")]) == 2
    assert "holds no scenes" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert bare_training.main(["head", *out, "--device", "cuda"]) == 2
        assert "CUDA cannot draw here" in capsys.readouterr().err
