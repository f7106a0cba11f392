"""What visitors see and do: pictures from the server, splats for the browser, tools of the panel; each visitor on its own."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from viewer_page import Page, wait_until
from viewer_scenes import make_scene

from app.scene_files import load_scene
from app.viewer import SceneViewer
from recon.records import RasterOptions, Scene
from render.rasterizer import load_rasterizer

SMALL = {"width": 160, "height": 120}


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[SceneViewer]:
    made = SceneViewer(port=0, rasterizer=load_rasterizer("cpu"))
    scene = make_scene()
    made.show(dataclasses.replace(scene, provenance={"folder": str(tmp_path / "blobs")}))
    yield made
    made.stop()


@pytest.fixture
def page(viewer: SceneViewer) -> Iterator[Page]:
    with Page(viewer.server.get_port(), **SMALL) as made:
        made.control("Screenshot")
        wait_until(lambda: "/splats" in made.nodes)
        yield made


def drawn_by_server(page: Page) -> np.ndarray:
    page.set("Drawn", "on the server")
    wait_until(lambda: len(page.pictures) > 1)
    return page.settled()


def test_the_first_view_is_the_first_camera(viewer: SceneViewer, page: Page) -> None:
    scene = make_scene()
    assert scene.cameras is not None
    assert viewer.stage is not None
    scale = viewer.stage.document.scale
    wait_until(lambda: np.allclose(page.position, [-scale, 0, -6 * scale]))
    assert page.fov == pytest.approx(2 * np.arctan(240 / 400), rel=1e-4)
    assert page.count("/splats") == 4
    assert "/cameras/0000" not in page.nodes  # the visitor looks through the first one


def test_the_server_draws_what_our_rasteriser_draws(viewer: SceneViewer, page: Page) -> None:
    picture = drawn_by_server(page)
    scene = make_scene()
    assert scene.cameras is not None
    camera = scene.cameras.select([0]).resized(160, 120)
    with torch.no_grad():
        wanted = load_rasterizer("cpu")(scene.gaussians, camera, RasterOptions()).color[0].clamp(0, 1).numpy() * 255
    assert picture.shape == (120, 160, 3)
    assert np.abs(picture - wanted).mean() < 4.0  # JPEG
    wait_until(lambda: "/splats" not in page.nodes)


def test_it_follows_the_visitor(page: Page) -> None:
    before = drawn_by_server(page)
    page.move((0.5, 0.0, 0.0))
    count = len(page.pictures)
    wait_until(lambda: len(page.pictures) > count)
    after = page.settled()
    columns = [np.average(np.arange(160), weights=picture[..., 0].sum(0) + 1e-9) for picture in (before, after)]
    assert columns[1] < columns[0] - 2  # the camera went right, the scene goes left


@pytest.mark.parametrize("what", ["depth", "normals", "coverage"])
def test_other_pictures_come_from_the_server(page: Page, what: str) -> None:
    count = len(page.pictures)
    page.set("Show", what)
    wait_until(lambda: len(page.pictures) > count)
    picture = page.settled()
    assert picture.shape == (120, 160, 3)
    assert picture.std() > 10
    page.set("Show", "colour")
    wait_until(lambda: "/splats" in page.nodes)


def test_faint_gaussians_are_hidden_in_either_way(page: Page) -> None:
    page.set("Hide fainter than", 0.5)
    wait_until(lambda: page.count("/splats") == 3)
    picture = drawn_by_server(page)
    page.set("Hide fainter than", 0.0)
    count = len(page.pictures)
    wait_until(lambda: len(page.pictures) > count)
    assert np.abs(page.settled().astype(int) - picture).max() > 20


def test_background_and_points(page: Page) -> None:
    page.set("Background", (0, 128, 255))
    wait_until(lambda: np.abs(page.picture()[0, 0] - np.array([0, 128, 255])).max() < 4)
    corner = drawn_by_server(page)[0, 0]
    assert np.abs(corner - np.array([0, 128, 255])).max() < 12
    page.set("Points", True)
    wait_until(lambda: "/points" in page.nodes)
    assert page.count("/points") == 4


def test_each_visitor_has_a_view_and_a_mode_of_its_own(viewer: SceneViewer, page: Page) -> None:
    with Page(viewer.server.get_port(), width=96, height=96) as other:
        other.control("Screenshot")
        wait_until(lambda: "/splats" in other.nodes)
        other.move((0.0, 0.0, -4.0))
        mine = drawn_by_server(page)
        assert "/splats" in other.nodes
        assert np.ptp(other.picture()) == 0  # a flat background behind the browser's own splats
        theirs = drawn_by_server(other)
        assert mine.shape == (120, 160, 3)
        assert theirs.shape == (96, 96, 3)
        assert len(viewer.visitors) == 2
    wait_until(lambda: len(viewer.visitors) == 1)


def start_measuring(page: Page) -> None:
    page.press("Measure")
    wait_until(lambda: page.control("Measure")[1]["label"].startswith("Click 2 points"))


def test_measure_two_points_and_say_how_long_that_is(viewer: SceneViewer, page: Page) -> None:
    assert viewer.stage is not None
    start_measuring(page)
    page.click(82, 40)
    wait_until(lambda: "/marks/0" in page.nodes)
    page.click(82, 80)
    wait_until(lambda: "/lengths/0/label" in page.nodes)
    assert page.nodes["/lengths/0/label"]["props"]["text"].endswith(" units")
    units = float(page.nodes["/lengths/0/label"]["props"]["text"].split()[0])
    assert 1.0 < units < 3.0  # the blobs are 2 apart, the clicks within them
    page.set("It really is", 50.0)
    page.set("Unit", "cm")
    page.press("Set the scale")
    wait_until(lambda: page.nodes.get("/lengths/0/label", {}).get("props", {}).get("text") == "50.00 cm")
    assert viewer.stage.document.step.metres_per_unit == pytest.approx(0.5 / units, rel=1e-3)


def test_a_click_beside_everything_says_so(page: Page) -> None:
    start_measuring(page)
    page.click(2, 2)
    wait_until(lambda: any("Nothing is there" in note for note in page.notes))
    assert "/marks/0" not in page.nodes


def test_crop_undo_save(viewer: SceneViewer, page: Page, tmp_path: Path) -> None:
    assert viewer.stage is not None
    document = viewer.stage.document
    page.set("Crop box", True)
    wait_until(lambda: "/crop" in page.nodes)
    page.set("Crop box", False)
    wait_until(lambda: page.count("/splats") == 4)
    document.remove("crop", torch.tensor([True, False, False, False]))
    wait_until(lambda: page.count("/splats") == 3)
    page.press("Save the edited scene")
    wait_until(lambda: (tmp_path / "blobs" / "edited" / "scene.ply").is_file())
    saved = load_scene(tmp_path / "blobs" / "edited")
    assert len(saved.gaussians) == 3
    assert saved.cameras is not None
    assert saved.cameras.names == ("a.jpg", "b.jpg", "c.jpg")
    assert saved.provenance["report"]["edits"] == ["crop: 1 Gaussians"]
    page.press("Undo")
    wait_until(lambda: page.count("/splats") == 4)
    assert document.history == ()


def test_the_crop_box_keeps_what_lies_within(viewer: SceneViewer, page: Page) -> None:
    assert viewer.stage is not None
    document = viewer.stage.document
    page.set("Crop box", True)
    wait_until(lambda: "/crop/box" in page.nodes)
    side = document.scale
    page.set("Box sides", (side, side, side))
    corner = [-document.scale, -document.scale, 0.0]  # where the red blob is
    owner = page.nodes["/crop"]["owner"]
    page.send("TransformControlsUpdateMessage", name="/crop", wxyz=[1.0, 0.0, 0.0, 0.0], position=corner, owner=owner)
    visitor = next(iter(viewer.visitors.values()))
    wait_until(lambda: len(visitor.painter.sets.get(visitor.look, 1.0)) == 1)  # the others are hidden at once
    wait_until(lambda: "/splats" not in page.nodes)  # the server draws meanwhile: it need not send splats at every drag
    assert len(document.gaussians) == 4
    page.set("Keep", "inside")
    wait_until(lambda: len(document.gaussians) == 1)
    assert torch.equal(document.gaussians.means, make_scene().gaussians.means[:1])
    wait_until(lambda: "/crop" not in page.nodes)
    page.key("Undo")
    wait_until(lambda: page.count("/splats") == 4)


def test_what_the_sliders_hide_can_be_removed(viewer: SceneViewer, page: Page) -> None:
    assert viewer.stage is not None
    stage = viewer.stage
    page.set("Seen by at least", 3)
    wait_until(lambda: stage.painter.sets.seen is not None)
    assert stage.painter.sets.seen is not None
    assert stage.painter.sets.seen.tolist() == [3, 3, 3, 3]
    page.set("Hide fainter than", 0.5)
    page.press("Remove what is hidden")
    wait_until(lambda: len(stage.document.gaussians) == 3)
    assert stage.document.history == ("hidden removed: 1 Gaussians",)


def test_setting_the_ground_turns_the_scene_under_the_visitor(viewer: SceneViewer, page: Page) -> None:
    assert viewer.stage is not None
    document = viewer.stage.document
    before = drawn_by_server(page)
    page.press("Set the ground")
    wait_until(lambda: page.control("Set the ground")[1]["label"].startswith("Click 3 points"))
    for count, (x, y) in enumerate(((82, 40), (82, 80), (114, 40))):
        page.click(x, y)
        wait_until(lambda count=count: f"/marks/{count}" in page.nodes or bool(document.history))
    wait_until(lambda: document.history == ("ground set",))
    up = document.step.R_page_world.T @ torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    assert float(up[2]) < -0.9  # the blobs stand in a plane that faces the cameras
    count = len(page.pictures)
    wait_until(lambda: len(page.pictures) > count)
    assert np.abs(page.settled().astype(int) - before).mean() < 6  # the eye turned along


def test_a_screenshot_is_what_our_rasteriser_draws(page: Page) -> None:
    page.key("Screenshot")
    wait_until(lambda: bool(page.files))
    wait_until(lambda: len(page.files[0][1]) > 100)
    name, content = page.files[0]
    assert name == "blobs.png"
    shot = np.asarray(Image.open(io.BytesIO(content)))
    assert shot.shape == (120, 160, 3)
    assert np.abs(shot.astype(int) - drawn_by_server(page)).mean() < 4.0


def test_a_path_with_key_frames_becomes_a_video(page: Page, tmp_path: Path) -> None:
    import cv2

    page.set("Seconds", 0.5)
    page.press("Render the video")
    wait_until(lambda: any("two key frames" in note for note in page.notes))
    page.key("Add a key frame here")
    wait_until(lambda: "/path/0" in page.nodes)
    page.move((1.0, 0.0, 0.0))
    page.key("Add a key frame here")
    wait_until(lambda: "/path/1" in page.nodes)
    page.set("Size", "854 x 480")
    page.press("Render the video")
    wait_until(lambda: bool(page.files) and len(page.files[0][1]) > 1000)
    (tmp_path / "path.mp4").write_bytes(page.files[0][1])
    video = cv2.VideoCapture(str(tmp_path / "path.mp4"))
    frames = []
    while (frame := video.read())[0]:
        frames.append(frame[1])
    video.release()
    assert len(frames) == 15
    assert frames[0].shape == (480, 854, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1


def test_the_hint_is_shown_once_per_browser(viewer: SceneViewer) -> None:
    with Page(viewer.server.get_port(), hint_seen=False) as first:
        wait_until(lambda: first.modals == ["Walking round the scene"])
        assert first.storage
    with Page(viewer.server.get_port()) as again:
        wait_until(lambda: "Help" in again.commands)
        assert again.modals == []
        again.key("Help")
        wait_until(lambda: again.modals == ["Walking round the scene"])


def test_another_scene_replaces_the_first(viewer: SceneViewer, page: Page) -> None:
    scene = make_scene()
    assert scene.cameras is not None
    fewer = dataclasses.replace(scene, gaussians=scene.gaussians.select(torch.tensor([0, 1])), cameras=None)
    viewer.show(fewer)
    wait_until(lambda: page.count("/splats") == 2)
    assert "Photo" not in {label for label, (_, props) in page.controls.items() if props.get("order", 0) < 0}


def test_an_empty_scene_is_refused() -> None:
    from recon.errors import UserError

    viewer = SceneViewer(port=0, rasterizer=load_rasterizer("cpu"))
    try:
        empty = make_scene().gaussians.select(torch.zeros(4, dtype=torch.bool))
        with pytest.raises(UserError):
            viewer.show(Scene(gaussians=empty))
    finally:
        viewer.stop()
