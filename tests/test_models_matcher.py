"""The matcher: exact correspondences to learn from, losses, the network's parts, its training, and what it hands to COLMAP."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.cli import main
from app.identity import weights_digests
from models.learned_matcher import MASK_MARGIN_PX, LearnedMatcher, corners
from models.matcher import CellMatches, MatcherConfig, MatcherNetwork, PhotoFeatures, normalize_grey, sampled
from models.registry import load_matcher
from models.training import correspondences
from models.training.correspondences import EXACT, PairSource, correspond, follow_flat, homography, mapped, seen_from
from models.training.matcher_losses import cell_loss, fine_loss, match_metrics, place_loss, shares
from models.training.matcher_trainer import MatcherTraining, train_matcher
from models.training.worlds import Capture, Worlds
from recon.config import PipelineConfig
from recon.errors import UserError
from recon.photos import open_photos
from recon.progress import Cancelled, Progress
from recon.records import Views

SMALL = MatcherConfig(channels=32, fine_channels=8, layers=1, heads=2, place_channels=16)


def looked_up(image: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Grey at places, nearest pixel."""
    return image[px[:, 1].astype(int), px[:, 0].astype(int)].mean(axis=1)


def test_correspondences_of_worlds_show_the_same_surface():
    worlds = Worlds(None, 3, replace(EXACT, photographic=False, simple=0.0))
    alike, strange = [], []
    for _ in range(6):
        capture = worlds.capture(2, 96, 128)
        query, target, state = correspond(capture, 0, 1, worlds.rng)
        seen = state == 1
        assert set(np.unique(state)) <= {-1, 0, 1}
        here, there = looked_up(capture.images[0], query[seen]), looked_up(capture.images[1], target[seen])
        alike.append(np.abs(here - there))
        strange.append(np.abs(here - there[::-1]))
    assert np.median(np.concatenate(alike)) < 0.2 * np.median(np.concatenate(strange))


def test_correspondences_of_a_plane_are_exact():
    """Two cameras before a slanted wall, the second moved and turned: the wall induces a homography."""
    height, width = 64, 96
    K = np.array([[80.0, 0, 48], [0, 80.0, 32], [0, 0, 1]])
    normal, distance = np.array([0.3, -0.2, 1.0]), 4.0  # points X of the first camera with normal X = distance
    turn = 0.1
    R = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    T_world_second = np.eye(4)
    T_world_second[:3, :3], T_world_second[:3, 3] = R, (0.4, 0.1, -0.2)
    y, x = np.mgrid[1:height:2, 1:width:2]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(K).T
    first = distance / (rays @ normal)
    second = (distance - normal @ T_world_second[:3, 3]) / (rays @ R.T @ normal)
    capture = Capture(
        images=np.zeros((2, height, width, 3)),
        K=np.stack([K, K]),
        T_world_cam=np.stack([np.eye(4), T_world_second]),
        depth={2: np.stack([first, second])},
        depth_range=np.ones((2, 2)),
        style="wide",
    )
    query, target, state = correspond(capture, 0, 1, np.random.default_rng(0))
    t_second_first = -R.T @ T_world_second[:3, 3]
    H = K @ (R.T + np.outer(t_second_first, normal) / distance) @ np.linalg.inv(K)
    seen = state == 1
    assert seen.mean() > 0.5
    assert np.abs(mapped(H, query[seen]) - target[seen]).max() < 0.01
    assert len(np.unique(np.round(query % 2, 3))) > 50  # anywhere in a block, as corners are


def test_places_of_a_collage_are_followed_exactly():
    rng = np.random.default_rng(0)
    here = np.array([[0, 0], [64, 0], [64, 48], [0, 48]], float)
    sides = np.stack([homography(here, here * 2 + 200), homography(here, here[[1, 2, 3, 0]] * 1.5 + 220)])
    query, target, state = follow_flat(sides, 0, 1, (48, 64), rng)
    seen = state == 1
    assert seen.sum() > 5
    assert np.abs(mapped(sides[0], query[seen]) - mapped(sides[1], target[seen])).max() < 1e-3
    y, x = np.mgrid[0:640, 0:640] / 640
    pictures = seen_from(np.stack([x, y, 0 * x], axis=2).astype(np.float32), sides, (48, 64))
    assert np.abs(looked_up(pictures[0], query[seen]) - looked_up(pictures[1], target[seen])).max() < 0.01


