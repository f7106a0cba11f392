"""The depth network: its correlation kernel against the readable twin, its symmetries, and its behaviour at the edges."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.correlation import Sweep, relative_geometry, sweep_correlation, sweep_correlation_torch
from models.layers import convex_upsample
from models.mini import MiniConfig, MiniNetwork, windowed_expectation
from models.mini_predictor import MiniPredictor, crop_to_photo
from models.registry import load_predictor
from recon.errors import UserError
from recon.posed import PosedViews
from recon.progress import Cancelled, Progress
from recon.records import Cameras

KERNEL_TOLERANCE = 1e-4
"""float32 sums of 32 products in another order, on values of order 10."""
BFLOAT_TOLERANCE = 0.08
"""Relative depth noise of an untrained network computed in bfloat16 on hardware that has it."""


def look_cameras(sizes: list[tuple[int, int]]) -> Cameras:
    """Cameras side by side, 0.2 apart, looking along +z."""
    T_world_cam = torch.eye(4, dtype=torch.float64).repeat(len(sizes), 1, 1)
    T_world_cam[:, 0, 3] = 0.2 * torch.arange(len(sizes))
    K = torch.stack([torch.tensor([[60.0, 0, w / 2], [0, 60.0, h / 2], [0, 0, 1]], dtype=torch.float64) for w, h in sizes])
    return Cameras(T_world_cam=T_world_cam, K=K, width=tuple(w for w, _ in sizes), height=tuple(h for _, h in sizes))


def noise_views(sizes: list[tuple[int, int]], seed: int = 0) -> PosedViews:
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(h, w, 3, generator=generator) for w, h in sizes]
    return PosedViews(
        names=tuple(f"{i}.png" for i in range(len(sizes))),
        cameras=look_cameras(sizes),
        read=lambda i: (images[i], torch.ones(images[i].shape[:2], dtype=torch.bool)),
    )


@pytest.fixture(scope="module")
def network() -> MiniNetwork:
    torch.manual_seed(1)
    return MiniNetwork(MiniConfig(planes=16, fine_planes=8)).eval()


def predict(network: MiniNetwork, posed: PosedViews, neighbours, scale: float = 1.0):
    ranges = torch.tensor([[1.0, 8.0]]).repeat(len(posed), 1) * scale
    return MiniPredictor(network)(posed, neighbours, ranges, Progress())


@pytest.mark.parametrize("extent", [None, (8.5, 7.0)])
def test_kernel_matches_twin_in_values_and_gradients(extent):
    torch.manual_seed(0)
    batch, neighbours, height, width, channels = 2, 2, 8, 10, 32
    ref = torch.randn(batch, height, width, channels, requires_grad=True)
    src = torch.randn(batch, neighbours, height, width, channels, requires_grad=True)
    K = torch.tensor([[10.0, 0, 5], [0, 10, 4], [0, 0, 1]]).expand(batch, 3, 3)
    T_world_src = torch.eye(4).repeat(batch, neighbours, 1, 1)
    T_world_src[:, 0, 0, 3], T_world_src[:, 1, 1, 3], T_world_src[:, 1, 2, 3] = 0.3, -0.2, 0.4
    A, b = relative_geometry(K, torch.eye(4).repeat(batch, 1, 1), K[:, None].expand(-1, neighbours, -1, -1), T_world_src)
    sizes = None if extent is None else torch.tensor(extent).expand(batch, neighbours, 2)
    sweep = Sweep(A, b, torch.rand(batch, height, width) * 0.1, torch.linspace(0.1, 1.5, 6).expand(batch, 6), sizes)
    results = []
    for function in (sweep_correlation, sweep_correlation_torch):
        ref.grad = src.grad = None
        value, inside = function(ref, src, sweep, 8)
        (value * torch.sin(torch.arange(value.numel())).view_as(value)).sum().backward()
        results.append((value.detach(), inside, ref.grad, src.grad))
    assert 0.2 < float(results[0][1].mean()) < 0.9  # both sides of the border are exercised
    for fast, slow in zip(*results, strict=True):
        assert torch.allclose(fast, slow, atol=KERNEL_TOLERANCE)


def test_half_precision_around_it_does_not_move_what_is_compared():
    """Autocast would take the product of homographies and pixels for one of a network's."""
    torch.manual_seed(0)
    ref, src = torch.randn(1, 60, 80, 8), torch.randn(1, 1, 60, 80, 8)
    K = torch.tensor([[[80.0, 0, 40], [0, 80, 30], [0, 0, 1]]])
    T_world_src = torch.eye(4)[None, None].clone()
    T_world_src[0, 0, 0, 3] = 0.3
    T_world_src[0, 0, :3, :3] = torch.linalg.matrix_exp(torch.tensor([[0.0, 0, 0.12], [0, 0, 0], [-0.12, 0, 0]]))
    A, b = relative_geometry(K, torch.eye(4)[None], K[:, None], T_world_src)
    sweep = Sweep(A, b, torch.zeros(1, 60, 80), torch.linspace(0.1, 0.5, 3)[None])
    plain, inside = sweep_correlation_torch(ref, src, sweep, 4)
    with torch.autocast("cpu", torch.bfloat16):
        under, inside_under = sweep_correlation_torch(ref, src, sweep, 4)
    assert torch.equal(inside, inside_under)
    assert torch.allclose(plain, under, atol=1e-5)


