"""The whole app in a real browser: photos in, progress, the splat, the viewer's tools, files, a killed server, the scene again.

`recon app` itself runs, with the real pipeline and the real viewer; pictures are small so that it takes less than a minute.
``RECON_SCREENSHOTS`` names a folder for pictures of every step.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Frame, expect

from app.scene_files import load_scene, placed_cameras
from recon.formats.registry import find_format
from recon.records import RasterOptions
from render.rasterizer import load_rasterizer

from app_process import PATIENCE_S, recon_app, wait_until
from pages import PHONE, Visit, browser, serious_findings, sideways, visit

pytestmark = pytest.mark.browser
CLOSE = 0.2
"""Mean difference of two pictures over the mean of the wanted one: JPEG, the browser's own splats, panels in front."""


def keep(tab: Visit, name: str) -> None:
    """Keep a picture of the page for a person to look at."""
    folder = os.environ.get("RECON_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def set_number(tab: Visit, label: str, value: int) -> None:
    field = tab.page.get_by_role("spinbutton", name=f"number input for {label}")
    field.fill(str(value))
    field.press("Tab")


def drawn_by_us(scene_folder: Path, width: int, height: int) -> np.ndarray:
    """What the first view of the viewer shows by our own rasteriser, float ``H W 3`` in [0, 255]."""
    scene = load_scene(scene_folder)
    cameras = placed_cameras(scene)
    assert cameras is not None
    first, ratio = cameras.select([0]), width / height
    tall, wide = first.height[0] / (2 * first.K[0, 1, 1]), first.width[0] / (2 * first.K[0, 0, 0]) / ratio
    focal_px = height / (2 * float(max(tall, wide)))
    K = torch.tensor([[[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]]])
    camera = replace(first, K=K, width=(width,), height=(height,), distortion=None)
    with torch.no_grad():
        return load_rasterizer("cpu")(scene.gaussians, camera, RasterOptions()).color[0].clamp(0, 1).numpy() * 255


def free_part(picture: np.ndarray) -> np.ndarray:
    """What no panel or note covers, without the border of the frame."""
    height, width = picture.shape[:2]
    return picture[round(0.3 * height) : round(0.9 * height), round(0.05 * width) : round(0.6 * width)].astype(np.float64)


def difference(tab: Visit, wanted: np.ndarray) -> float:
    """How far the viewer's picture in the page is from the wanted one."""
    read_hint(tab.frame())
    shown = free_part(tab.picture(tab.page.locator("#viewer iframe"))[: wanted.shape[0], : wanted.shape[1]])
    return float(np.abs(shown - free_part(wanted)).mean() / free_part(wanted).mean())


def viewer_ready(tab: Visit) -> Frame:
    """The viewer's frame once it has something to draw on."""
    frame = tab.frame()
    frame.wait_for_selector("canvas")
    return frame


def read_hint(frame: Frame) -> None:
    """Close the first-time hint, which a browser shows once."""
    for hint in frame.get_by_role("button", name="Go on").all():
        hint.click()


def look_at_scene(tab: Visit, scene_folder: Path) -> None:
    """The page shows the splat as our rasteriser draws it, and moves when it is dragged."""
    box = tab.page.locator("#viewer iframe").bounding_box()
    assert box is not None
    wanted = drawn_by_us(scene_folder, math.floor(box["width"]), math.floor(box["height"]))
    assert free_part(wanted).std() > 20, "the scene is no flat colour"
    wait_until(lambda: difference(tab, wanted) < CLOSE, "the viewer shows what our rasteriser draws")
    flat = np.full_like(wanted, free_part(wanted).mean())
    assert np.abs(free_part(flat) - free_part(wanted)).mean() / free_part(wanted).mean() > CLOSE, "a flat canvas would not pass"


def move(tab: Visit) -> None:
    """Drag in the viewer; what it shows changes."""
    box = tab.page.locator("#viewer iframe").bounding_box()
    assert box is not None
    before = free_part(tab.picture(tab.page.locator("#viewer iframe")))
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.6 * box["height"]
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    for step in range(1, 9):
        tab.page.mouse.move(x + 12 * step, y + 4 * step)
    tab.page.mouse.up()
    wait_until(
        lambda: np.abs(free_part(tab.picture(tab.page.locator("#viewer iframe"))) - before).mean() > 5, "the view follows the mouse"
    )


def measure(tab: Visit, frame: Frame) -> str:
    """Click two points of the scene; returns what the viewer says of their distance."""
    frame.get_by_role("tab", name="Measure").click()
    frame.get_by_role("button", name="Measure", exact=True).click()
    frame.get_by_role("button", name=re.compile("Click 2 points")).wait_for()
    box = tab.page.locator("#viewer iframe").bounding_box()
    assert box is not None
    said = frame.get_by_text(re.compile(r"Last: .*"))
    for share in (0.2, 0.4, 0.25, 0.45, 0.3, 0.5):  # a click that meets nothing, or a busy server, asks for another
        tab.page.mouse.click(box["x"] + share * box["width"], box["y"] + 0.6 * box["height"])
        tab.page.wait_for_timeout(3000)
        if said.count():
            break
    said.wait_for()
    return said.inner_text()


def test_photos_become_a_scene_in_the_browser(tmp_path: Path, sample_photos: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    photos = sorted(sample_photos.glob("*.jpg"))[::2]
    outside: list[str] = []
    with browser() as running:
        with recon_app(out, cache) as (server, url), visit(running, url) as tab:
            page = tab.page
            keep(tab, "1_start")
            page.set_input_files("#drop input[type=file]", [str(photo) for photo in photos])
            expect(page.locator("#photos .photo")).to_have_count(len(photos), timeout=PATIENCE_S * 1000)
            expect(page.locator("#photos")).to_contain_text(photos[0].name)
            page.check("#presets input[value=fast]")
            page.click("#advanced button")
            set_number(tab, "Working size", 256)
            set_number(tab, "Polish", 10)
            page.fill("#name input, #name textarea", "The <i>sample</i>")
            expect(page.locator("#estimate")).to_contain_text("On this machine: about")
            expect(page.locator("#start")).to_be_enabled()
            keep(tab, "2_photos")
            page.click("#start")
            expect(page.locator("#job-head")).to_contain_text("The <i>sample</i>")
            expect(page.locator("#plot canvas")).to_be_visible(timeout=PATIENCE_S * 1000)
            assert page.locator("#stages .over").count() >= 1
            page.wait_for_timeout(500)
            keep(tab, "3_cameras")
            job = out / (page.get_attribute("[data-job]", "data-job") or "")
            wait_until(lambda: (job / "early" / "scene.ply").is_file(), "a first scene before polishing")
            assert not (job / "scene").exists()
            expect(page.locator("#viewer iframe")).to_be_visible(timeout=PATIENCE_S * 1000)
            keep(tab, "4_first_scene")
            expect(page.locator("#viewer iframe[data-scene=final]")).to_be_visible(timeout=PATIENCE_S * 1000)
            expect(page.locator("#outcome")).to_contain_text("Gaussians")
            frame = viewer_ready(tab)
            look_at_scene(tab, job / "scene")
            keep(tab, "5_scene")
            move(tab)
            said = measure(tab, frame)
            assert re.search(r"Last: \d", said), said
            assert float(re.findall(r"[\d.]+", said)[0]) > 0
            keep(tab, "6_measured")
            with page.expect_download(timeout=PATIENCE_S * 1000) as ready:
                page.click("#take button[data-key=spz]")
            taken = tmp_path / "scene.spz"
            ready.value.save_as(taken)
            entry = find_format(taken)
            assert entry.read is not None
            assert len(entry.read(taken)) == len(load_scene(job / "scene").gaussians)
            keep(tab, "7_take_home")
            assert serious_findings(page) == []
            outside += tab.outside
            errors = [text for text in tab.errors if not text.startswith("THREE.")]  # the viewer's library thinks aloud
            server.kill()
            server.wait()
            cookies = page.context.cookies()
        with recon_app(out, cache) as (_, url), visit(running, url, size=PHONE, cookies=cookies) as tab:
            page = tab.page
            page.get_by_role("tab", name="My scenes").click()
            expect(page.locator("#gallery .card")).to_have_count(1)
            expect(page.locator("#gallery")).to_contain_text("The <i>sample</i>")
            keep(tab, "8_gallery_phone")
            page.click("#gallery .open")
            expect(page.locator("#viewer iframe[data-scene=final]")).to_be_visible(timeout=PATIENCE_S * 1000)
            viewer_ready(tab)
            read_hint(tab.frame())
            wait_until(lambda: free_part(tab.picture(page.locator("#viewer iframe"))).std() > 10, "the scene is seen on a phone")
            assert sideways(page) <= 0
            keep(tab, "9_scene_phone")
            outside += tab.outside
    assert outside == []
    assert errors == []
