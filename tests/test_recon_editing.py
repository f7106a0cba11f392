"""Scene tools on scenes whose answer is known by construction."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from splat_scenes import cloud

from recon.clusters import cluster_sizes
from recon.editing import (
    CleanConfig,
    clean,
    compare,
    contributions,
    crop_box,
    crop_sphere,
    floater_mask,
    outlier_mask,
    prune,
    quantiles,
    scene_middle,
    sky_mask,
    strongest,
)
from recon.formats.self_check import cameras_around
from recon.records import Cameras, Gaussians
from render.rasterizer import load_rasterizer


def sheet(side: int = 20, spacing: float = 0.1) -> Gaussians:
    """A closed sheet of opaque grey discs in the plane z = 0, centred on the origin."""
    axis = (torch.arange(side) - (side - 1) / 2) * spacing
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    count = side * side
    return Gaussians(
        means=torch.stack([x.flatten(), y.flatten(), torch.zeros(count)], dim=1),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        scales=torch.tensor([[spacing * 0.7, spacing * 0.7, 0.01]]).repeat(count, 1),
        opacities=torch.full((count,), 0.9),
        sh=torch.zeros(count, 1, 3),
    )


def moved(gaussians: Gaussians, x: float, y: float, z: float) -> Gaussians:
    return replace(gaussians, means=gaussians.means + torch.tensor([x, y, z]))


def camera_at(z: float) -> Cameras:
    """One camera on the z axis that looks along +z."""
    T_world_cam = torch.eye(4)[None].clone()
    T_world_cam[0, 2, 3] = z
    K = torch.tensor([[[80.0, 0, 40], [0, 80.0, 40], [0, 0, 1]]])
    return Cameras(T_world_cam=T_world_cam, K=K, width=80, height=80)


def test_boxes_and_balls_split_a_scene_in_two() -> None:
    scene = cloud(count=500)
    lower, upper = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([1.0, 0.5, 3.0])
    inside, outside = crop_box(scene, lower, upper), crop_box(scene, lower, upper, outside=True)
    assert len(inside) + len(outside) == 500
    assert ((inside.means >= lower) & (inside.means <= upper)).all()
    centre = torch.tensor([0.3, 0.0, -0.2])
    near, far = crop_sphere(scene, centre, 1.5), crop_sphere(scene, centre, 1.5, outside=True)
    assert len(near) + len(far) == 500
    assert float((near.means - centre).norm(dim=1).max()) <= 1.5 < float((far.means - centre).norm(dim=1).min())


def test_middle_is_deaf_to_outliers_and_broken_values() -> None:
    scene = sheet()
    centre, radius = scene_middle(scene)
    spoilt = scene.means.clone()
    spoilt[0], spoilt[1] = torch.tensor([1e6, 0, 0]), torch.tensor([math.nan, 0, 0])
    other_centre, other_radius = scene_middle(replace(scene, means=spoilt))
    assert float((centre - other_centre).norm()) < 0.15  # half the way between two discs, in x and y
    assert other_radius == pytest.approx(radius, rel=0.05)


def test_quantiles_of_more_values_than_torch_takes() -> None:
    assert quantiles(torch.linspace(0, 1, 20_000_000), [0.25, 0.5]) == pytest.approx([0.25, 0.5], abs=1e-4)


@pytest.mark.parametrize("reason", ["nan", "infinite", "invisible", "far", "huge"])
def test_each_kind_of_outlier_is_found_alone(reason: str) -> None:
    scene = sheet()
    means, scales, opacities = scene.means.clone(), scene.scales.clone(), scene.opacities.clone()
    if reason == "nan":
        means[7, 1] = math.nan
    elif reason == "infinite":
        scales[7, 0] = math.inf
    elif reason == "invisible":
        opacities[7] = 0.001
    elif reason == "far":
        means[7] = torch.tensor([0.0, 0.0, 500.0])
    else:
        scales[7, 2] = 50.0
    broken = replace(scene, means=means, scales=scales, opacities=opacities)
    assert torch.nonzero(outlier_mask(broken)).flatten().tolist() == [7]
    assert len(prune(broken)) == len(scene) - 1
    assert not outlier_mask(scene).any()


def test_floaters_are_small_groups_apart_from_the_rest() -> None:
    speck = moved(sheet(2), 0.0, 0.0, 5.0)
    scene = Gaussians.concatenate([sheet(50), speck])
    assert torch.nonzero(floater_mask(scene, 0.002)).flatten().tolist() == [2500, 2501, 2502, 2503]
    assert not floater_mask(scene, 0.001).any()


def test_groups_join_through_corners_only_when_they_touch() -> None:
    points = torch.tensor([[0.5, 0.5, 0.5], [1.5, 1.5, 1.5], [3.5, 1.5, 1.5], [0.4, 0.4, 0.4]])
    assert cluster_sizes(points, 1.0).tolist() == [3, 3, 1, 3]
    assert cluster_sizes(torch.zeros(0, 3), 1.0).tolist() == []


def test_what_stands_behind_a_wall_contributes_nothing() -> None:
    hidden = moved(sheet(3), 0.0, 0.0, 1.0)
    wall = Gaussians.concatenate([sheet(), moved(sheet(), 0.03, 0.03, 0.05), moved(sheet(), 0.05, 0.0, 0.1)])
    weight = contributions(Gaussians.concatenate([wall, hidden]), camera_at(-4.0), load_rasterizer("cpu"))
    assert float(weight[-9:].max()) < 0.25 < float(weight[:400].min())


def test_sky_is_far_and_above_the_horizon() -> None:
    far_above, far_level, near_above = moved(sheet(2), 0, -90, 40), moved(sheet(2), 0, 3, 90), moved(sheet(2), 0, -3, 2)
    scene = Gaussians.concatenate([sheet(), far_above, far_level, near_above])
    mask = sky_mask(scene, camera_at(-4.0), 8.0)
    assert torch.nonzero(mask).flatten().tolist() == [400, 401, 402, 403]


def test_clean_counts_every_gaussian_under_one_reason() -> None:
    parts = [sheet(40), moved(sheet(2), 0, 0, -2), moved(sheet(2), 0, -90, 40), moved(sheet(3), 0, 0, 0.5)]
    scene = Gaussians.concatenate(parts)
    means = scene.means.clone()
    means[0, 0] = math.nan
    config = CleanConfig(sky_distances=8.0, far_reaches=0.0, floater_share=0.003)
    done = clean(replace(scene, means=means), config, cameras=camera_at(-4.0), rasterizer=load_rasterizer("cpu"))
    assert done.removed["not finite"] == 1
    assert done.removed["sky"] == 4
    assert done.removed["floaters"] == 4
    assert sum(done.removed.values()) == len(scene) - len(done.gaussians)
    nothing = CleanConfig(floater_share=0.0, evidence_px=0.0, far_reaches=0.0)
    assert len(clean(scene, nothing).gaussians) == len(scene)


def test_the_strongest_are_those_that_cover_most() -> None:
    scene = cloud(count=200)
    big = replace(scene, scales=scene.scales * torch.where(torch.arange(200) % 10 == 3, 20.0, 1.0)[:, None])
    kept = strongest(replace(big, opacities=torch.full((200,), 0.5)), 20)
    assert torch.equal(kept.means, big.means[torch.arange(200) % 10 == 3])
    assert strongest(scene, 500) is scene
    hidden = moved(sheet(3), 0.0, 0.0, 1.0)
    wall = Gaussians.concatenate([hidden, sheet(), moved(sheet(), 0.03, 0.03, 0.05), moved(sheet(), 0.05, 0.0, 0.1)])
    seen = strongest(wall, len(wall) - 9, cameras=camera_at(-4.0), rasterizer=load_rasterizer("cpu"))
    assert float(seen.means[:, 2].max()) < 0.5


def test_comparing_a_scene_with_itself_and_with_a_moved_one() -> None:
    scene, rasterizer = sheet(), load_rasterizer("cpu")
    cameras = Cameras(T_world_cam=camera_at(-4.0).T_world_cam, K=camera_at(0).K, width=80, height=80)
    same = compare(scene, scene, cameras, rasterizer)
    assert (same.psnr_db, same.alpha_difference, same.depth_difference) == ((100.0,), 0.0, 0.0)
    behind = compare(scene, moved(scene, 0, 0, 0.4), cameras, rasterizer)
    assert behind.depth_difference == pytest.approx(0.1, abs=0.005)
    assert behind.psnr_db[0] < 40


def test_scenes_that_meet_nowhere_have_no_depth_to_compare() -> None:
    scene = sheet()
    apart = compare(scene, moved(scene, 0, 0, 50.0), camera_at(20.0), load_rasterizer("cpu"))
    assert math.isnan(apart.depth_difference)
    assert len(cameras_around(scene)) == len(compare(scene, scene, cameras_around(scene), load_rasterizer("cpu")).psnr_db)
