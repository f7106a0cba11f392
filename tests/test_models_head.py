"""The head that turns depth into appearance: its rule, its symmetry under scale, its gradients through fusing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.head import HeadNetwork, LearnedSplatHead, trust_rule
from models.registry import load_splat_head
from models.training.described import splat_capture
from models.training.head_trainer import capture_to_posed, spoil_depth
from models.training.stretch import export_weights
from models.training.worlds import WorldConfig, Worlds
from recon.fuse import FuseConfig
from recon.records import Prediction

BFLOAT_TOLERANCE = 0.02
"""Differences of attributes in bfloat16."""


def given(height: int = 21, width: int = 30, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    image, residuals = torch.rand(height, width, 3, generator=generator), torch.rand(height, width, 4, generator=generator)
    return image, 1 + torch.rand(height, width, generator=generator), torch.rand(height, width, generator=generator), residuals


def test_trust_rises_with_support_and_falls_with_violation():
    confidence = torch.tensor([0.5, 0.5, 0.5])
    residuals = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    plain, supported, violated = trust_rule(confidence, residuals).tolist()
    assert violated < plain < supported


def test_untrained_head_is_the_rule():
    image, depth, confidence, residuals = given()
    attributes = load_splat_head(random_seed=0)(image, depth, confidence, residuals)
    expected = torch.sigmoid(4.0 * trust_rule(confidence, residuals))
    assert torch.allclose(attributes.opacity, expected, atol=1e-3)
    assert float(attributes.log_scale.abs().max()) == 0.0
    assert float(attributes.color_delta.abs().max()) == 0.0
    assert torch.equal(attributes.importance, torch.ones(21, 30))


def test_the_scale_of_the_world_does_not_matter():
    torch.manual_seed(0)
    network = HeadNetwork()
    torch.nn.init.normal_(network.leave.weight, std=0.2)
    image, depth, confidence, residuals = given()
    head = LearnedSplatHead(network)
    small, large = head(image, depth, confidence, residuals), head(image, 100 * depth, confidence, residuals)
    assert torch.allclose(small.opacity, large.opacity, atol=BFLOAT_TOLERANCE)
    assert torch.allclose(small.log_scale, large.log_scale, atol=BFLOAT_TOLERANCE)
    assert float(small.log_scale.abs().max()) > 0.01


@pytest.mark.parametrize("source", ["noise", "smooth", "scale", "missing"])
def test_spoilt_depth_is_worse_and_its_confidence_knows(source):
    rng = np.random.default_rng(1)
    depth = torch.full((40, 60), 2.0)
    depth[:, 30:] = 4.0
    errors, confidences = [], []
    for _ in range(8):
        spoilt, confidence = spoil_depth(depth, source, rng)
        errors.append((spoilt / depth - 1).abs().flatten())
        confidences.append(confidence.flatten())
    error, confidence = torch.cat(errors), torch.cat(confidences)
    assert float(error.mean()) > 1e-3
    assert float(error[confidence > 0.9].mean()) < float(error[confidence < 0.5].mean())


def test_gradients_reach_the_head_through_fusing(tmp_path):
    capture = Worlds(None, seed=4, config=WorldConfig(photographic=False)).capture(3, 48, 64)
    posed = capture_to_posed(capture, range(3))
    depth = tuple(torch.from_numpy(z).clamp(max=50.0) for z in capture.depth[2])
    sure = tuple(torch.full_like(z, 0.9) for z in depth)
    network = HeadNetwork()
    fused = splat_capture(
        posed,
        Prediction(cameras=posed.cameras.resized(32, 24), depth=depth, confidence=sure),
        network,
        FuseConfig(shell=50, recolor_steps=0),
    )
    assert fused is not None
    (fused.opacities.sum() + fused.scales.log().sum() + fused.sh.sum()).backward()
    assert float(network.leave.bias.grad.abs().sum()) > 0
    assert float(network.rule.grad.abs().sum()) > 0
    path = export_weights(network, tmp_path / "head.safetensors")
    assert isinstance(load_splat_head(weights=path), LearnedSplatHead)
