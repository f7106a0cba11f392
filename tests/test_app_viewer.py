"""The viewer: what is sent to the browser is the scene, and a real browser draws it."""

from __future__ import annotations

import dataclasses
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.scene_files import median_distance
from app.viewer import SHOWN_DISTANCE, SceneViewer, frustum_size, splat_arrays
from recon.geometry import quats_to_rotations, rgb_to_sh0
from recon.records import Cameras, Gaussians, Rendering, Scene

COLORS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def make_scene(unit: float = 1.0) -> Scene:
    """Four coloured blobs in front of three cameras; ``unit`` is the length of one world unit."""
    means = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]) * unit
    quats = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2, 0.1, 0.0]]).repeat(4, 1), dim=1)
    gaussians = Gaussians(
        means=means,
        quats=quats,
        scales=torch.tensor([[0.5, 0.4, 0.3]]).repeat(4, 1) * unit,
        opacities=torch.tensor([0.95, 0.95, 0.95, 0.2]),
        sh=rgb_to_sh0(COLORS)[:, None],
    )
    T_world_cam = torch.eye(4).repeat(3, 1, 1)
    T_world_cam[:, :3, 3] = torch.tensor([[-1.0, 0.0, -6.0], [0.0, 0.0, -6.0], [1.0, 0.0, -6.0]]) * unit
    K = torch.tensor([[400.0, 0.0, 320.0], [0.0, 400.0, 240.0], [0.0, 0.0, 1.0]]).repeat(3, 1, 1)
    cameras = Cameras(T_world_cam=T_world_cam, K=K, width=(640,) * 3, height=(480,) * 3, names=("a.jpg", "b.jpg", "c.jpg"))
    return Scene(gaussians=gaussians, cameras=cameras, provenance={"folder": "/somewhere/blobs"})


@pytest.fixture
def viewer() -> Iterator[SceneViewer]:
    made = SceneViewer(port=8190)
    yield made
    made.stop()


def test_covariances_have_the_right_axes_and_lengths() -> None:
    gaussians = make_scene().gaussians
    arrays = splat_arrays(gaussians, scale=2.0)
    R_world_local = quats_to_rotations(gaussians.quats).numpy()
    for index in range(4):
        for axis in range(3):
            direction = R_world_local[index, :, axis]
            variance = direction @ arrays.covariances[index] @ direction
            assert variance == pytest.approx((2.0 * float(gaussians.scales[index, axis])) ** 2, rel=1e-5)
    np.testing.assert_allclose(arrays.rgbs, COLORS.numpy(), atol=1e-6)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 500.0])
def test_shown_size_does_not_depend_on_the_unit(unit: float) -> None:
    scene = make_scene(unit)
    scale = SHOWN_DISTANCE / median_distance(scene)
    arrays = splat_arrays(scene.gaussians, scale)
    usual = splat_arrays(make_scene().gaussians, SHOWN_DISTANCE / median_distance(make_scene()))
    np.testing.assert_allclose(arrays.covariances, usual.covariances, rtol=1e-4)
    half = arrays.covariances.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(half, arrays.covariances, rtol=1e-2, atol=1e-6)
    assert scene.cameras is not None
    assert 0.01 * SHOWN_DISTANCE <= frustum_size(scene.cameras, scale) <= 0.12 * SHOWN_DISTANCE


def test_the_opacity_slider_keeps_the_opaque_ones() -> None:
    arrays = splat_arrays(make_scene().gaussians, 1.0)
    assert len(arrays.above(0.0).centers) == 4
    assert len(arrays.above(0.5).centers) == 3
    assert len(arrays.above(0.99).centers) == 3  # never nothing


def test_it_serves_the_scene_on_this_machine_only(viewer: SceneViewer) -> None:
    viewer.show(make_scene())
    assert viewer.server.get_host() == "127.0.0.1"
    with urllib.request.urlopen(viewer.url, timeout=10) as answer:
        assert b"<html" in answer.read().lower()
    assert len(viewer.frusta) == 3
    assert not any(frustum.visible for frustum in viewer.frusta)  # the visitor looks through the first one
    behind = np.array([0.0, 0.0, -viewer.frustum_side])
    viewer._on_move(SimpleNamespace(position=viewer.frusta[0].position + 0.1 * behind))
    assert not any(frustum.visible for frustum in viewer.frusta)
    viewer._on_move(SimpleNamespace(position=viewer.frusta[0].position + 2.0 * behind))
    assert all(frustum.visible for frustum in viewer.frusta)
    splats = viewer.server.scene.get_handle_by_name("/splats")
    assert splats is not None
    assert splats.buffer.shape[0] == 4
    first = viewer.server.initial_camera
    assert first.position[2] < first.look_at[2]
    np.testing.assert_allclose(first.up, [0.0, -1.0, 0.0], atol=1e-6)


def test_another_scene_replaces_the_first(viewer: SceneViewer) -> None:
    viewer.show(make_scene())
    scene = make_scene()
    assert scene.cameras is not None
    viewer.show(
        dataclasses.replace(scene, gaussians=scene.gaussians.select(torch.tensor([0, 1])), cameras=scene.cameras.select([1]))
    )
    assert len(viewer.frusta) == 1
    assert viewer.server.scene.get_handle_by_name("/splats").buffer.shape[0] == 2
    viewer.show(dataclasses.replace(scene, cameras=None))
    assert viewer.frusta == []


def test_frusta_carry_the_photo_or_else_the_rendering(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (640, 480), (10, 200, 30)).save(tmp_path / "a.jpg")

    def white(gaussians, cameras, options) -> Rendering:
        plane = torch.ones(1, cameras.height[0], cameras.width[0])
        return Rendering(color=plane[..., None].expand(-1, -1, -1, 3), alpha=plane, depth=plane)

    viewer = SceneViewer(port=8191, rasterizer=white)
    try:
        scene = make_scene()
        viewer.show(dataclasses.replace(scene, provenance={**scene.provenance, "photos": tmp_path}))
        pictures = [np.asarray(frustum.image) for frustum in viewer.frusta]
    finally:
        viewer.stop()
    assert np.abs(pictures[0].mean((0, 1)) - [10, 200, 30]).max() < 8
    assert pictures[1].min() == 255
    assert pictures[1].shape[:2] == (120, 160)


def color_masks(picture: np.ndarray) -> list[np.ndarray]:
    """Pixels that are clearly red, green, blue."""
    channels = np.moveaxis(picture.astype(int), -1, 0)
    return [channels[i] - np.maximum(channels[(i + 1) % 3], channels[(i + 2) % 3]) > 60 for i in range(3)]


@pytest.mark.browser
def test_a_browser_draws_the_splats(viewer: SceneViewer) -> None:
    from browser import Browser

    viewer.show(make_scene())
    with Browser(900, 700) as tab:
        tab.open(viewer.url)
        tab.wait_for("document.querySelector('canvas') !== null")
        deadline = time.monotonic() + 60
        red = green = blue = np.zeros(1)
        while time.monotonic() < deadline and min(red.sum(), green.sum(), blue.sum()) < 200:
            red, green, blue = color_masks(tab.picture())
    assert min(red.sum(), green.sum(), blue.sum()) >= 200
    rows = [np.median(np.nonzero(mask)[0]) for mask in (red, blue)]
    columns = [np.median(np.nonzero(mask)[1]) for mask in (red, green)]
    assert rows[0] < rows[1], "red is above blue: world y points down"
    assert columns[0] < columns[1], "red is left of green"
