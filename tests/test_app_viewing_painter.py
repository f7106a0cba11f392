"""One thread draws for all: who comes first, how coarse it gets, and what the picture shows."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from viewer_page import wait_until
from viewer_scenes import make_scene

from app.viewing.document import Document
from app.viewing.levels import FIRST_LEVEL, LEVELS, PATIENCE, Pace
from app.viewing.page_frame import Eye, camera_quaternion, gaze, vertical_fov
from app.viewing.painter import Painter
from app.viewing.pictures import Look, Photo, lay_over
from recon.records import Cameras, RasterOptions, Rendering
from render.rasterizer import load_rasterizer


def eye_of(document: Document, index: int = 0, width: int = 64, height: int = 48) -> Eye:
    quaternion = tuple(float(v) for v in camera_quaternion(document.cameras, index, document.frame))
    position = tuple(float(v) for v in gaze(document.cameras, index, document.frame, 1.0)[0])
    fov = vertical_fov(document.cameras, index)
    return Eye(wxyz=quaternion, position=position, fov=fov, width=width, height=height)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def document() -> Document:
    return Document(make_scene())


@pytest.fixture
def painter(document: Document) -> Iterator[Painter]:
    made = Painter(document, load_rasterizer("cpu"))
    yield made
    made.close()


class Shown:
    """Collects pictures."""

    def __init__(self) -> None:
        self.pictures: list[tuple[np.ndarray, np.ndarray, bool]] = []

    def __call__(self, picture: np.ndarray, depth: np.ndarray, full: bool) -> None:
        self.pictures.append((picture, depth, full))


def test_a_page_camera_is_the_camera_it_came_from(document: Document) -> None:
    cameras = eye_of(document, 1, 640, 480).cameras(document.frame)
    wanted = document.cameras.select([1])
    assert torch.allclose(cameras.T_world_cam, wanted.T_world_cam, atol=1e-5)
    assert torch.allclose(cameras.K, wanted.K, rtol=1e-5)


def test_coarse_first_then_the_full_picture_once(document: Document, painter: Painter) -> None:
    shown = Shown()
    easel = painter.easel(shown)
    easel.turn(True)
    easel.look_from(eye_of(document))
    wait_until(lambda: any(full for _, _, full in shown.pictures))
    time.sleep(0.6)
    assert [full for _, _, full in shown.pictures].count(True) == 1
    assert not shown.pictures[0][2]
    picture, depth, _ = shown.pictures[-1]
    assert picture.shape == (48, 64, 3)
    nearest = depth[depth < 100]
    assert float(np.median(nearest)) == pytest.approx(6.0 * document.scale, rel=0.15)


def test_nothing_is_drawn_for_those_whose_browser_draws(document: Document, painter: Painter) -> None:
    shown = Shown()
    easel = painter.easel(shown)
    easel.look_from(eye_of(document))
    painter.ask(lambda: None).result(timeout=30)
    time.sleep(0.4)
    assert shown.pictures == []
    easel.turn(True)
    wait_until(lambda: len(shown.pictures) >= 2)
    painter.dismiss(easel)
    count = len(shown.pictures)
    easel.look_from(eye_of(document, 1))
    time.sleep(0.3)
    assert len(shown.pictures) == count


def test_an_edit_is_drawn_for_everybody(document: Document, painter: Painter) -> None:
    first, second = Shown(), Shown()
    for shown in (first, second):
        easel = painter.easel(shown)
        easel.turn(True)
        easel.look_from(eye_of(document))
    wait_until(lambda: all(shown.pictures and shown.pictures[-1][2] for shown in (first, second)))
    before = first.pictures[-1][0].astype(int)
    document.remove("crop", torch.tensor([True, False, False, False]))
    wait_until(lambda: all(np.abs(shown.pictures[-1][0] - before).max() > 50 for shown in (first, second)))


def test_questions_come_before_work_and_errors_reach_who_asked(painter: Painter) -> None:
    order: list[str] = []
    gate = threading.Event()

    def steps() -> Iterator[None]:
        for index in range(3):
            gate.wait(30)
            order.append(f"step {index}")
            yield
        return "made"

    work = painter.work(steps())
    question = painter.ask(lambda: order.append("question"))
    gate.set()
    question.result(timeout=30)
    assert work.result(timeout=30) == "made"
    assert order.index("question") < order.index("step 2")

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        painter.ask(fails).result(timeout=30)
    assert painter.ask(lambda: 7).result(timeout=30) == 7


def test_work_goes_on_while_somebody_moves_and_can_be_cancelled(document: Document, painter: Painter) -> None:
    easel = painter.easel(lambda *_: easel.look_from(eye_of(document)))  # moves for ever
    easel.turn(True)
    easel.look_from(eye_of(document))
    ticks: list[int] = []

    def steps() -> Iterator[None]:
        while True:
            ticks.append(easel.frames)
            yield

    work = painter.work(steps())
    wait_until(lambda: len(ticks) > 5)
    assert ticks[5] - ticks[0] >= 10  # pictures have most of the turns
    work.cancel()
    painter.ask(lambda: None).result(timeout=30)
    wait_until(lambda: not painter._work)


def test_a_picture_that_cannot_be_drawn_does_not_end_the_thread(document: Document) -> None:
    broken = threading.Event()

    def draw(gaussians, cameras, options) -> Rendering:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("out of memory")
        return load_rasterizer("cpu")(gaussians, cameras, options)

    painter = Painter(document, draw)
    try:
        shown = Shown()
        easel = painter.easel(shown)
        easel.turn(True)
        easel.look_from(eye_of(document))
        wait_until(lambda: broken.is_set() and bool(shown.pictures))
    finally:
        painter.close()
    assert painter.ask(lambda: 1).cancelled()


def test_the_pace_gets_coarser_at_once_and_finer_with_patience() -> None:
    pace = Pace()
    assert pace.level == FIRST_LEVEL
    pace.note(0.2, 0.07)
    assert pace.level == FIRST_LEVEL + 1
    for _ in range(50):
        pace.note(1.0, 0.07)
    assert pace.level == len(LEVELS) - 1
    pace.forget()
    for _ in range(PATIENCE * len(LEVELS) * 2):
        pace.note(0.001, 0.07)
    assert pace.level == 0
    assert all(a.share >= b.share and a.long_side >= b.long_side for a, b in itertools.pairwise(LEVELS))


def test_a_level_that_was_too_slow_is_tried_again_later() -> None:
    pace = Pace()
    pace.level = 3
    pace.note(0.5, 0.07)
    levels = set()
    for _ in range(60 * PATIENCE):
        pace.note(0.02, 0.07)
        levels.add(pace.level)
    assert 3 in levels


def test_a_photo_lies_where_the_rendering_is(document: Document) -> None:
    camera = document.cameras.select([1])
    drawn = load_rasterizer("cpu")(document.scene.gaussians, camera, RasterOptions()).color[0]
    pixels = (drawn.clamp(0, 1) * 255).round().byte().numpy()
    half = camera.resized(320, 240)
    view = load_rasterizer("cpu")(document.scene.gaussians, half, RasterOptions()).color[0]
    picture = (view.clamp(0, 1) * 255).round().byte().numpy()
    photo = Photo(pixels=pixels, camera=Cameras(T_world_cam=camera.T_world_cam, K=camera.K, width=(640,), height=(480,)))
    assert np.abs(lay_over(picture, photo, 1.0, half).astype(int) - picture).max() < 12
    marked = Photo(pixels=np.full_like(pixels, 90), camera=photo.camera)
    part = lay_over(picture, marked, 0.25, half)
    assert (part[:, :78] == 90).all()
    assert np.array_equal(part[:, 83:], picture[:, 83:])
    assert (part[:, 79:81] == 255).all(axis=2).any(axis=1).all()  # the seam


def test_looks_ask_the_rasteriser_for_what_they_need() -> None:
    assert Look(what="normals").options(0.1).normals
    assert Look(what="depth").options(0.1).median_depth
    assert Look(view_dependent=False).options(0.1).sh_degree == 0
    assert Look(background=(1.0, 0.0, 0.0)).options(0.1).background == (1.0, 0.0, 0.0)
