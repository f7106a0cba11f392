"""Fusing on a scene whose truth is known: a textured plane before a textured wall, seen by a row of cameras."""

import pytest
import torch

from recon.depth_range import choose_depth_range
from recon.errors import CannotReconstruct
from recon.fuse import FuseConfig, SplatAttributes, fuse
from recon.fusing.evidence import gather_evidence
from recon.fusing.leaves import build_pyramid, choose_blocks, cut_leaves, price_for_budget
from recon.geometry import pixel_grid, quats_to_rotations, rays_cam, transform
from recon.neighbours import choose_neighbours
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Prediction

WALL_Z, CARD_Z = 6.0, 4.0
WIDTH, HEIGHT = 96, 64


def plain_head(image, depth, confidence, residuals) -> SplatAttributes:
    shape = depth.shape
    return SplatAttributes(
        opacity=torch.full(shape, 0.9),
        log_scale=torch.zeros(*shape, 2),
        color_delta=torch.zeros(*shape, 3),
        importance=torch.ones(shape),
    )


def card_and_wall(views: int = 4) -> tuple[PosedViews, list[torch.Tensor]]:
    """Cameras in a row look along +z at a card (|x| < 1, |y| < 0.8) in front of a wall, both with a sine texture."""
    K = torch.tensor([[80.0, 0, WIDTH / 2], [0, 80.0, HEIGHT / 2], [0, 0, 1]])
    T = torch.eye(4).repeat(views, 1, 1)
    T[:, 0, 3] = torch.linspace(-0.8, 0.8, views)
    cameras = Cameras(T_world_cam=T, K=K.expand(views, 3, 3).clone(), width=WIDTH, height=HEIGHT)
    images, depths = [], []
    for i in range(views):
        rays = rays_cam(pixel_grid(HEIGHT, WIDTH), K)
        card = transform(T[i], rays * CARD_Z)
        on_card = (card[..., 0].abs() < 1) & (card[..., 1].abs() < 0.8)
        z = torch.where(on_card, CARD_Z, WALL_Z)
        p = transform(T[i], rays * z[..., None])
        wave = torch.stack([(p[..., 0] * f).sin() * (p[..., 1] * f).cos() for f in (3.0, 5.0, 7.0)], dim=-1)
        images.append(0.5 + 0.3 * wave + 0.15 * on_card[..., None])
        depths.append(z)
    valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    posed = PosedViews(names=tuple(f"{i}.jpg" for i in range(views)), cameras=cameras, read=lambda i: (images[i], valid))
    return posed, depths


def run(posed: PosedViews, depths, confidences=None, **options):
    confidences = confidences or [torch.ones_like(d) for d in depths]
    prediction = Prediction(cameras=posed.cameras, depth=tuple(depths), confidence=tuple(confidences))
    return fuse(posed, prediction, plain_head, FuseConfig(**options), Progress())


def test_gaussians_lie_on_the_surfaces():
    posed, depths = card_and_wall()
    scene = run(posed, depths, shell=0, max_gaussians=4000).gaussians
    off = torch.minimum((scene.means[:, 2] - WALL_Z).abs(), (scene.means[:, 2] - CARD_Z).abs())
    assert len(scene) > 500
    assert float((off < 0.02).float().mean()) > 0.98


def test_budget_is_kept_and_used():
    posed, depths = card_and_wall()
    for budget in (20, 300, 1500):  # the first is less than the largest blocks alone
        fused = run(posed, depths, shell=64, max_gaussians=budget)
        assert budget * 0.6 < len(fused.gaussians) <= budget
        assert len(fused.surface) + fused.shell_count == len(fused.gaussians)


def test_a_surface_is_drawn_once():
    posed, depths = card_and_wall()
    one = run(posed.select([0, 1]), depths[:2], shell=0, max_gaussians=100_000)
    all_views = run(posed, depths, shell=0, max_gaussians=100_000)
    assert len(all_views.gaussians) < 1.6 * len(one.gaussians)


