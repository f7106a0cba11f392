"""The compiled loss against its definition, and what a loss must not do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recon.polishing.losses import LossConfig, Target, blur, make_target, photo_loss, photo_loss_twin

GRADIENT_TOLERANCE = 2e-5
"""Relative to the largest gradient; float32 sums over an 11 x 11 window."""


def picture(height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    photo = torch.rand(height, width, 3, generator=g)
    drawn = photo + 0.2 * torch.randn(height, width, 3, generator=g)
    return drawn, photo, (torch.rand(height, width, generator=g) > 0.2).float()


def in_float64(target: Target) -> Target:
    image, weight = target.image.double(), target.weight.double()
    mean = blur(image)
    return Target(image=image, weight=weight, mean=mean, variance=blur(image * image) - mean * mean)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (33, 40), (70, 91)])
@pytest.mark.parametrize("config", [LossConfig(), LossConfig(ssim_share=0.6, square_share=0.5), LossConfig(ssim_share=0.0)])
def test_kernel_equals_its_definition(height, width, config):
    drawn, photo, weight = picture(height, width, height)
    target = make_target(photo, weight)
    got = photo_loss(drawn, target, config)
    leaf = drawn.double().requires_grad_()
    value, squared = photo_loss_twin(leaf, in_float64(target), config)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert got.value == pytest.approx(float(value.detach()), abs=1e-6)
    assert got.squared_error == pytest.approx(float(squared.detach()), abs=1e-6)
    assert torch.allclose(got.gradient.double(), gradient, rtol=0, atol=GRADIENT_TOLERANCE * float(gradient.abs().max()) + 1e-12)


def test_equal_pictures_cost_nothing():
    _, photo, weight = picture(30, 30, 0)
    got = photo_loss(photo, make_target(photo, weight), LossConfig())
    assert got.value == pytest.approx(0, abs=1e-6)
    assert got.squared_error == 0


def test_pixels_without_weight_get_no_gradient():
    drawn, photo, weight = picture(30, 44, 1)
    got = photo_loss(drawn, make_target(photo, weight), LossConfig())
    assert float(got.gradient[weight == 0].abs().max()) == 0
    assert float(got.gradient[weight == 1].abs().max()) > 0


def test_one_kernel_serves_pictures_of_any_size_in_any_order():
    first = picture(40, 30, 2)
    expected = photo_loss(first[0], make_target(first[1], first[2]), LossConfig()).value
    other = picture(30, 40, 3)
    photo_loss(other[0], make_target(other[1], other[2]), LossConfig())
    assert photo_loss(first[0], make_target(first[1], first[2]), LossConfig()).value == expected


def test_descending_the_gradient_lowers_the_loss():
    drawn, photo, weight = picture(32, 32, 4)
    target, config = make_target(photo, weight), replace(LossConfig(), square_share=1.0)
    before = photo_loss(drawn, target, config)
    after = photo_loss(drawn - 20 * before.gradient, target, config)
    assert after.value < before.value
