"""The surfel prior on a slanted wall whose normal is known."""

from __future__ import annotations

from dataclasses import replace

import polish_capture as capture
import pytest
import torch

from recon.geometry import pixel_grid, quats_to_rotations, rays_cam
from recon.polishing.choices import PolishConfig, PolishOptions
from recon.polishing.polish import begin, finish, optimise
from recon.polishing.surfels import depth_normals, surfel_loss
from recon.records import Cameras, Gaussians

NORMAL = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0]), dim=0)
WIDTH, HEIGHT = 60, 40
CAMERA = Cameras(
    T_world_cam=torch.eye(4)[None],
    K=torch.tensor([[[50.0, 0, WIDTH / 2], [0, 50.0, HEIGHT / 2], [0, 0, 1]]]),
    width=WIDTH,
    height=HEIGHT,
)


def wall_depth() -> torch.Tensor:
    """z-depth of the plane NORMAL . x = -3 at every pixel."""
    rays = rays_cam(pixel_grid(HEIGHT, WIDTH), CAMERA.K[0])
    return -3.0 / (rays @ NORMAL)


def on_the_wall(seed: int = 0) -> Gaussians:
    """Gaussians on the wall, turned anyhow; the last three are behind it, behind the camera, and beside the picture."""
    generator = torch.Generator().manual_seed(seed)
    depth = wall_depth()
    rays = rays_cam(pixel_grid(HEIGHT, WIDTH), CAMERA.K[0])[5:35:6, 5:55:6].reshape(-1, 3)
    means = rays * depth[5:35:6, 5:55:6].reshape(-1, 1)
    means = torch.cat([means, torch.tensor([[0.0, 0, 9], [0.0, 0, -3], [30.0, 0, 3]])])
    count = len(means)
    return Gaussians(
        means=means,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1),
        scales=torch.tensor([[0.1, 0.05, 0.08]]).repeat(count, 1),
        opacities=torch.full((count,), 0.8),
        sh=torch.zeros(count, 1, 3),
    )


def with_gradients(gaussians: Gaussians) -> tuple[torch.Tensor, torch.Tensor, Gaussians]:
    quats, scales = gaussians.quats.clone().requires_grad_(), gaussians.scales.clone().requires_grad_()
    leaves = Gaussians(means=gaussians.means, quats=quats, scales=scales, opacities=gaussians.opacities, sh=gaussians.sh)
    return quats, scales, leaves


def test_normals_of_a_slanted_wall() -> None:
    normals, known = depth_normals(wall_depth(), torch.ones(HEIGHT, WIDTH), CAMERA.K[0])
    assert bool(known[1:-1, 1:-1].all())
    assert not bool(known[0].any() | known[:, 0].any())
    assert torch.allclose((normals[known] @ NORMAL).abs(), torch.ones(int(known.sum())), atol=1e-4)
    step = wall_depth()
    step[:, 30:] *= 2
    assert not bool(depth_normals(step, torch.ones(HEIGHT, WIDTH), CAMERA.K[0])[1][:, 29:31].any())
    assert not bool(depth_normals(wall_depth(), torch.full((HEIGHT, WIDTH), 0.1), CAMERA.K[0])[1].any())


def test_descent_turns_discs_into_the_wall_and_leaves_what_is_not_on_it() -> None:
    start = on_the_wall()
    quats, _, leaves = with_gradients(start)
    for i in range(200):
        loss = surfel_loss(leaves, CAMERA, wall_depth(), torch.ones(HEIGHT, WIDTH))
        (gradient,) = torch.autograd.grad(loss, quats)
        assert torch.equal(gradient[-3:], torch.zeros(3, 4))
        with torch.no_grad():
            quats -= 0.1 * (1 - i / 200) * gradient / gradient.norm(dim=1).max()
            quats /= quats.norm(dim=1, keepdim=True)
    shortest = quats_to_rotations(quats.detach())[:, :, 1]
    assert float((shortest[:-3] @ NORMAL).abs().median()) > 0.999
    before = quats_to_rotations(start.quats)[:, :, 1]
    assert float((before[:-3] @ NORMAL).abs().median()) < 0.9


def test_only_the_smallest_scale_is_drawn_in() -> None:
    _, scales, leaves = with_gradients(on_the_wall())
    loss = surfel_loss(leaves, CAMERA, wall_depth(), torch.ones(HEIGHT, WIDTH))
    (gradient,) = torch.autograd.grad(loss, scales)
    assert bool((gradient[:, 1] > 0).all())
    assert torch.equal(gradient[:, [0, 2]], torch.zeros(len(scales), 2))


def test_with_nothing_drawn_flatness_is_all_that_counts() -> None:
    _, _, leaves = with_gradients(on_the_wall())
    nothing = torch.zeros(HEIGHT, WIDTH)
    assert float(surfel_loss(leaves, CAMERA, nothing, nothing).detach()) == pytest.approx(0.05 * 0.05 / 0.08)


def test_a_camera_elsewhere_sees_the_same_disagreement() -> None:
    """The wall and the camera moved together: the loss is the same."""
    turn = quats_to_rotations(torch.nn.functional.normalize(torch.tensor([0.9, 0.3, -0.2, 0.25]), dim=0))
    shift = torch.tensor([1.0, -2.0, 0.5])
    scene = on_the_wall()
    T_world_cam = torch.eye(4)
    T_world_cam[:3, :3], T_world_cam[:3, 3] = turn, shift
    moved_camera = Cameras(T_world_cam=T_world_cam[None], K=CAMERA.K, width=WIDTH, height=HEIGHT)
    aligned = Gaussians(
        means=scene.means @ turn.T + shift,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(len(scene), 1),
        scales=scene.scales,
        opacities=scene.opacities,
        sh=scene.sh,
    )
    alpha = torch.ones(HEIGHT, WIDTH)
    loss = surfel_loss(aligned, moved_camera, wall_depth(), alpha)
    seen = len(scene) - 3
    axis = turn.T[:, 1]  # the local y axis, shortest, as the camera sees it
    expected = 0.05 * 0.05 / 0.08 + 0.05 * seen / len(scene) * (1 - float((axis @ NORMAL).abs()))
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_a_polish_with_surfels_ends_flatter() -> None:
    cameras = capture.cameras_on_arc(4)
    posed = capture.posed_photos(capture.photos_of(capture.true_scene(), cameras), cameras)
    options = PolishOptions(refine_cameras=False, match_exposure=False, polish_sh=0)
    config = PolishConfig(options=options, schedule=capture.SMALL_STEPS, max_gaussians=400, drop=0.0)

    def flatness(surfels: bool) -> float:
        chosen = replace(config, options=replace(options, surfels=surfels))
        scene = capture.worn(capture.true_scene())
        job = begin(scene, posed, 0.4, chosen, capture.rasterizer(), timer=capture.CountingTimer())
        optimise(job, 1.0)
        ordered = finish(job).gaussians.scales.sort(dim=1).values
        return float((ordered[:, 0] / ordered[:, 1]).median())

    assert flatness(True) < 0.97 * flatness(False)
