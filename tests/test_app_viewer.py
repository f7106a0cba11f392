"""The viewer: what is sent to the browser is the scene, and a real browser draws it, in either way."""

from __future__ import annotations

import dataclasses
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import viser
from viewer_page import Page, wait_until
from viewer_scenes import COLORS, make_scene

from app.scene_files import median_distance
from app.viewer import SceneViewer
from app.viewing.nodes import frustum_size
from app.viewing.splats import SHOWN_DISTANCE, splat_arrays
from app.viewing.visitor import Visitor
from recon.geometry import quats_to_rotations
from recon.records import RasterOptions
from render.rasterizer import load_rasterizer

from browser import Browser

CLOSE = 0.2
"""Mean difference of two pictures of one view, as a share of their brightness: JPEG, and the browser's way of blending."""


@pytest.fixture
def viewer() -> Iterator[SceneViewer]:
    made = SceneViewer(port=0, rasterizer=load_rasterizer("cpu"))
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


def test_it_serves_the_scene_on_this_machine_only(viewer: SceneViewer) -> None:
    viewer.show(make_scene())
    assert viewer.server.get_host() == "127.0.0.1"
    with urllib.request.urlopen(viewer.url, timeout=10) as answer:
        assert b"<html" in answer.read().lower()
    first = viewer.server.initial_camera
    assert first.position[2] < first.look_at[2]
    np.testing.assert_allclose(first.up, [0.0, -1.0, 0.0], atol=1e-6)


def test_frusta_come_when_the_visitor_leaves_the_camera(viewer: SceneViewer) -> None:
    viewer.show(make_scene())
    with Page(viewer.server.get_port()) as page:
        page.control("Screenshot")
        side = next(iter(viewer.visitors.values())).nodes.side
        page.move((0.0, 0.0, -0.1 * side))
        page.move((0.0, 0.0, -2.0 * side))
        wait_until(lambda: "/cameras/0002" in page.nodes)
        assert all(page.nodes[f"/cameras/000{index}"]["visible"] for index in range(3))
        page.key("Next photo")
        wait_until(lambda: not page.nodes["/cameras/0000"]["visible"])
        page.set("Cameras", False)
        page.move((0.0, 0.0, -5.0 * side))
        time.sleep(0.3)
        assert not page.nodes["/cameras/0000"]["visible"]


def test_frusta_go_when_news_of_an_earlier_place_came_late(viewer: SceneViewer) -> None:
    viewer.show(make_scene())
    with Page(viewer.server.get_port()) as page:
        page.control("Screenshot")
        page.move((0.0, 0.0, 0.0))
        page.move((-5.0, 0.0, 0.0))
        wait_until(lambda: "/cameras/0002" in page.nodes and page.nodes["/cameras/0000"]["visible"])
        page.move((5.0, 0.0, 0.0))
        wait_until(lambda: not any(page.nodes[f"/cameras/000{index}"]["visible"] for index in range(3)))


def test_frusta_wanted_by_two_events_at_once_are_made_once(viewer: SceneViewer, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer.show(make_scene())
    with Page(viewer.server.get_port()) as page:
        page.control("Screenshot")
        visitor = next(iter(viewer.visitors.values()))
        made: list[str] = []
        add = visitor.client.scene.add_camera_frustum

        def slow_add(name: str, **fields: Any) -> viser.CameraFrustumHandle:
            made.append(name)
            time.sleep(0.02)
            return add(name, **fields)

        monkeypatch.setattr(visitor.client.scene, "add_camera_frustum", slow_add)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(visitor.nodes.show_frusta, [True] * 4))
        assert sorted(made) == [f"/cameras/000{index}" for index in range(3)]


def test_frusta_carry_the_photo_or_else_the_rendering(tmp_path: Path) -> None:
    from PIL import Image

    for name, color in (("a.jpg", (10, 200, 30)), ("b.jpg", (200, 10, 30))):
        noise = np.random.default_rng(len(name)).integers(0, 2, (480, 640, 3))
        Image.fromarray((np.array(color) + noise).astype(np.uint8)).save(tmp_path / name)
    scene = make_scene()
    viewer = SceneViewer(port=0, rasterizer=load_rasterizer("cpu"))
    try:
        viewer.show(dataclasses.replace(scene, provenance={**scene.provenance, "photos": tmp_path}))
        assert viewer.stage is not None
        pictures = viewer.stage.photos.thumbnails
        wait_until(lambda: all(picture is not None for picture in pictures))
        photo = viewer.stage.photos.photo(1)
        assert viewer.stage.photos.photo(2) is None
    finally:
        viewer.stop()
    first, last = pictures[0], pictures[2]
    assert first is not None
    assert last is not None
    assert np.abs(first.mean((0, 1)) - [10, 200, 30]).max() < 8
    assert last.shape[:2] == (120, 160)
    assert last.std() > 10
    assert photo is not None
    assert np.abs(photo.pixels.mean((0, 1)) - [200, 10, 30]).max() < 8