def test_flying_pixels_are_removed():
    posed, depths = card_and_wall()
    noisy = [d.clone() for d in depths]
    noisy[1][10:20, 10:20] = 2.0
    confidences = [torch.ones_like(d) * 0.8 for d in depths]
    scene = run(posed, noisy, confidences, shell=0, max_gaussians=50_000).gaussians
    assert int((scene.means[:, 2] < 3.0).sum()) == 0


def test_evidence_tells_support_from_free_space():
    posed, depths = card_and_wall()
    wrong = [d.clone() for d in depths]
    wrong[1][30:34, 5:9] = 2.5
    evidence = gather_evidence(posed, wrong, [torch.ones_like(d) for d in depths], (0, 2), 1)
    support, violation = evidence.residuals[..., 1], evidence.residuals[..., 2]
    assert float(violation[31:33, 6:8].mean()) > 0.9
    assert float(support[31:33, 6:8].mean()) < 0.1
    assert float(support[50:60, 40:60].mean()) > 0.8
    assert float(evidence.trust[31:33, 6:8].mean()) < float(evidence.trust[50:60, 40:60].mean())


def test_slanted_plane_gives_its_normal():
    K = torch.tensor([[80.0, 0, WIDTH / 2], [0, 80.0, HEIGHT / 2], [0, 0, 1]])
    normal = torch.nn.functional.normalize(torch.tensor([0.5, 0.2, 1.0]), dim=0)
    rays = rays_cam(pixel_grid(HEIGHT, WIDTH), K)
    depth = 4.0 / (rays @ normal)
    image = torch.rand(HEIGHT, WIDTH, 3)
    drawn = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    pyramid = build_pyramid(image, depth, drawn)
    leaves = cut_leaves(pyramid, price_for_budget([pyramid], 400), view=0, K=K, T_world_cam=torch.eye(4))
    third = quats_to_rotations(leaves.quats)[:, :, 2]
    assert float((third @ normal).abs().min()) > 0.999
    assert torch.allclose(leaves.means @ normal, torch.full((len(leaves),), 4.0), atol=1e-3)


def test_plain_regions_get_large_blocks():
    posed, _ = card_and_wall()
    image = posed.image(0).clone()
    image[:, : WIDTH // 2] = 0.3
    drawn = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    pyramid = build_pyramid(image, torch.full((HEIGHT, WIDTH), 5.0), drawn)
    price = price_for_budget([pyramid], 500)
    leaves = cut_leaves(pyramid, price, view=0, K=posed.cameras.K[0], T_world_cam=torch.eye(4))
    assert sum(int(mask.sum()) for mask in choose_blocks(pyramid, price)) == len(leaves) <= 500
    left = leaves.means[:, 0] < -0.2
    assert int(left.sum()) < 0.15 * len(leaves)


def test_neighbours_follow_geometry_not_order():
    posed, _ = card_and_wall(views=6)
    shuffled = posed.select([3, 0, 5, 1, 4, 2])
    names = [shuffled.names[i] for i in range(6)]
    chosen = choose_neighbours(shuffled, count=2)
    plain = choose_neighbours(posed, count=2)
    for i, name in enumerate(names):
        expected = {posed.names[j] for j in plain[posed.names.index(name)]}
        assert {names[j] for j in chosen[i]} == expected


def test_depth_range_brackets_the_points():
    posed, _ = card_and_wall()
    points = torch.cat(
        [
            torch.tensor([[0.1 * i - 1, 0.0, CARD_Z] for i in range(20)]),
            torch.tensor([[0.1 * i - 1, 0.5, WALL_Z] for i in range(20)]),
        ]
    )
    with_points = PosedViews(
        names=posed.names,
        cameras=posed.cameras,
        read=posed.read,
        points_world=points,
        visibility=torch.ones(4, 40, dtype=torch.bool),
    )
    near_far = choose_depth_range(with_points)
    assert (near_far[:, 0] < CARD_Z).all()
    assert (near_far[:, 1] > WALL_Z).all()


def test_nothing_drawable_is_said_in_words():
    posed, depths = card_and_wall()
    blank = [torch.zeros_like(d) for d in depths]
    random = [d + torch.rand_like(d) * 8 for d in depths]
    with pytest.raises(CannotReconstruct, match="overlap"):
        run(posed, random, blank, shell=0, soft_above=0.9)