def test_pairs_hold_what_training_needs():
    source = PairSource(None, seed=1)
    batch = source.make(2, views=3, size=(64, 96))
    cells = 8 * 12
    assert batch.images.shape == (6, 64, 96, 3)
    assert batch.query_px.shape == batch.target_px.shape == (len(batch.pairs), 2, cells, 2)
    assert 0 <= batch.images.min() <= batch.images.max() <= 1
    corner = np.stack(np.meshgrid(np.arange(12), np.arange(8)), axis=-1).reshape(-1, 2) * 8
    for (first, second), query, state in zip(batch.pairs, batch.query_px, batch.state, strict=True):
        if batch.world[first] != batch.world[second]:
            assert not state.any()
            continue
        assert ((query - corner >= 0) & (query - corner <= 8)).all()
        assert (state == 1).mean() > correspondences.LEAST_OVERLAP
    again = PairSource(None, seed=1).make(2, views=3, size=(64, 96))
    assert np.array_equal(batch.images, again.images)


def test_a_place_is_shared_among_the_four_points_around_it():
    cells, parts = shares(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.5], [1e4, 1e4]]), rows=3, columns=4)
    assert torch.allclose(parts.sum(dim=1), torch.ones(4))
    assert (cells >= 0).all()
    assert (cells < 12).all()
    assert cells[0][parts[0] > 0.5].tolist() == [1]
    assert cells[1][parts[1] > 0.5].tolist() == [0]
    assert torch.allclose(parts[2], torch.full((4,), 0.25))
    assert cells[3][parts[3] > 0.5].tolist() == [11]


def test_losses_are_small_for_the_truth_and_large_for_its_opposite():
    rows, columns = 3, 4
    middle = torch.stack([torch.arange(12) % columns, torch.arange(12) // columns], dim=1) * 8.0 + 4
    target, state = middle.expand(1, 2, 12, 2), torch.ones(1, 2, 12, dtype=torch.long)
    state[:, :, 5] = 0
    sure = torch.full((1, 12), 8.0)
    sure[:, 5] = -8.0
    right = CellMatches(20 * torch.eye(12)[None], (sure, sure))
    chosen, told = cell_loss(right, target, state, (rows, columns))
    assert chosen < 0.01
    assert told < 0.01
    wrong = CellMatches(20 * torch.eye(12).flip(1)[None], (-sure, -sure))
    chosen, told = cell_loss(wrong, target, state, (rows, columns))
    assert chosen > 10
    assert told > 5
    assert match_metrics(right, target, state, (rows, columns)) == {"right": 1.0, "precision": 1.0, "recall": 1.0}
    assert match_metrics(wrong, target, state, (rows, columns))["recall"] < 0.3
    place = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.1]]), dim=1)
    pairs, world = torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 0, 1, 1])
    assert place_loss(place, pairs, world, place[:0]) < 0.1 < place_loss(place[[0, 2, 1, 3]], pairs, world, place[:0])


def test_features_are_sampled_between_their_middles():
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    px = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [2.0, 1.0], [1.0, 2.0], [-50.0, 0.0], [99.0, 99.0]]])
    found = sampled(features, torch.zeros(1, dtype=torch.long), px)[0, :, 0]
    assert found.tolist() == [0.0, 1.0, 0.5, 2.0, 0.0, 11.0]


def test_the_fine_stage_finds_a_shift():
    torch.manual_seed(0)
    network = MatcherNetwork(SMALL)
    with torch.no_grad():
        network.fine_sharpness.fill_(6.0)
    first = torch.nn.functional.avg_pool2d(torch.randn(1, 8, 40, 40), 3, 1, 1)
    second = first.roll((1, 2), dims=(2, 3))  # features of 2 pixels: 4 to the right, 2 down
    query = torch.tensor([[31.0, 41.0], [41.0, 33.0]])
    pair = torch.zeros(2, dtype=torch.long)
    logits, px = network.locate(first, second, pair, query, torch.tensor([[36.0, 44.0], [44.0, 36.0]]))
    assert logits.shape == (2, 9, 9)
    assert (px - query - torch.tensor([4.0, 2.0])).abs().max() < 0.1
    targets, state = torch.zeros(1, 2, 100, 2), torch.zeros(1, 2, 100, dtype=torch.long)
    queries = targets.clone()
    queries[0, 0, :2], targets[0, 0, :2], state[0, 0, :2] = query, query + torch.tensor([4.0, 2.0]), 1
    one, other = (PhotoFeatures(fine, fine, fine, torch.ones(1, 1)) for fine in (first, second))
    _, away = fine_loss(network, one, other, queries, targets, state)
    assert away.max() < 0.1