def free_part(picture: np.ndarray) -> np.ndarray:
    """What neither notes on the left nor the panel on the right can cover."""
    width = picture.shape[1]
    return picture[:, round(0.25 * width) : round(0.7 * width)].astype(np.float64)


def wanted_picture(viewer: SceneViewer, visitor: Visitor, width: int, height: int) -> np.ndarray:
    """The free part of what our rasteriser draws from where a visitor is."""
    assert viewer.stage is not None
    camera = visitor.eye.sized(width, height).cameras(viewer.stage.document.frame)
    with torch.no_grad():
        drawn = load_rasterizer("cpu")(make_scene().gaussians, camera, RasterOptions()).color[0]
    return free_part(drawn.clamp(0, 1).numpy() * 255)


def difference_seen(viewer: SceneViewer, tab: Browser, by_server: bool, known: int = -1) -> float:
    """Wait until a page shows the scene to a visitor who came after ``known``; mean difference, as a share of the brightness."""
    deadline, difference = time.monotonic() + 90, np.inf
    while time.monotonic() < deadline and difference >= CLOSE:
        tab.evaluate("[...document.querySelectorAll('button')].find(one => one.innerText.trim() == 'Go on')?.click()")
        came = [visitor for number, visitor in tuple(viewer.visitors.items()) if number > known]
        if not came:  # the connection broke on a busy machine; the page connects again
            time.sleep(0.2)
            continue
        visitor = came[-1]
        if visitor.by_server != by_server:
            visitor.by_server = by_server
            visitor.update()
        picture = tab.picture()
        wanted = wanted_picture(viewer, visitor, picture.shape[1], picture.shape[0])
        assert wanted.std() > 20
        difference = np.abs(free_part(picture) - wanted).mean() / wanted.mean()
    return float(difference)


STATE = """JSON.stringify({visible: document.visibilityState, window: [innerWidth, innerHeight], canvases:
    [...document.querySelectorAll('canvas')].map(one => [one.width, one.height, one.getContext('webgl2')?.isContextLost()]),
    says: document.body.innerText.slice(0, 400)})"""
"""What to know of a page that shows something else."""
GREETED = "[...document.querySelectorAll('button')].some(button => button.innerText.trim() == 'Go on')"


@pytest.mark.browser
@pytest.mark.parametrize("by_server", [False, True])
def test_a_browser_shows_what_our_rasteriser_draws(viewer: SceneViewer, by_server: bool) -> None:
    viewer.show(make_scene())
    with Browser(1500, 700) as tab:
        tab.open(viewer.url)
        tab.wait_for(GREETED)
        difference = difference_seen(viewer, tab, by_server)
        asked = tab.evaluate("JSON.stringify(performance.getEntriesByType('resource').map(entry => entry.name))")
        assert difference < CLOSE, tab.evaluate(STATE)
    assert asked_elsewhere(str(asked)) == []


@pytest.mark.browser
def test_a_page_that_lost_its_connection_comes_back_without_a_click(viewer: SceneViewer) -> None:
    viewer.show(make_scene())
    with Browser(1500, 700) as tab:
        tab.open(viewer.url)
        tab.wait_for(GREETED)
        known = max(viewer.visitors, default=0)
        viewer.server._websock_server.disconnect_all_clients()
        assert difference_seen(viewer, tab, True, known) < CLOSE


def asked_elsewhere(entries: str) -> list[str]:
    """Addresses that a page asked and that are not on this machine."""
    import json
    from urllib.parse import urlsplit

    named = [urlsplit(entry) for entry in json.loads(entries)]
    return [entry.geturl() for entry in named if entry.scheme in ("http", "https", "ws", "wss") and entry.hostname != "127.0.0.1"]