def test_a_point_lands_where_projection_says():
    cameras = look_cameras([(40, 30), (40, 30)])
    A, b = relative_geometry(cameras.K[:1], cameras.T_world_cam[:1], cameras.K[None, 1:], cameras.T_world_cam[None, 1:])
    pixel, z = torch.tensor([12.5, 9.5, 1.0]), 4.0
    q = A[0, 0] @ pixel + b[0, 0] / z
    # the camera moved 0.2 to the right, so the point moves left by f * 0.2 / z = 3 pixels
    assert torch.allclose(q[:2] / q[2], torch.tensor([9.5, 9.5]), atol=1e-5)


def test_windowed_expectation_stays_on_one_peak():
    logits = torch.full((1, 20, 1, 1), -20.0)
    logits[0, 3], logits[0, 15] = 2.0, 1.9
    index, mass = windowed_expectation(logits, reach=3)
    assert abs(float(index) - 3.0) < 1e-3
    assert 0.4 < float(mass) < 0.6


def test_convex_upsample_keeps_the_range_and_constants():
    coarse = torch.rand(2, 5, 7)
    up = convex_upsample(coarse, torch.randn(2, 36, 5, 7))
    assert up.shape == (2, 10, 14)
    assert float(up.min()) >= float(coarse.min()) - 1e-6
    assert torch.allclose(convex_upsample(torch.full((1, 3, 3), 2.5), torch.randn(1, 36, 3, 3)), torch.tensor(2.5), atol=1e-6)


def test_default_size_is_small():
    assert sum(p.numel() for p in MiniNetwork().parameters()) < 1_500_000


def test_moving_and_scaling_the_world_moves_only_the_scale_of_depth(network):
    posed = noise_views([(64, 48)] * 3)
    neighbours = ((1, 2), (0, 2), (1, 0))
    before = predict(network, posed, neighbours)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    T_new_world = torch.eye(4, dtype=torch.float64)
    T_new_world[:3, :3], T_new_world[:3, 3] = turn * turn.det(), torch.tensor([100.0, -50.0, 30.0])
    moved = T_new_world @ posed.cameras.T_world_cam
    moved[:, :3, 3] *= 7.0
    after = predict(network, replace(posed, cameras=replace(posed.cameras, T_world_cam=moved)), neighbours, scale=7.0)
    for a, b in zip(before.depth, after.depth, strict=True):
        assert torch.allclose(7.0 * a, b, rtol=BFLOAT_TOLERANCE)
        assert float((7.0 * a / b - 1).abs().median()) < 1e-3


