"""The compiled loops of evidence and ownership against readable twins made of whole-image operations."""

from __future__ import annotations

import pytest
import torch

from recon.fusing import kernels
from recon.fusing.evidence import CLIP_REL, gather_evidence
from recon.fusing.ownership import CELL_PX, FINER, SAME_SURFACE_REL, TRUST_SHARE, _filled_cells, assign_pixels
from recon.geometry import backproject, inside_image, project, sample_image, transform
from recon.polishing.workers import over_rows
from recon.posed import PosedViews
from recon.records import Cameras

SIZES = ((60, 44), (47, 61), (52, 40))
AWAY_FROM_EDGES = 0.995
"""Share of pixels that must agree: at the rim of a photo and where a depth just reaches a limit, rounding decides."""


def scene(seed: int = 0) -> tuple[PosedViews, list[torch.Tensor], list[torch.Tensor]]:
    """Photos of unequal sizes, turned and moved a little, with smooth depth that is wrong in places, and confidence."""
    generator = torch.Generator().manual_seed(seed)
    T = torch.eye(4, dtype=torch.float64).repeat(len(SIZES), 1, 1)
    for i in range(len(SIZES)):
        turn = torch.tensor([[0.0, -0.05, 0.04], [0.05, 0.0, -0.03], [-0.04, 0.03, 0.0]], dtype=torch.float64) * (i - 1)
        T[i, :3, :3] = torch.matrix_exp(turn)
        T[i, :3, 3] = torch.tensor([0.3 * i, -0.1 * i, -0.4 * i + 10.0], dtype=torch.float64)
    K = torch.stack(
        [
            torch.tensor([[50.0 + 8 * i, 0, w / 2 + 1], [0, 52.0, h / 2], [0, 0, 1]], dtype=torch.float64)
            for i, (w, h) in enumerate(SIZES)
        ]
    )
    cameras = Cameras(T_world_cam=T, K=K, width=tuple(w for w, _ in SIZES), height=tuple(h for _, h in SIZES))
    images = [torch.rand(h, w, 3, generator=generator) for w, h in SIZES]
    depth, confidence = [], []
    for i, (w, h) in enumerate(SIZES):
        bumps = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 5, generator=generator), (h, w), mode="bicubic")[0, 0]
        z = 3.0 + 0.4 * i + 0.25 * bumps
        z[5:15, 5:15] *= 0.7
        depth.append(z)
        confidence.append(torch.rand(h, w, generator=generator))
    valid = torch.ones(1, dtype=torch.bool)
    posed = PosedViews(
        names=("a", "b", "c"), cameras=cameras, read=lambda i: (images[i], valid.expand(images[i].shape[:2]).contiguous())
    )
    return posed, depth, confidence


def compared(posed: PosedViews, depth, confidence, i: int, j: int) -> torch.Tensor:
    """What ``compare`` adds up, by whole-image operations."""
    cameras, sums = posed.cameras, torch.zeros(*depth[i].shape, 8)
    T_cam_world = cameras.T_cam_world.float()
    points = transform(cameras.T_world_cam[i].float(), backproject(depth[i], cameras.K[i].float()))
    pixels, z = project(transform(T_cam_world[j], points), cameras.K[j].float())
    seen = inside_image(pixels, cameras.width[j], cameras.height[j]) & (z > 0)
    there = sample_image(torch.stack([depth[j], confidence[j]], dim=-1), pixels)
    other, sure = there[..., 0], there[..., 1] * seen
    relative = (z - other) / z.clamp_min(1e-8)
    agree = sure * torch.exp(-((relative / kernels.AGREE_REL) ** 2))
    color = (sample_image(posed.image(j), pixels) - posed.image(i)).abs().mean(-1)
    least = torch.where(seen, relative.abs().clamp_max(CLIP_REL), torch.full_like(z, CLIP_REL))
    parts = {
        kernels.LEAST: least,
        kernels.SUPPORT: agree,
        kernels.VIOLATION: sure * (relative < -3 * kernels.AGREE_REL),
        kernels.INFORMED: sure * (relative <= 3 * kernels.AGREE_REL),
        kernels.COLOR: agree * color,
        kernels.COLOR_WEIGHT: agree,
        kernels.DEPTH: agree * depth[i] * other / z.clamp_min(1e-8),
        kernels.DEPTH_WEIGHT: agree,
    }
    for channel, value in parts.items():
        sums[..., channel] = value
    return sums


