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
def world():
    capture = Worlds(None, seed=424_242).capture(VIEWS, 160, 208)
    posed = capture_to_posed(capture, range(VIEWS))
    neighbours = tuple(tuple(j for j in range(VIEWS) if j != i) for i in range(VIEWS))
    return posed, neighbours, torch.from_numpy(capture.depth_range), [torch.from_numpy(z) for z in capture.depth[2]]


def errors_and_confidence(predictor, world):
    posed, neighbours, ranges, depth = world
    result = predictor(posed, neighbours, ranges, Progress())
    solid = [z < 1e20 for z in depth]
    step = [(1 / r[0] - 1 / r[1]) / 63 for r in ranges]
    error = torch.cat([((1 / p - 1 / z) / s).abs()[m] for p, z, s, m in zip(result.depth, depth, step, solid, strict=True)])
    return error, torch.cat([c[m] for c, m in zip(result.confidence, solid, strict=True)])


def test_manifest_describes_the_files_that_are_there():
    entries = shipped_weights()
    assert "mini" in entries
    for entry in entries.values():
        data = resources.files("weights").joinpath(entry.file).read_bytes()
        assert len(data) == entry.size_bytes
        assert entry.licence == "Apache-2.0"
        assert entry.quality


def test_shipped_mini_sees_depth_and_knows_where(world):
    error, confidence = errors_and_confidence(load_predictor("mini"), world)
    chance, _ = errors_and_confidence(load_predictor("mini", random_seed=0), world)
    assert float((error < 1).float().mean()) > 0.3 + float((chance < 1).float().mean())
    order = confidence.argsort(descending=True)
    best, worst = order[: len(order) // 4], order[-len(order) // 4 :]
    assert float(error[best].median()) < 0.5 * float(error[worst].median())


def test_a_damaged_file_is_refused(monkeypatch):
    entry = dataclasses.replace(shipped_weights()["mini"], sha256="0" * 64)
    monkeypatch.setattr(registry, "shipped_weights", lambda: {"mini": entry})
    with pytest.raises(UserError, match="damaged"):
        load_predictor("mini")