def test_permuting_views_permutes_the_outputs(network):
    posed = noise_views([(64, 48)] * 3)
    direct = predict(network, posed, ((1, 2), (0, 2), (0, 1)))
    order = [2, 0, 1]
    turned = predict(network, posed.select(order), ((1, 2), (2, 0), (1, 0)))
    for place, index in enumerate(order):
        assert torch.allclose(turned.depth[place], direct.depth[index], rtol=BFLOAT_TOLERANCE)
        assert float((turned.depth[place] / direct.depth[index] - 1).abs().median()) < 1e-3


def test_mixed_and_odd_sizes_keep_their_own_grid(network):
    sizes = [(65, 49), (64, 48), (50, 70)]
    result = predict(network, noise_views(sizes), ((1, 2), (0, 2), (0, 1)))
    assert [tuple(d.shape) for d in result.depth] == [(25, 33), (24, 32), (35, 25)]
    assert result.cameras.width == (33, 32, 25)
    for depth, confidence in zip(result.depth, result.confidence, strict=True):
        assert bool((depth > 0).all())
        assert 0.0 <= float(confidence.min()) <= float(confidence.max()) <= 1.0


def test_crop_reads_the_photo_not_the_padding():
    # a map linear in x over a grid of cells 2 px wide, padded from 65 to 72 px
    padded = ((torch.arange(36) + 0.5) * 2).expand(24, 36).contiguous()
    read = crop_to_photo(padded, (65, 48), (33, 24))
    expected = (torch.arange(33) + 0.5) * 65 / 33
    assert torch.allclose(read[0, 1:], expected[1:], atol=1e-3)  # the first centre lies left of the first cell's


def test_a_lonely_view_has_no_confidence(network):
    result = predict(network, noise_views([(64, 48)] * 3), ((1,), (0,), ()))
    assert float(result.confidence[2].max()) == 0.0
    assert bool(torch.isfinite(result.depth[2]).all())


def test_masked_pixels_have_no_confidence_and_do_not_change_normalisation(network):
    posed = noise_views([(64, 48)] * 2)
    valid = torch.ones(48, 64, dtype=torch.bool)
    valid[:, :16] = False

    def read(i: int):
        image = posed.image(i).clone()
        image[~valid] = 0.0
        return image, valid

    result = predict(network, replace(posed, read=read), ((1,), (0,)))
    assert float(result.confidence[0][:, :8].max()) == 0.0


def test_every_photo_is_encoded_once_and_let_go(network, monkeypatch):
    encoded, predictor = [], MiniPredictor(network)
    original = predictor._encode
    monkeypatch.setattr(predictor, "_encode", lambda *pixels: encoded.append(1) or original(*pixels))
    posed = noise_views([(64, 48)] * 4)
    predictor(posed, ((1,), (0, 2), (1, 3), (2,)), torch.tensor([[1.0, 8.0]]).repeat(4, 1), Progress())
    assert len(encoded) == 4


@pytest.mark.parametrize(
    ("neighbours", "ranges"),
    [
        (((1,),), [[1.0, 2.0], [1.0, 2.0]]),
        (((0,), (0,)), [[1.0, 2.0], [1.0, 2.0]]),
        (((5,), (0,)), [[1.0, 2.0], [1.0, 2.0]]),
        (((1,), (0,)), [[2.0, 1.0], [1.0, 2.0]]),
        (((1,), (0,)), [[0.0, 1.0], [1.0, 2.0]]),
    ],
)
def test_a_request_that_does_not_fit_is_refused(network, neighbours, ranges):
    with pytest.raises(ValueError, match="depth:"):
        MiniPredictor(network)(noise_views([(64, 48)] * 2), neighbours, torch.tensor(ranges), Progress())


def test_cancelling_stops_between_views(network):
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        MiniPredictor(network)(noise_views([(64, 48)] * 2), ((1,), (0,)), torch.tensor([[1.0, 2.0]] * 2), progress)


def test_registry_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(UserError, match="no model called"):
        load_predictor("nothing")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="Cannot read weights"):
        load_predictor("mini", weights=tmp_path / "broken.safetensors")


def test_random_weights_repeat_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (load_predictor("mini", random_seed=3) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