@pytest.mark.parametrize(("i", "j"), [(0, 1), (1, 2), (2, 0)])
def test_comparing_adds_up_what_its_twin_does(i, j):
    posed, depth, confidence = scene()
    A, b = kernels.from_to(posed.cameras, i, j)
    sums = torch.zeros(*depth[i].shape, 8)
    sums[..., kernels.LEAST] = CLIP_REL
    given = (depth[i], posed.image(i), A, b, depth[j], confidence[j], posed.image(j), sums)
    over_rows(kernels.compare, len(depth[i]), *(t.contiguous().numpy() for t in given[:-1]), sums.numpy())
    expected = compared(posed, depth, confidence, i, j)
    assert float(expected[..., kernels.SUPPORT].max()) > 0.3, "the scene has something to agree on"
    assert float(expected[..., kernels.VIOLATION].max()) > 0.3, "and something to object to"
    close = torch.isclose(sums, expected, atol=2e-4, rtol=1e-3).all(-1).float()
    assert float(close.mean()) > AWAY_FROM_EDGES


def test_a_view_without_neighbours_keeps_its_depth():
    posed, depth, confidence = scene()
    alone = gather_evidence(posed, depth, confidence, (), 0)
    assert torch.allclose(alone.depth, depth[0], rtol=1e-6)
    assert torch.allclose(alone.trust, confidence[0], atol=1e-6)


def left_by_twin(posed: PosedViews, depth, trust, i: int, j: int, open_pixels: torch.Tensor, sure_above: float) -> torch.Tensor:
    cameras = posed.cameras
    points = transform(cameras.T_world_cam[i].float(), backproject(depth[i], cameras.K[i].float()))
    pixels, z = project(transform(cameras.T_cam_world[j].float(), points), cameras.K[j].float())
    there = sample_image(torch.stack([depth[j], trust[j]], dim=-1), pixels, mode="nearest")
    same = ((z - there[..., 0]).abs() < SAME_SURFACE_REL * z) & inside_image(pixels, cameras.width[j], cameras.height[j])
    fine = z / cameras.K[j, 0, 0].float() < FINER * depth[i] / cameras.K[i, 0, 0].float()
    drawn = (there[..., 1] >= sure_above) & (there[..., 1] > TRUST_SHARE * trust[i])
    return open_pixels & ~((z > 0) & same & fine & drawn)


def test_leaving_out_is_what_its_twin_does():
    posed, depth, trust = scene()
    open_pixels = trust[1] > 0.3
    left = open_pixels.clone()
    A, b = kernels.from_to(posed.cameras, 1, 0)
    deeper = FINER * float(posed.cameras.K[0, 0, 0] / posed.cameras.K[1, 0, 0])
    limits = torch.tensor([SAME_SURFACE_REL, 0.3, TRUST_SHARE, deeper])
    given = (depth[1], trust[1], left, A, b, depth[0], trust[0], limits)
    over_rows(kernels.leave_out, len(left), *(t.numpy() for t in given))
    expected = left_by_twin(posed, depth, trust, 1, 0, open_pixels, 0.3)
    assert 20 < int((open_pixels & ~expected).sum()) < int(open_pixels.sum())
    assert float((left == expected).float().mean()) > AWAY_FROM_EDGES


def test_masked_pixels_neither_draw_nor_keep_others_from_drawing():
    posed, depth, _ = scene()
    trust = [torch.ones_like(d) for d in depth]
    nothing = [torch.zeros(d.shape, dtype=torch.bool) for d in depth]
    everything = [torch.ones(d.shape, dtype=torch.bool) for d in depth]
    alone = assign_pixels(posed.cameras, depth, trust, [nothing[0], nothing[1], everything[2]], sure_above=0.3, soft_above=0.1)
    assert [int(mask.sum()) for mask in alone.sure[:2]] == [0, 0]
    assert bool(alone.sure[2].all())


def test_cells_are_those_that_points_fall_into():
    cameras = scene()[0].cameras
    points = transform(
        cameras.T_world_cam[0].float(), torch.rand(300, 3) * torch.tensor([2.0, 2.0, 2.0]) + torch.tensor([-1.0, -1.0, 2.0])
    )
    behind = transform(cameras.T_world_cam[0].float(), torch.tensor([[0.0, 0.0, -3.0]] * 5))
    filled = _filled_cells(cameras, 0, [points[:0], torch.cat([points, behind]), points[:0]])
    pixels, z = project(transform(cameras.T_cam_world[0].float(), points), cameras.K[0].float())
    inside = inside_image(pixels, cameras.width[0], cameras.height[0]) & (z > 0)
    cells = (pixels[inside] / CELL_PX).long()
    counts = torch.zeros(-(-cameras.height[0] // CELL_PX), -(-cameras.width[0] // CELL_PX))
    counts.index_put_((cells[:, 1], cells[:, 0]), torch.ones(len(cells)), accumulate=True)
    assert 0 < int((counts > 1).sum()) < counts.numel()
    for row in range(counts.shape[0]):
        for column in range(counts.shape[1]):
            assert bool(filled[row * CELL_PX, column * CELL_PX]) == bool(counts[row, column] > 1)
