"""Invariants of projection, rotation and resizing."""

import pytest
import torch

from recon.geometry import (
    backproject,
    pixel_grid,
    project,
    quats_to_rotations,
    rgb_to_sh0,
    rotations_to_quats,
    sample_image,
    sh0_to_rgb,
    transform,
)
from recon.records import Cameras, Gaussians

FLOAT32_PX = 1e-3
"""Pixel error that float32 leaves after a projection at a few hundred pixels."""


def one_camera(width: int = 64, height: int = 48) -> Cameras:
    K = torch.tensor([[[70.0, 0, 30.5], [0, 65.0, 22.25], [0, 0, 1]]])
    quat = torch.nn.functional.normalize(torch.tensor([[0.9, 0.1, -0.3, 0.2]]), dim=-1)
    T = torch.eye(4)[None].clone()
    T[:, :3, :3] = quats_to_rotations(quat)
    T[:, :3, 3] = torch.tensor([0.3, -1.0, 2.0])
    return Cameras(T_world_cam=T, K=K, width=width, height=height)


def test_project_undoes_backproject():
    camera = one_camera()
    depth = torch.rand(48, 64) * 5 + 0.5
    pixels, z = project(backproject(depth, camera.K[0]), camera.K[0])
    assert torch.allclose(pixels, pixel_grid(48, 64), atol=FLOAT32_PX)
    assert torch.allclose(z, depth)


def test_resize_commutes_with_projection():
    camera = one_camera()
    resized = camera.resized(96, 36)
    points = torch.rand(100, 3) + torch.tensor([-0.5, -0.5, 2.0])
    before, _ = project(points, camera.K[0])
    after, _ = project(points, resized.K[0])
    assert torch.allclose(before * torch.tensor([96 / 64, 36 / 48]), after, atol=FLOAT32_PX)


def test_world_and_camera_transforms_are_inverse():
    camera = one_camera()
    points = torch.randn(50, 3)
    back = transform(camera.T_cam_world[0], transform(camera.T_world_cam[0], points))
    assert torch.allclose(back, points, atol=1e-5)


def test_quaternions_round_trip_near_every_pivot():
    generator = torch.Generator().manual_seed(0)
    quats = torch.nn.functional.normalize(torch.randn(500, 4, generator=generator, dtype=torch.float64), dim=-1)
    special = torch.cat([torch.eye(4, dtype=torch.float64), quats])
    special = torch.where(special[:, :1] < 0, -special, special)
    assert torch.allclose(
        quats_to_rotations(rotations_to_quats(quats_to_rotations(special))), quats_to_rotations(special), atol=1e-12
    )


def test_sampling_at_pixel_centres_reads_the_pixel():
    image = torch.rand(9, 13, 3)
    assert torch.allclose(sample_image(image, pixel_grid(9, 13)), image, atol=1e-5)


def test_sh0_round_trip():
    rgb = torch.rand(10, 3)
    assert torch.allclose(sh0_to_rgb(rgb_to_sh0(rgb)), rgb, atol=1e-6)


def test_records_name_the_field_that_is_wrong():
    with pytest.raises(Exception, match="quats"):
        Gaussians(
            means=torch.zeros(2, 3),
            quats=torch.zeros(3, 4),
            scales=torch.ones(2, 3),
            opacities=torch.ones(2),
            sh=torch.zeros(2, 1, 3),
        )
    with pytest.raises(Exception, match="sh"):
        Gaussians(
            means=torch.zeros(2, 3),
            quats=torch.zeros(2, 4),
            scales=torch.ones(2, 3),
            opacities=torch.ones(2),
            sh=torch.zeros(2, 5, 3),
        )


def test_concatenate_pads_sh():
    def some(k: int) -> Gaussians:
        return Gaussians(
            means=torch.zeros(2, 3),
            quats=torch.ones(2, 4) / 2,
            scales=torch.ones(2, 3),
            opacities=torch.ones(2) / 2,
            sh=torch.ones(2, k, 3),
        )

    joined = Gaussians.concatenate([some(1), some(4)])
    assert len(joined) == 4
    assert joined.sh_degree == 1
    assert float(joined.sh[:2, 1:].abs().sum()) == 0
