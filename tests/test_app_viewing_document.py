"""Edits of the viewer: undo is exact, the ground becomes level, lengths become metres, what is saved is what was shown."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from viewer_scenes import make_scene

from app.mesh_command import known_length
from app.scene_files import load_scene
from app.viewing.document import Box, Document
from app.viewing.page_frame import PageFrame
from app.viewing.picking import pick
from app.viewing.saving import save_edited
from app.viewing.splats import SHOWN_DISTANCE
from app.viewing.thinning import keeping_probability, thinned
from recon.editing import compare
from recon.errors import UserError
from recon.geometry import rgb_to_sh0
from recon.records import Gaussians, Scene
from render.rasterizer import load_rasterizer


def wall(count: int = 4000, depth: float = 5.0) -> Gaussians:
    """A dense wall at z = ``depth`` with a few large Gaussians behind."""
    generator = torch.Generator().manual_seed(1)
    means = torch.rand(count, 3, generator=generator) * torch.tensor([8.0, 8.0, 0.0]) - torch.tensor([4.0, 4.0, -depth])
    scales = torch.full((count, 3), 0.12)
    scales[:, 2] = 0.01
    means[:10, 2] += 3.0
    scales[:10] = 2.0
    colors = torch.rand(count, 3, generator=generator)
    return Gaussians(
        means=means,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=scales,
        opacities=torch.full((count,), 0.9),
        sh=rgb_to_sh0(colors)[:, None],
    )


def test_undo_brings_back_exactly_what_was_there() -> None:
    document = Document(make_scene())
    told = []
    stop = document.on_change(lambda: told.append(len(document.gaussians)))
    assert document.remove("first", torch.tensor([True, False, False, False])) == 1
    assert document.remove("second", torch.tensor([False, False, True])) == 1
    assert torch.equal(document.gaussians.means, make_scene().gaussians.means[1:3])
    assert document.history == ("first: 1 Gaussians", "second: 1 Gaussians")
    assert document.undo() == "second: 1 Gaussians"
    assert torch.equal(document.gaussians.means, make_scene().gaussians.means[1:])
    document.undo()
    assert document.gaussians is document.scene.gaussians
    assert document.undo() is None
    stop()
    document.remove("unheard", torch.tensor([True, False, False, False]))
    assert told == [3, 2, 3, 4]


def test_everything_cannot_be_removed() -> None:
    document = Document(make_scene())
    with pytest.raises(UserError, match="Nothing would be left"):
        document.remove("all", torch.ones(4, dtype=torch.bool))
    assert document.remove("none", torch.zeros(4, dtype=torch.bool)) == 0
    assert document.history == ()


def test_three_points_of_the_ground_say_where_up_is() -> None:
    document = Document(make_scene())
    tilt = math.radians(20.0)
    level = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, -1.0], [-2.0, 0.0, 0.5]])
    R = torch.tensor([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    points = level @ R.T + torch.tensor([0.0, 3.0, 0.0])  # y points down: below the cameras
    document.set_ground(points)
    turned = points.double() @ document.step.R_page_world.T
    assert torch.allclose(turned[:, 1], turned[0, 1].expand(3), atol=1e-5)
    assert float(turned[0, 1]) == pytest.approx(document.step.ground)
    cameras = document.cameras.centers_world.double() @ document.step.R_page_world.T
    assert bool((cameras[:, 1] < turned[0, 1]).all())  # the cameras are above
    saved = document.edited()
    assert saved.cameras is not None
    assert bool((saved.cameras.centers_world[:, 1] < 0).all())  # the ground lies at y = 0
    document.undo()
    assert torch.equal(document.step.R_page_world, torch.eye(3, dtype=torch.float64))


def test_points_on_a_line_are_no_ground() -> None:
    with pytest.raises(UserError, match="on a line"):
        Document(make_scene()).set_ground(torch.tensor([[0.0, 0, 0], [1.0, 1, 1], [2.0, 2, 2]]))


def test_a_known_length_makes_metres_and_is_saved(tmp_path: Path) -> None:
    document = Document(make_scene())
    document.set_length(2.0, 1.0)  # two units are one metre
    document.remove("crop", torch.tensor([False, False, False, True]))
    target = save_edited(document, tmp_path)
    saved = load_scene(target)
    assert torch.allclose(saved.gaussians.means, 0.5 * make_scene().gaussians.means[:3], atol=1e-6)
    assert torch.allclose(saved.gaussians.scales, 0.5 * make_scene().gaussians.scales[:3], rtol=1e-5)
    assert known_length(saved) == 1.0
    again = Document(saved)
    assert again.step.metres_per_unit == 1.0
    with pytest.raises(UserError):
        document.set_length(0.0, 1.0)


def test_turning_and_scaling_leaves_what_the_cameras_see(tmp_path: Path) -> None:
    document = Document(make_scene())
    document.set_ground(torch.tensor([[0.0, 2.0, 0.0], [1.0, 2.2, 0.0], [0.0, 2.1, 1.0]]))
    document.set_length(1.0, 3.0)
    saved = load_scene(save_edited(document, tmp_path))
    assert saved.cameras is not None
    draw = load_rasterizer("cpu")
    before, after = make_scene(), saved
    assert before.cameras is not None
    first = draw(before.gaussians, before.cameras.select([1])).color
    second = draw(after.gaussians, after.cameras.select([1])).color
    assert float((first - second).abs().max()) < 2e-3


def test_a_turned_box_holds_what_lies_within() -> None:
    angle = math.radians(45.0)
    R = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]])
    box = Box(center_world=torch.zeros(3), R_world_box=R, size=torch.tensor([2.0, 2.0, 2.0]))
    points = torch.tensor([[1.3, 0.0, 0.0], [0.9, 0.9, 0.0], [0.0, 0.0, 1.1], [0.5, 0.5, 0.9]])
    assert box.inside(points).tolist() == [True, False, False, True]


@pytest.mark.parametrize("turned", [False, True])
def test_a_click_finds_the_surface(turned: bool) -> None:
    gaussians = wall()
    R = torch.eye(3, dtype=torch.float64)[[2, 0, 1]] if turned else torch.eye(3, dtype=torch.float64)
    frame = PageFrame(scale=3.0, R_page_world=R)
    origin = frame.to_page(torch.zeros(3))
    direction = frame.to_page(torch.tensor([0.1, -0.2, 1.0])) - origin
    found = pick(gaussians, load_rasterizer("cpu"), frame, origin, direction, 300.0)
    assert found is not None
    assert torch.allclose(found.float(), torch.tensor([0.5, -1.0, 5.0]), atol=0.05)
    assert pick(gaussians, load_rasterizer("cpu"), frame, origin, -direction, 300.0) is None


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_thinned_gaussians_look_like_all(share: float) -> None:
    from recon.records import Cameras

    gaussians = wall()
    K = torch.tensor([[[60.0, 0.0, 48.0], [0.0, 60.0, 48.0], [0.0, 0.0, 1.0]]])
    camera = Cameras(T_world_cam=torch.eye(4)[None], K=K, width=(96,), height=(96,))
    fewer = thinned(gaussians, share)
    assert len(fewer) == pytest.approx(share * len(gaussians), rel=0.1)
    plain = gaussians.select(torch.randperm(len(gaussians), generator=torch.Generator().manual_seed(3))[: len(fewer)])
    draw = load_rasterizer("cpu")
    kept = compare(gaussians, fewer, camera, draw)
    dropped = compare(gaussians, plain, camera, draw)
    assert kept.psnr_db[0] > dropped.psnr_db[0]
    assert kept.alpha_difference <= dropped.alpha_difference
    large = keeping_probability(gaussians, share)[:10]
    assert bool((large == 1).all())  # what covers much stays as it is


def test_smaller_sets_are_parts_of_larger_ones() -> None:
    gaussians = wall()
    few, more = (set(map(tuple, thinned(gaussians, share).means.tolist())) for share in (0.1, 0.3))
    assert few <= more
    assert thinned(gaussians, 1.0) is gaussians


@pytest.mark.parametrize("unit", [1e-3, 500.0])
def test_the_page_shows_every_unit_alike(unit: float) -> None:
    document = Document(make_scene(unit))
    assert document.scale * float(make_scene(unit).gaussians.means.abs().max()) < 3 * SHOWN_DISTANCE
    points = torch.randn(5, 3, dtype=torch.float64) * unit
    assert torch.allclose(document.frame.to_world(document.frame.to_page(points)), points)


def test_a_scene_without_cameras_can_be_edited_and_saved(tmp_path: Path) -> None:
    document = Document(Scene(gaussians=make_scene().gaussians))
    document.remove("crop", torch.tensor([True, False, False, False]))
    saved = load_scene(save_edited(document, tmp_path))
    assert len(saved.gaussians) == 3
    assert saved.cameras is None
