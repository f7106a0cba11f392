"""The one-pass optimiser step against its torch twin; parameters and their rows."""

from __future__ import annotations

import copy

import polish_capture as capture
import torch

from recon.polishing.adam import Rates, take_step, take_step_twin
from recon.polishing.parameters import NAMES, Parameters, extend, keep, make_parameters, with_sh

TOLERANCE = 2e-5
RATES = Rates(means=0.1, quats=0.01, scales=0.02, opacities=0.05, color=0.02, opacity_pull=1e-3, scale_pull=1e-3)


def some(count: int = 50) -> Parameters:
    return with_sh(make_parameters(capture.true_scene(count), far_count=5), 4)


def gradients(parameters: Parameters, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    given = tuple(torch.randn(parameters.values[n].shape, generator=g) * 1e-3 for n in NAMES)
    for tensor in given:
        tensor[::3] = 0
    return given


def test_kernel_equals_twin_over_several_steps():
    ours, twin = some(), some()
    spacing = torch.linspace(0.01, 0.05, len(ours))
    for seed in range(5):
        take_step(ours, gradients(ours, seed), spacing, RATES)
        take_step_twin(twin, gradients(twin, seed), spacing, RATES)
    assert torch.allclose(ours.raw, twin.raw, atol=TOLERANCE)
    assert torch.equal(ours.age, twin.age)
    for name in NAMES:
        assert torch.allclose(ours.values[name], twin.values[name], atol=TOLERANCE), name


def test_unseen_gaussians_stay_as_they_are():
    ours = some()
    before = ours.raw.clone()
    take_step(ours, gradients(ours, 0), torch.ones(len(ours)), RATES)
    assert torch.equal(ours.raw[::3], before[::3])
    assert not torch.equal(ours.raw[1::3], before[1::3])


def test_gradients_that_are_not_finite_are_ignored():
    ours = some()
    given = gradients(ours, 0)
    given[0][1, 2], given[3][4] = float("nan"), float("inf")
    before = ours.raw.clone()
    take_step(ours, given, torch.ones(len(ours)), RATES)
    assert torch.isfinite(ours.raw).all()
    assert torch.equal(ours.raw[[1, 4]], before[[1, 4]])


def test_values_follow_raw():
    ours = some()
    take_step(ours, gradients(ours, 1), torch.ones(len(ours)), RATES)
    assert torch.allclose(ours.values["scales"], ours.raw[:, 7:10].exp(), rtol=1e-5)
    assert torch.allclose(ours.values["quats"].norm(dim=1), torch.ones(len(ours)), atol=1e-5)
    assert ((ours.values["opacities"] > 0) & (ours.values["opacities"] < 1)).all()


def test_parameters_round_trip():
    scene = capture.true_scene(30)
    again = make_parameters(scene).gaussians()
    for name in NAMES:
        assert torch.allclose(getattr(again, name), getattr(scene, name), atol=1e-5), name


def test_rows_keep_their_memory_and_new_ones_have_none():
    ours = some()
    take_step(ours, gradients(ours, 0), torch.ones(len(ours)), RATES)
    kept = keep(copy.deepcopy(ours), torch.arange(10, 50))
    grown = extend(kept, capture.true_scene(7))
    assert len(grown) == 47
    assert torch.equal(grown.first[:40], ours.first[10:])
    assert float(grown.second[40:].abs().sum()) == 0
    assert grown.age[40:].tolist() == [0] * 7
    assert grown.sh_count == 4


def test_the_far_shell_stays_last():
    ours = extend(some(), capture.true_scene(7))
    assert ours.far_count == 5
    last = ours.gaussians().means[-5:]
    assert torch.equal(last, capture.true_scene(50).means[-5:])
