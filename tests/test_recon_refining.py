"""Learned refinement without a network: feedback is the slope of the error, updates are what they say, rounds share out photos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recon import refining
from recon.polishing.targets import Targets
from recon.posed import PosedViews
from recon.progress import Cancelled, Progress
from recon.records import Cameras, Gaussians, RasterOptions
from render.rasterizer import load_rasterizer

SIZE = 40


def some_gaussians(count: int = 30, degree_coefficients: int = 1, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    means = torch.rand(count, 3, generator=g) * torch.tensor([1.6, 1.6, 1.0]) + torch.tensor([-0.8, -0.8, 2.0])
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1)
    return Gaussians(
        means=means,
        quats=quats,
        scales=0.1 + 0.1 * torch.rand(count, 3, generator=g),
        opacities=0.2 + 0.5 * torch.rand(count, generator=g),
        sh=0.5 * torch.randn(count, degree_coefficients, 3, generator=g),
    )


def looking(views: int = 3) -> Cameras:
    T = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    T[:, 0, 3] = torch.linspace(-0.3, 0.3, views)
    K = torch.tensor([[40.0, 0.0, SIZE / 2], [0.0, 40.0, SIZE / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return Cameras(T_world_cam=T, K=K.repeat(views, 1, 1), width=SIZE, height=SIZE)


def posed_photos(cameras: Cameras, valid: torch.Tensor | None = None, seed: int = 1) -> PosedViews:
    """Photos that another scene draws."""
    drawn = load_rasterizer("cpu")(some_gaussians(seed=seed), cameras, RasterOptions(background=(0.3, 0.3, 0.3))).color.clamp(0, 1)
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool) if valid is None else valid
    names = tuple(str(i) for i in range(len(cameras)))
    return PosedViews(names=names, cameras=cameras, read=lambda i: (drawn[i], mask))


def half_error(gaussians: Gaussians, posed: PosedViews, views: list[int]) -> float:
    drawn = load_rasterizer("cpu")(gaussians, posed.cameras.select(views), RasterOptions()).color.double()
    photos = torch.stack([posed.pixels(i)[0] * posed.pixels(i)[1][..., None] for i in views]).double()
    return float(((drawn - photos) ** 2).sum() / 2)


@pytest.mark.parametrize("coefficients", [1, 4])
def test_feedback_is_the_slope_of_the_error_in_a_gaussians_own_terms(monkeypatch, coefficients):
    """Move along one column by a little, both ways: the error changes as the feedback says."""
    monkeypatch.setattr(refining, "ERROR", replace(refining.ERROR, ssim_share=0.0, square_scale=0.5))
    gaussians, posed = some_gaussians(degree_coefficients=coefficients), posed_photos(looking())
    feedback = refining.gather_feedback(gaussians, Targets(posed), load_rasterizer("cpu"))
    slopes = feedback.slope * (feedback.weight + refining.LEAST_WEIGHT)[:, None]
    busiest = [int(i) for i in feedback.weight.argsort(descending=True)[:6]]
    unit = torch.ones(22)
    unit[13:] = refining.SH_C0**2 / refining.SHEEN_NORM  # an update of degree 1 is in steps that make up for a colour
    step = 0.05
    for column in range(13 if coefficients == 1 else 22):
        numerical = []
        for i in busiest:
            update = torch.zeros(len(gaussians), 22)
            update[i, column] = step
            rise = half_error(refining.apply_update(gaussians, update), posed, [0, 1, 2])
            fall = half_error(refining.apply_update(gaussians, -update), posed, [0, 1, 2])
            numerical.append((rise - fall) / (2 * step))
        expected = slopes[busiest, column] * unit[column]
        apart = (torch.tensor(numerical) - expected).norm()  # a few pixels cross the least alpha that is drawn
        assert float(apart) < 0.1 * float(expected.norm()) + 0.05, column
    if coefficients == 1:
        assert float(feedback.slope[:, 13:].abs().max()) == 0.0


@pytest.mark.parametrize("coefficients", [1, 4])
def test_the_kernel_sums_what_its_twin_sums(coefficients):
    gaussians = some_gaussians(count=200, degree_coefficients=coefficients)
    g = torch.Generator().manual_seed(5)
    names = ("means", "quats", "scales", "opacities", "sh")
    gradients = tuple(torch.randn(getattr(gaussians, name).shape, generator=g) for name in names)
    drawn = torch.rand(200, generator=g) - 0.3

    def zeros():
        return torch.zeros(200, 22), torch.zeros(200, 22), torch.zeros(200), torch.zeros(200)

    ours, twin = zeros(), zeros()
    for _ in range(2):
        refining.add_slopes(gaussians, gradients, drawn.clamp_min(0), ours)
        refining.add_slopes_twin(gaussians, gradients, drawn.clamp_min(0), twin)
    for a, b in zip(ours, twin, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert float(ours[3].max()) == 2.0
    assert bool((ours[0][drawn <= 0] == 0).all())


def test_updates_do_what_they_say():
    gaussians = some_gaussians(degree_coefficients=4)
    assert_alike(refining.apply_update(gaussians, torch.zeros(30, 22)), gaussians)
    update = torch.zeros(30, 22)
    update[:, 1], update[:, 8], update[:, 9], update[:, 11] = 0.5, 0.1, -1.0, 0.02
    moved = refining.apply_update(gaussians, update)
    axes = refining.quats_to_rotations(gaussians.quats)
    assert torch.allclose(moved.means, gaussians.means + 0.5 * axes[:, :, 1] * gaussians.scales[:, 1:2], atol=1e-6)
    assert torch.allclose(moved.scales[:, 2], gaussians.scales[:, 2] * float(np.exp(0.1)), atol=1e-6)
    assert torch.allclose(torch.logit(moved.opacities), torch.logit(gaussians.opacities) - 1, atol=1e-4)
    turned = refining.apply_update(gaussians, torch.zeros(30, 22).index_fill_(1, torch.tensor([5]), 0.02))
    between = torch.einsum("nji,njk->nik", axes, refining.quats_to_rotations(turned.quats))
    small = torch.tensor([[1.0, -0.02, 0.0], [0.02, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(between, small.expand(30, 3, 3), atol=5e-4)


def test_masked_pixels_say_nothing():
    """Two photo sets that differ where pixels do not count give the same feedback."""
    valid = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    valid[:, : SIZE // 2] = True
    gaussians, cameras = some_gaussians(), looking()
    posed = posed_photos(cameras, valid)
    spoilt = replace(posed, read=lambda i: (torch.where(valid[..., None], posed.read(i)[0], 1 - posed.read(i)[0]), valid))
    a, b = (refining.gather_feedback(gaussians, Targets(p), load_rasterizer("cpu")) for p in (posed, spoilt))
    assert torch.equal(a.slope, b.slope)
    right = load_rasterizer("cpu")(gaussians, cameras, RasterOptions(contribution=True))
    assert right.contribution is not None
    assert float(a.slope.abs().max()) > 0


@pytest.mark.parametrize("photos", [2, 24, 25, 60, 300])
def test_rounds_share_out_many_photos(photos):
    seen = [refining.views_of_round(number, photos) for number in range(-(-photos // refining.MOST_PHOTOS))]
    if photos <= refining.MOST_PHOTOS:
        assert seen == [None]
    else:
        assert sorted(i for views in seen for i in views or []) == list(range(photos))
        assert max(len(views or []) for views in seen) <= refining.MOST_PHOTOS


def test_refining_can_be_stopped_between_photos():
    progress = Progress()
    calls = []

    def updater(gaussians, spacing, feedback, state):
        calls.append(feedback.error)
        progress.cancel()
        return gaussians, torch.zeros(len(gaussians), 1)

    updater.rounds = 3
    with pytest.raises(Cancelled):
        refining.refine(
            some_gaussians(), Targets(posed_photos(looking())), load_rasterizer("cpu"), updater, rounds=3, progress=progress
        )
    assert len(calls) == 1


def assert_alike(a: Gaussians, b: Gaussians) -> None:
    for name in ("means", "scales", "opacities", "sh"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-5), name
    assert torch.allclose(refining.quats_to_rotations(a.quats), refining.quats_to_rotations(b.quats), atol=1e-5)
