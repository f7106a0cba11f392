"""The floor that `bench_floor.py` prints is counted rightly."""

from __future__ import annotations

import sys

import pytest
import torch

from models import mini
from models.correlation import Sweep
from models.mini import MiniConfig, MiniNetwork
from models.mini_predictor import MiniPredictor

import helpers

sys.path.append(str(helpers.REPOSITORY / "tests" / "benchmarks"))
import bench_floor
from bench_floor import KERNEL, Machine, Operation, counting, sweep_cost


def test_a_convolution_is_counted_by_hand():
    """8 to 16 channels, 3 x 3, 10 x 12 places; float32."""
    convolution, image = torch.nn.Conv2d(8, 16, 3, padding=1, bias=False), torch.randn(1, 8, 10, 12)
    with torch.inference_mode(), counting() as operations:
        torch.relu(convolution(image)).permute(0, 2, 3, 1).unsqueeze(0)
    assert [one.name for one in operations] == ["convolution", "relu"]
    assert [one.macs for one in operations] == [8 * 16 * 9 * 10 * 12, 0]
    assert operations[0].bytes == 4 * (8 * 120 + 16 * 120 + 8 * 16 * 9)
    assert operations[1].bytes == 4 * 2 * 16 * 120


def test_what_is_repeated_along_an_axis_is_read_once():
    assert bench_floor.bytes_of(torch.zeros(2, 1, 5).expand(2, 7, 5)) == 2 * 5 * 4


def test_a_cost_volume_is_counted_by_hand_and_its_kernel_is_back_afterwards():
    """One photo of 3 x 4 places, 2 neighbours, 5 planes, 8 channels in 4 groups."""
    real = mini.sweep_correlation
    ref, src = torch.randn(1, 3, 4, 8), torch.randn(1, 2, 3, 4, 8)
    sweep = Sweep(torch.eye(3).expand(1, 2, 3, 3), torch.zeros(1, 2, 3), torch.zeros(1, 3, 4), torch.linspace(0.1, 1, 5)[None])
    with counting() as operations:
        found, _ = mini.sweep_correlation(ref, src, sweep, 4)
    assert mini.sweep_correlation is real
    assert torch.equal(found, real(ref, src, sweep, 4)[0])
    assert operations == [sweep_cost(ref, src, 5, 4)]
    assert operations[0].macs == 3 * 4 * 2 * 5 * (9 + 8 * 5)
    assert operations[0].bytes == 4 * (96 + 192 + 120 * 4 + 120)


def test_a_capture_needs_what_its_photos_need(monkeypatch):
    """Parts that are counted by themselves add up to what a whole capture runs."""
    monkeypatch.setattr(bench_floor, "HEIGHT", 64)
    monkeypatch.setattr(bench_floor, "WIDTH", 80)
    torch.manual_seed(0)
    predictor = MiniPredictor(MiniNetwork(MiniConfig(planes=16)))
    parts = bench_floor.count_parts(predictor)
    posed, ranges = bench_floor.made_views(3)
    neighbours = ((1, 2), (0,), ())
    with torch.inference_mode(), counting() as operations:
        predictor(posed, neighbours, ranges, bench_floor.Progress())
    expected = bench_floor.whole(parts, neighbours)
    for name in (KERNEL, "convolution"):
        assert sum(one.macs for one in operations if one.name == name) == sum(one.macs for one in expected if one.name == name) > 0
    four, eight = (bench_floor.whole(parts, ((0, 1, 2, 3),) * views) for views in (4, 8))
    assert sum(one.macs for one in eight) == 2 * sum(one.macs for one in four)


def test_an_operation_takes_what_holds_it_up():
    machine = Machine({torch.float32: 10.0, torch.bfloat16: 20.0}, bytes=4.0)
    assert machine.arithmetic(Operation("a", 100.0, 4.0, torch.bfloat16)) == pytest.approx(5.0)
    assert machine.roofline(Operation("a", 100.0, 4.0, torch.bfloat16)) == pytest.approx(5.0)
    assert machine.roofline(Operation("a", 10.0, 400.0, torch.float32)) == pytest.approx(100.0)
    assert machine.arithmetic(Operation("a", 10.0, 0.0, torch.int64)) == pytest.approx(1.0)


def test_encodings_and_matchings_are_timed_and_the_quick_ones_count(monkeypatch):
    predictor = MiniPredictor(MiniNetwork(MiniConfig(planes=16)))
    monkeypatch.setattr(bench_floor, "HEIGHT", 64)
    monkeypatch.setattr(bench_floor, "WIDTH", 80)
    posed, ranges = bench_floor.made_views(3)
    with bench_floor.timing(predictor) as seconds:
        predictor(posed, ((1,), (2,), (0,)), ranges, bench_floor.Progress())
    assert [len(of) for of in seconds.values()] == [3, 3]
    assert "_encode" not in vars(predictor)
    disturbed = {"_encode": [0.1] * 4 + [9.0] * 16, "_estimate": [0.2] * 20}
    assert bench_floor.undisturbed(disturbed, 5) == pytest.approx(5 * 0.3)
