"""The page in a real browser, before a server that reconstructs nothing: every state a visitor can meet, on desk and phone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from app.server.refusals import Refused
from app.server.settings import PRESETS, RunSettings

import helpers
from fake_jobs import FakeJobs
from page_server import served_page
from pages import PHONE, Visit, browser, serious_findings, sideways, visit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as made:
        yield made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[FakeJobs, str]]:
    with served_page(tmp_path / "out") as made:
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    found = helpers.write_noise_photos(tmp_path / "in", 3, width=320, height=200)
    blurred, broken = tmp_path / "in" / "blurred.jpg", tmp_path / "in" / "broken.jpg"
    Image.new("RGB", (80, 60), (90, 90, 90)).save(blurred)
    broken.write_bytes(b"no picture")
    return [str(path) for path in [*found, blurred, broken]]


def drop(tab: Visit, photos: list[str], count: int) -> None:
    tab.page.set_input_files("#drop input[type=file]", photos)
    expect(tab.page.locator("#photos .photo")).to_have_count(count)
    expect(tab.page.locator("#start")).to_be_enabled()


def start(tab: Visit) -> str:
    tab.page.click("#start")
    job = tab.page.wait_for_selector("[data-job]")
    assert job is not None
    return job.get_attribute("data-job") or ""


def clean(tab: Visit) -> None:
    """Nothing went anywhere else, and nothing broke."""
    assert tab.outside == []
    assert tab.errors == []


def test_photos_are_looked_at_turned_and_taken_out(served: tuple[FakeJobs, str], running: Browser, photos: list[str]) -> None:
    jobs, url = served
    with visit(running, url) as tab:
        expect(tab.page.locator("#start")).to_be_disabled()
        drop(tab, photos, 5)
        text = tab.page.inner_text("#photos")
        assert all(
            words in text for words in ("4 photos", "1 cannot be used", "1 doubtful", "320 × 200", "Pear Phone 7", "blurred")
        )
        assert "it ends in the middle" in text
        assert "Few photos: <8 to 60> work best." in text, "names and sentences are shown, not obeyed"
        tab.page.wait_for_function("[...document.querySelectorAll('#photos img')].every(one => one.naturalWidth > 0)")
        tab.page.click("button[aria-label='Turn photo_001.jpg right']")
        expect(tab.page.locator("img[alt='photo_001.jpg']")).to_have_class("turn1")
        expect(tab.page.locator("#photos")).to_contain_text("200 × 320")
        tab.page.click("button[aria-label='Remove broken.jpg']")
        expect(tab.page.locator("#photos .photo")).to_have_count(4)
        expect(tab.page.locator("#estimate")).to_contain_text("81 s")
        tab.page.check("#presets input[value=best]")
        expect(tab.page.locator("#estimate")).to_contain_text("2 min")
        tab.page.click("#advanced button")
        field = tab.page.get_by_role("spinbutton", name="number input for Working size")
        assert field.input_value() == str(PRESETS["best"][1]["long_side"]), "the advanced options follow the preset"
        tab.page.get_by_label("Known distance").fill("far")
        tab.page.get_by_label("Known lens").click()
        expect(tab.page.locator("#estimate")).to_contain_text("does not fit")
        expect(tab.page.locator("#start")).to_be_disabled()
        tab.page.get_by_label("Known distance").fill("")
        tab.page.get_by_label("Known lens").click()
        expect(tab.page.locator("#start")).to_be_enabled()
        tab.page.mouse.move(2, 2)
        tab.page.wait_for_timeout(600)  # the start button fades from disabled to enabled
        assert serious_findings(tab.page) == []
        tab.page.set_input_files("#masks input[type=file]", photos[1])  # Gradio's box then holds buttons within a button
        expect(tab.page.locator("#masks")).to_contain_text("photo_001")
        jobs.refusal = Refused("The disk is full.", "Delete old scenes.", 507)
        tab.page.click("#start")
        expect(tab.page.locator("#refusal")).to_contain_text("Delete old scenes.")
        jobs.refusal = None
        start(tab)
        settings, turns, masks = jobs.submitted[0]
        assert masks == ("photo_001.jpg",)
        assert settings == RunSettings(preset="best")
        assert {path.name: turn for path, turn in turns.items()} == {"photo_001.jpg": 1}
        clean(tab)


@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=["desk", "phone"])
def test_a_run_is_watched_from_the_queue_to_the_files(
    served: tuple[FakeJobs, str], running: Browser, photos: list[str], size: dict, tmp_path: Path
) -> None:
    jobs, url = served
    with visit(running, url, size=size) as tab:
        page = tab.page
        assert sideways(page) <= 0
        drop(tab, photos[:3], 3)
        assert sideways(page) <= 0
        job = start(tab)
        expect(page.locator("#stages")).to_contain_text("Number 1 in the queue")
        jobs.reach(job, "photos", 1.0)
        jobs.reach(job, "cameras", 0.4, "matching <photos>")
        expect(page.locator("#stages .now")).to_contain_text("matching <photos>")
        jobs.place_cameras(job)
        expect(page.locator("#plot canvas")).to_be_visible()
        page.wait_for_timeout(300)
        plot = tab.picture(page.locator("#plot canvas")).astype(int)
        cyan = (plot[..., 1] - plot[..., 0] > 60) & (plot[..., 2] - plot[..., 0] > 40)
        assert cyan.sum() > 100, "cameras are drawn"
        assert len(np.unique(plot.reshape(-1, 3), axis=0)) > 50, "points have their colours"
        page.locator("#plot canvas").focus()
        page.keyboard.press("ArrowLeft")
        before = tab.picture(page.locator("#plot canvas"))
        page.keyboard.press("ArrowUp")
        assert (tab.picture(page.locator("#plot canvas")) != before).any(), "arrow keys turn the plot"
        assert sideways(page) <= 0
        early = jobs.views[job].folder / "early" / "scene.ply"
        early.write_bytes(b"ply")
        jobs.change(job, early_scene=early)
        jobs.reach(job, "polish", 0.2)
        expect(page.locator("#viewer iframe")).to_have_attribute("data-scene", "early")
        expect(page.locator("#plot")).to_be_hidden()
        assert "early" in tab.frame().inner_text("h1")
        tab.frame().evaluate("window.kept = 1")
        jobs.reach(job, "polish", 0.6)
        expect(page.locator("#stages .now")).to_contain_text("60%")
        assert tab.frame().evaluate("window.kept") == 1, "news do not start the viewer anew"
        jobs.finish(job)
        expect(page.locator("#viewer iframe")).to_have_attribute("data-scene", "final")
        expect(page.locator("#outcome")).to_contain_text("59,999 Gaussians")
        expect(page.locator("#outcome")).to_contain_text("<b>c.jpg</b> lost")
        assert sideways(page) <= 0
        with page.expect_download() as ready:
            page.click("#take button[data-key=spz]")
        assert Path(ready.value.path()).read_bytes() == b"x" * 1234, "what was asked for is downloaded once it is made"
        expect(page.locator("#take a[data-key=spz]")).to_be_visible()
        page.click("#take button[data-key=mesh-obj]")
        expect(page.locator("#take")).to_contain_text("No <surface> was found. Take more photos.")
        assert serious_findings(page) == []
        page.reload()
        expect(page.locator("#outcome")).to_contain_text("59,999 Gaussians")
        page.click("#back")
        expect(page.locator("#gallery .card")).to_have_count(1)
        assert serious_findings(page) == []
        assert sideways(page) <= 0
        clean(tab)


def test_trouble_is_explained_and_can_be_tried_again(served: tuple[FakeJobs, str], running: Browser, photos: list[str]) -> None:
    jobs, url = served
    with visit(running, url, dark=True) as tab:
        page = tab.page
        drop(tab, photos[:3], 3)
        assert serious_findings(page) == []
        job = start(tab)
        jobs.reach(job, "cameras", 0.5)
        name = jobs.views[job].photos[1]
        jobs.change(job, state="failed", reason="1 of 3 photos could be placed.", remedy="Take more.", offending=(name,),
                    photo_words={name: ("shares nothing with the others",)})  # fmt: skip
        expect(page.locator("#outcome .trouble")).to_contain_text("Take more.")
        expect(page.locator("#job-photos .photo.lost")).to_contain_text("shares nothing with the others")
        assert serious_findings(page) == []
        page.click("#again")
        expect(page.locator("#stages")).to_contain_text("It is next")
        page.click("#stop")
        expect(page.locator("#outcome")).to_contain_text("Stopped.")
        other = dataclasses.replace(jobs.views[job], id="foreign")
        jobs.views["foreign"], jobs.owners["foreign"], jobs.versions["foreign"] = other, "somebody else", 1
        page.goto(f"{url}/?job=foreign")
        expect(page.locator("#gallery .card")).to_have_count(1)
        expect(page.locator("#gallery-word")).to_contain_text("There is no such reconstruction.")
        expect(page.locator("#gallery .card")).to_have_count(1)
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#gallery .drop")
        expect(page.locator("#gallery")).to_contain_text("Nothing here yet.")
        assert job not in jobs.views
        clean(tab)