def test_the_network_takes_photos_of_two_sizes_and_is_even_handed():
    torch.manual_seed(0)
    network = MatcherNetwork(SMALL).eval()
    small, large = (normalize_grey(torch.rand(1, 3, *size)) for size in ((64, 96), (80, 112)))
    with torch.no_grad():
        one, other = network.encode(small), network.encode(large)
        there, back = network.match(one, other), network.match(other, one)
    assert there.scores.shape == (1, 8 * 12, 10 * 14)
    assert torch.allclose(there.scores, back.scores.transpose(1, 2), atol=1e-4)
    assert 0 <= float(there.confidence().min()) <= float(there.confidence().max()) <= 1
    assert torch.allclose(one.place.norm(dim=1), torch.ones(1), atol=1e-5)
    brighter = normalize_grey(torch.rand(1, 3, 32, 32).mul(0.5)), normalize_grey(torch.rand(1, 3, 32, 32))
    assert all(abs(float(x.mean())) < 1e-5 and abs(float(x.std()) - 1) < 0.25 for x in brighter)
    parameters = sum(value.numel() for value in MatcherNetwork().parameters())
    assert parameters <= 3_000_000


def test_corners_are_found_to_a_fraction_of_a_pixel():
    y, x = np.mgrid[0:64, 0:64] / 4 + 0.125
    picture = ((x > 9.0) ^ (y > 5.5)).astype(np.float32)  # corners meet at x 9.0, y 5.5
    grey = torch.from_numpy(picture.reshape(16, 4, 16, 4).mean(axis=(1, 3)))[None, None]
    found = corners(grey, torch.ones(16, 16, dtype=torch.bool))
    assert found.shape == (4, 2)
    assert (found[1] - torch.tensor([9.0, 5.5])).abs().max() < 0.3


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Three photos: twice one place, the second moved by 16 and 8 pixels and twice as large, and a plain wall."""
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (40, 60, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, picture in (
        ("a", wide[8:136, 16:208]),
        ("b", wide[:128, :192].repeat(2, axis=0).repeat(2, axis=1)),
        ("c", np.full((128, 192, 3), 90, np.uint8)),
    ):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


class Shifted(MatcherNetwork):
    """Knows that photos differ by a whole number of cells; its fine features are the picture itself."""

    def match(self, first: PhotoFeatures, second: PhotoFeatures) -> CellMatches:
        rows, columns = first.cells.shape[-2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        moved = ((y + 1).clamp(max=rows - 1) * columns + (x + 2).clamp(max=columns - 1)).flatten()
        scores = torch.full((1, rows * columns, rows * columns), -20.0)
        scores[0, torch.arange(rows * columns), moved] = 20.0
        sure = torch.full((1, rows * columns), 9.0)
        return CellMatches(scores, (sure, sure))


def picture_features(self: Any, grey: torch.Tensor) -> PhotoFeatures:
    fine = torch.nn.functional.pixel_unshuffle(grey, 2)
    around = torch.nn.functional.unfold(fine, 3, padding=1).unflatten(2, fine.shape[-2:])
    cells = torch.nn.functional.avg_pool2d(grey, 8)
    return PhotoFeatures(around, cells, cells, torch.ones(1, 1))


def test_matches_are_in_pixels_of_the_photos_and_keep_to_their_anchors(photo_folder: Path, monkeypatch: pytest.MonkeyPatch):
    views = open_photos(photo_folder, long_side=192).views
    network = Shifted(SMALL)
    monkeypatch.setattr(type(network.encode), "forward", picture_features)
    with torch.no_grad():
        network.fine_sharpness.fill_(5.0)
    matcher = LearnedMatcher(network, side=192)
    told = []
    found = matcher(views, Progress(), lambda done, words: told.append(done))
    assert told == sorted(told)
    by_pair = {(first, second): px for first, second, px in found}
    px = by_pair[0, 1]
    assert len(px) > 100
    moved = px[:, 2:] / 2 - px[:, :2]
    assert np.abs(np.median(moved, axis=0) - (16, 8)).max() < 0.3
    assert (np.abs(moved - (16, 8)).max(axis=1) < 2.0).mean() > 0.8
    encoded = matcher._encode(views[0])
    anchors = {tuple(row) for row in (encoded.anchors * 8).round().int().tolist()}
    starts = {tuple(row) for row in np.round(px[:, :2] * 8).astype(int).tolist()}
    assert len(starts & anchors) > 0.4 * len(starts)
    cancelled = Progress()
    cancelled.cancel()
    with pytest.raises(Cancelled):
        matcher(views, cancelled, lambda *_: None)


def test_masked_places_are_not_matched(photo_folder: Path, monkeypatch: pytest.MonkeyPatch):
    plain = open_photos(photo_folder, long_side=192).views
    left = replace(plain[0], read_mask=lambda width, height: np.arange(width)[None].repeat(height, 0) >= width // 2)
    network = Shifted(SMALL)
    monkeypatch.setattr(type(network.encode), "forward", picture_features)
    with torch.no_grad():
        network.fine_sharpness.fill_(5.0)
    matcher = LearnedMatcher(network, side=192)
    free, masked = (next(iter(matcher(Views((first, plain[1])), Progress(), lambda *_: None)))[2] for first in (plain[0], left))
    assert (free[:, 0] < 96).sum() > 50
    assert masked[:, 0].min() >= 96 + MASK_MARGIN_PX
    assert len(masked) > 0.5 * (free[:, 0] > 110).sum()


def test_many_photos_are_paired_by_likeness_and_order(photo_folder: Path):
    views = open_photos(photo_folder, long_side=192).views
    torch.manual_seed(0)
    matcher = LearnedMatcher(MatcherNetwork(SMALL), side=192, exhaustive_up_to=2, partners=1)
    photos = [matcher._encode(views[0]) for _ in range(6)]
    angles = torch.tensor([0.0, 2.0, 0.1, 2.1, 4.0, 4.1])
    place = torch.stack([angles.cos(), angles.sin()], dim=1)
    photos = [replace(one, features=replace(one.features, place=place[i : i + 1])) for i, one in enumerate(photos)]
    pairs = matcher.choose_pairs(photos)
    assert {(0, 2), (1, 3), (4, 5)} <= set(pairs)
    assert {(i, i + 1) for i in range(5)} <= set(pairs)
    assert (0, 4) not in pairs
    assert len(pairs) == len(set(pairs)) < 15


def test_training_goes_on_where_it_stopped_and_its_weights_load(tmp_path: Path):
    config = MatcherTraining(out=tmp_path, minutes=5.0, threads=1, worlds=2, views=2, validation_worlds=2, max_steps=1)
    path = train_matcher(config)
    train_matcher(replace(config, max_steps=2))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "validation" in record] == [1, 2]
    assert {"right", "precision", "recall", "fine_median_px"} <= set(records[-1]["validation"])
    assert load_matcher(weights=path) is not None
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError):
        load_matcher(weights=tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="two views"):
        train_matcher(replace(config, out=tmp_path / "other", views=1))
    name = "matcher " + hashlib.sha256(path.read_bytes()).hexdigest()
    assert name in weights_digests(PipelineConfig(matcher=path), "cpu")
    assert name not in weights_digests(PipelineConfig(), "cpu")


def test_a_run_refuses_a_matcher_it_cannot_use(photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = tmp_path / "matcher.safetensors"
    weights.write_bytes(b"nothing")
    out = ["--out", str(tmp_path / "out")]
    assert main(["run", str(photo_folder), *out, "--matcher", str(weights)]) != 0
    assert "Cannot read weights" in capsys.readouterr().err
    assert main(["run", str(photo_folder), *out, "--cameras", "sfm", "--matcher", str(weights)]) != 0
    assert "--matcher has no part in --cameras sfm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_the_matcher_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "matcher", "--out", str(tmp_path), "--captures", "3"]) != 0
    assert "belongs to 'mini'" in capsys.readouterr().err
