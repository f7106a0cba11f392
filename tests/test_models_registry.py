"""The weights that come with the product: checked, loadable, and better than chance on a world they never saw."""

from __future__ import annotations

import dataclasses
from importlib import resources

import pytest
import torch

from models import registry
from models.registry import load_predictor, shipped_weights
from models.training.head_trainer import capture_to_posed
from models.training.worlds import Worlds
from recon.errors import UserError
from recon.progress import Progress

VIEWS = 4


@pytest.fixture(scope="module")
def captures():
    """Enough worlds that a bare wall among them, on which nothing can be measured, does not decide."""
    worlds = Worlds(None, seed=7)
    return [worlds.capture(VIEWS, 160, 208) for _ in range(8)]


def errors_and_confidence(predictor, captures):
    """Error in coarse planes and confidence of every pixel that is not sky."""
    errors, confidences = [], []
    for capture in captures:
        neighbours = tuple(tuple(j for j in range(VIEWS) if j != i) for i in range(VIEWS))
        ranges = torch.from_numpy(capture.depth_range)
        result = predictor(capture_to_posed(capture, range(VIEWS)), neighbours, ranges, Progress())
        step = (1 / ranges[:, 0] - 1 / ranges[:, 1]) / 63
        for i in range(VIEWS):
            depth = torch.from_numpy(capture.depth[2][i])
            solid = depth < 1e20
            errors.append(((1 / result.depth[i] - 1 / depth) / step[i]).abs()[solid])
            confidences.append(result.confidence[i][solid])
    return torch.cat(errors), torch.cat(confidences)


def within_a_plane(predictor, captures) -> float:
    return float((errors_and_confidence(predictor, captures)[0] < 1).float().mean())


def test_manifest_describes_the_files_that_are_there():
    entries = shipped_weights()
    assert "mini" in entries
    for entry in entries.values():
        data = resources.files("weights").joinpath(entry.file).read_bytes()
        assert len(data) == entry.size_bytes
        assert entry.licence == "Apache-2.0"
        assert entry.quality


def test_shipped_mini_beats_chance_and_the_classical_sweep(captures):
    trained = within_a_plane(load_predictor("mini"), captures)
    assert trained > within_a_plane(load_predictor("mini", random_seed=0), captures) + 0.28
    assert trained > within_a_plane(load_predictor("plane-sweep"), captures)


def test_confidence_tells_right_from_wrong(captures):
    error, confidence = errors_and_confidence(load_predictor("mini"), captures)
    order = confidence.argsort(descending=True)
    best, worst = order[: len(order) // 4], order[-len(order) // 4 :]
    assert float(error[best].median()) < 0.3 * float(error[worst].median())


def test_a_damaged_file_is_refused(monkeypatch):
    entry = dataclasses.replace(shipped_weights()["mini"], sha256="0" * 64)
    monkeypatch.setattr(registry, "shipped_weights", lambda: {"mini": entry})
    with pytest.raises(UserError, match="damaged"):
        load_predictor("mini")
