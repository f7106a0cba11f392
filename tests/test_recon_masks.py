"""What a mask hides reaches no stage: whatever is painted there, features, depth, Gaussians, polish and score stay the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_recon_pipeline import HEIGHT, VIEWS, WIDTH, config_for, write_capture

from app.run import build_tools
from recon.cameras.features import find_features
from recon.cameras.recipes import SIFT
from recon.capture.choices import CaptureConfig
from recon.capture.masks import find_masks, read_mask_file
from recon.config import Holdout
from recon.geometry import pixel_grid, rays_cam, transform
from recon.photos import open_photos
from recon.pipeline import run_pipeline
from recon.progress import Progress
from recon.records import Scene

RED = (255, 0, 0)
FIELDS = ("means", "quats", "scales", "opacities", "sh")


def card_masks(folder: Path) -> dict[str, np.ndarray]:
    """Write a mask for each photo that hides the card of ``write_capture``; returns where it hides."""
    masks, hidden = folder / "masks", {}
    masks.mkdir()
    for frame in json.loads((folder / "cameras.json").read_text())["frames"]:
        rays = rays_cam(pixel_grid(HEIGHT, WIDTH), torch.tensor(frame["K"]))
        card = transform(torch.tensor(frame["T_world_cam"]), rays * 3.0)
        on_card = ((card[..., 0].abs() < 0.84) & (card[..., 1].abs() < 0.74)).numpy()
        Image.fromarray(np.where(on_card, 0, 255).astype(np.uint8)).save(masks / frame["name"])
        hidden[frame["name"]] = on_card
    return hidden


def capture_with(folder: Path, paint: str) -> tuple[Path, CaptureConfig]:
    """Photos whose card is painted over, and what is known of them."""
    photos, rng = write_capture(folder), np.random.default_rng(5)
    for name, on_card in card_masks(folder).items():
        pixels = np.array(Image.open(photos / name))
        pixels[on_card] = RED if paint == "red" else rng.integers(0, 255, (int(on_card.sum()), 3))
        Image.fromarray(pixels).save(photos / name)
    return photos, CaptureConfig(masks=str(folder / "masks"))


def redness_of_the_card(scene: Scene) -> float:
    """How much redder than green or blue the middle of the card is drawn from a middle camera; the photos have 1."""
    drawn = build_tools().load_rasterizer("cpu")(scene.gaussians, scene.cameras.select([VIEWS // 2])).color[0]
    middle = drawn[HEIGHT // 2 - 15 : HEIGHT // 2 + 15, WIDTH // 2 - 15 : WIDTH // 2 + 15]
    return float((middle[..., 0] - middle[..., 1:].amax(dim=-1)).mean())


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Two captures that differ under their masks alone."""
    return {paint: (folder := tmp_path_factory.mktemp(paint), *capture_with(folder, paint)) for paint in ("red", "noise")}


def test_features_see_nothing_of_what_is_masked(painted):
    found = {}
    for paint, (_, photos, known) in painted.items():
        views = open_photos(photos, long_side=WIDTH, capture=known).views
        found[paint] = [find_features(view, SIFT) for view in views]
    assert sum(len(one.keypoints_px) for one in found["red"]) > 100
    for first, second in zip(found["red"], found["noise"], strict=True):
        assert np.array_equal(first.keypoints_px, second.keypoints_px)
        assert np.array_equal(first.descriptors, second.descriptors)
        assert np.array_equal(first.rgb, second.rgb)


def test_scene_and_score_see_nothing_of_what_is_masked(painted):
    results = {}
    for paint, (folder, photos, known) in painted.items():
        config = config_for(folder, holdout=Holdout(every=3), capture=known)
        results[paint] = run_pipeline(photos, None, config, build_tools(), Progress())
    first, second = (result.scene.gaussians for result in results.values())
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(second, field)), field
    reports = [result.report for result in results.values()]
    assert reports[0]["quality"] == reports[1]["quality"]
    assert reports[0]["quality"]["psnr_mean"] > 12, "what is not masked is scored, and the black card is not"
    assert len(reports[0]["choices"]["capture"]["masked"]) == VIEWS


def test_polish_sees_nothing_of_what_is_masked(painted):
    folder, photos, known = painted["red"]
    config = config_for(folder, polish=1.0, capture=known)
    masked = run_pipeline(photos, None, config, build_tools(), Progress()).scene
    open_eyed = run_pipeline(photos, None, replace(config, capture=CaptureConfig()), build_tools(), Progress()).scene
    assert redness_of_the_card(open_eyed) > 0.7, "without masks the card is there"
    assert redness_of_the_card(masked) < 0.1


def test_a_mask_of_shares_is_read_as_one(tmp_path):
    shares = np.zeros((8, 8), np.float32)
    shares[:, :4] = 1.0
    Image.fromarray(shares).save(tmp_path / "m.tif")
    assert read_mask_file(tmp_path / "m.tif", 8, 8).tolist() == (shares > 0.5).tolist()


def test_a_mask_of_one_folder_says_nothing_of_another(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "a" / "1.png")
    assert list(find_masks(tmp_path, ["a/1.jpg", "b/1.jpg"])) == ["a/1.jpg"]
    assert list(find_masks(tmp_path, ["1.jpg"])) == ["1.jpg"], "photos that lie in no folder"
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    assert find_masks(tmp_path, ["b/1.jpg"]) == {"b/1.jpg": tmp_path / "1.png"}
