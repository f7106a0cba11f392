"""The tab where a scene begins: drop, look, choose, start.

Input: files and choices from the browser. Output: a queued job. Does not: watch it; ``scenes`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from recon.capture.files import PHOTO_SUFFIXES, VIDEO_SUFFIXES
from recon.errors import UserError

from ..server.records import Jobs
from ..server.settings import CAMERAS, MODELS, PRESETS, Preset, RunSettings
from .style import static
from .tray import HINT, Tray, draw_pending, draw_tray
from .words import estimate_words, safe, told

TAKEN = sorted(PHOTO_SUFFIXES | VIDEO_SUFFIXES | {".zip"})
"""Endings of files that may be dropped."""
OwnerOf = Callable[[gr.Request], str]
TITLES = {"fast": "Fast", "balanced": "Balanced", "best": "Best"}
FIELDS = (
    "preset", "long_side", "polish_s", "max_gaussians", "holdout", "cameras", "model", "video", "shared_camera", "surfels",
    "polish_sh", "scale_from", "intrinsics",
)  # fmt: skip
"""The choices of the page, in the order of ``NewScene.choices``."""
NAMED = "Or type the name of an installed network (recon weights list)."
NOTHING = '<p class="estimate">Add photos first.</p>'


def preset_label(name: Preset) -> str:
    """Title and meaning of a preset, on two lines."""
    return f"{TITLES.get(name, name)}\n{PRESETS[name][0][:1].upper()}{PRESETS[name][0][1:]}"


def read_settings(values: Sequence[Any]) -> RunSettings:
    """Make settings of the page's fields.

    Raises:
        UserError: a value does not fit.
    """
    given: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
    for name in ("long_side", "max_gaussians", "holdout", "polish_sh"):
        given[name] = int(given[name] or 0)
    given["polish_s"] = float(given["polish_s"] or 0.0)
    given["max_gaussians"] = given["max_gaussians"] or None
    given["scale_from"], given["intrinsics"] = (given["scale_from"] or "").strip(), (given["intrinsics"] or "").strip()
    return RunSettings.read(given)


def as_preset(settings: RunSettings) -> RunSettings:
    """Leave out what the preset says anyway, so that settings that are a preset compare equal to it."""
    usual = PRESETS[settings.preset][1]
    return replace(settings, **{name: None for name, value in usual.items() if getattr(settings, name) == value})


class NewScene:
    """Components and handlers of the tab. Build it inside the tab; ``started`` takes over when a job was queued.

    Args:
        jobs: the server.
        owner_of: request -> owner.
    """

    def __init__(self, jobs: Jobs, owner_of: OwnerOf) -> None:
        self.jobs, self.owner_of = jobs, owner_of
        self.tray = gr.State(Tray())
        with gr.Row(elem_classes="new-scene"):
            with gr.Column(scale=3, min_width=300):
                gr.HTML("<h2>1. Photos</h2>")
                self.drop = gr.File(
                    label="Photos, a zip or a video", file_count="multiple", file_types=TAKEN, elem_id="drop", height=150
                )
                self.photos = gr.HTML(HINT, js_on_load=static("photos.js"), elem_id="photos")
                self.clear = gr.Button("Remove all", size="sm", visible=False, elem_id="clear")
            with gr.Column(scale=2, min_width=300):
                gr.HTML("<h2>2. How good?</h2>")
                self.preset = gr.Radio(
                    [(preset_label(name), name) for name in PRESETS], value="balanced", show_label=False, label="How good",
                    container=False, elem_id="presets",
                )  # fmt: skip
                self.advanced = self._advanced()
                gr.HTML("<h2>3. Start</h2>")
                self.name = gr.Textbox(label="Name", placeholder="Empty: day and time", max_lines=1, max_length=80, elem_id="name")
                self.estimate = gr.HTML(NOTHING, elem_id="estimate")
                self.start = gr.Button("Reconstruct", variant="primary", size="lg", interactive=False, elem_id="start")
        self._wire()

    @property
    def choices(self) -> list[Any]:
        return [self.preset, *self.advanced]

    @property
    def table(self) -> list[Any]:
        """What dropping, removing and looking at photos changes, in the order of ``empty``."""
        return [self.tray, self.drop, self.photos, self.clear, self.estimate, self.start]

    def _advanced(self) -> list[Any]:
        usual = PRESETS["balanced"][1]
        cameras = [("Automatic", "auto"), ("Structure from motion only", "sfm"), ("A network, if one is installed", "network")]
        models = {"auto": "Automatic", "mini": "Built in", "plane-sweep": "Plane sweep (slow, no network)"}
        assert {value for _, value in cameras} == set(CAMERAS)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            fields = [
                gr.Slider(256, 1600, value=usual["long_side"], step=32, label="Working size", info="Longest side in pixels."),
                gr.Slider(0, 900, value=usual["polish_s"], step=10, label="Polish", info="Seconds; 0 leaves it out."),
                gr.Number(value=0, precision=0, minimum=0, label="Most Gaussians", info="0: what suits this machine."),
                gr.Number(value=0, precision=0, minimum=0, label="Photos kept to score", info="Every K-th; 0: none, 8 is usual."),
                gr.Dropdown(cameras, value="auto", label="Where photos were taken", allow_custom_value=True, info=NAMED),
                gr.Dropdown([(models.get(name, name), name) for name in MODELS], value="auto", label="Depth network",
                            allow_custom_value=True, info=NAMED),
                gr.Checkbox(value=usual["video"], label="Make a video"),
                gr.Checkbox(value=False, label="One camera, one zoom for all photos"),
                gr.Checkbox(value=False, label="Flat Gaussians, for smoother meshes", info="Works with polish."),
                gr.Slider(0, 3, value=1, step=1, label="Shine", info="How much colours may change with the direction (SH degree)."),
                gr.Textbox(label="Known distance", placeholder="A.jpg,B.jpg=1.2m", info="Between two photos; gives metres."),
                gr.Textbox(label="Known lens", placeholder="fx,fy,cx,cy", info="In pixels of the original photos."),
            ]  # fmt: skip
            self.masks = gr.File(label="Masks", file_count="multiple", file_types=["image"], height=120, elem_id="masks")
            gr.HTML("<small>Masks are pictures named like the photos: what is white counts, what is black does not.</small>")
            return fields

    def _wire(self) -> None:
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        looked = self.table
        self.drop.upload(self.add, [self.tray, self.drop, *self.choices], looked, concurrency_limit=8, **hidden)
        self.photos.click(self.act, [self.tray, *self.choices], looked, concurrency_limit=8, **hidden)
        self.clear.click(self.empty, None, looked, **hidden)
        self.preset.input(self.follow_preset, [self.preset], [self.advanced[0], self.advanced[1], self.advanced[6]], **hidden).then(
            self.estimated, [self.tray, *self.choices], [self.estimate, self.start], **hidden
        )
        for field in self.advanced:
            change = field.release if isinstance(field, gr.Slider) else field.blur if isinstance(field, gr.Textbox) else field.input
            change(self.estimated, [self.tray, *self.choices], [self.estimate, self.start], **hidden)

    def picture(self, owner: str) -> Callable:
        return lambda thumbnail: self.jobs.thumbnail_path(owner, thumbnail)

    def add(self, request: gr.Request, tray: Tray, files: Sequence[str] | None, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Put dropped files on the table and look at all of them."""
        yield from self._look(tray, [Path(file) for file in files or ()], values, self.owner_of(request))

    def act(self, event: gr.EventData, request: gr.Request, tray: Tray, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Turn a photo or take a file away."""
        act, key, owner = str(event._data.get("act")), str(event._data.get("key")), self.owner_of(request)
        if act == "remove":
            yield from self._look(tray.without(key), (), values, owner)
        elif act in ("left", "right"):
            turned = tray.turned(key, 1 if act == "right" else -1)
            yield turned, gr.skip(), draw_tray(turned, self.picture(owner)), gr.skip(), gr.skip(), gr.skip()

    def empty(self) -> tuple[Any, ...]:
        """Take everything away."""
        return Tray(), None, HINT, gr.update(visible=False), NOTHING, gr.update(interactive=False)

    def _look(self, tray: Tray, more: Sequence[Path], values: Sequence[Any], owner: str) -> Iterator[tuple[Any, ...]]:
        """Show what is known or that new files are being looked at, then what was understood."""
        files = (*tray.files, *more)
        if not files:
            yield (tray, *self.empty()[1:]) if not tray.lost else (tray, None, draw_tray(tray, str), *self.empty()[3:])
            return
        pending = draw_pending(files) if more else draw_tray(tray, self.picture(owner))
        yield tray, None, pending, gr.update(visible=True), '<p class="estimate">…</p>', gr.update(interactive=False)
        try:
            settings = read_settings(values)
            tray = tray.looked(self.jobs.inspect(owner, files, as_preset(settings)))
        except UserError as error:
            yield tray, None, told(error) + draw_tray(tray, self.picture(owner)), gr.skip(), NOTHING, gr.update(interactive=False)
            return
        words, start = self._estimate(tray, settings)
        yield tray, None, draw_tray(tray, self.picture(owner)), gr.skip(), words, start

    def follow_preset(self, preset: Preset) -> tuple[Any, ...]:
        """Move the advanced options to what the preset stands for."""
        usual = PRESETS[preset][1]
        return usual["long_side"], usual["polish_s"], usual["video"]

    def estimated(self, request: gr.Request, tray: Tray, *values: Any) -> tuple[Any, ...]:
        """Say what a run with these choices takes."""
        try:
            settings = as_preset(read_settings(values))
            if tray.files and settings != RunSettings(preset=settings.preset):
                tray = replace(tray, inspection=self.jobs.inspect(self.owner_of(request), tray.files, settings))
        except UserError as error:
            return told(error), gr.update(interactive=False)
        return self._estimate(tray, settings)

    def _estimate(self, tray: Tray, settings: RunSettings) -> tuple[str, Any]:
        found = tray.inspection
        if found.reason or len(tray.files) < 2:
            words = "Two photos at least are needed." if tray.files and not found.reason else "Add photos first."
            return f'<p class="estimate">{words}</p>', gr.update(interactive=False)
        plain = as_preset(settings)
        key = plain.preset if plain == RunSettings(preset=plain.preset) and plain.preset in found.estimates else ""
        words = estimate_words(found.estimates.get(key))
        shown = f"On this machine: <b>{safe(words)}</b>." if words else "How long it takes is not known yet."
        return f'<p class="estimate" role="status">{shown}</p>', gr.update(interactive=True)

    def submit(self, tray: Tray, name: str, masks: Sequence[str] | None, values: Sequence[Any], owner: str) -> str:
        """Queue what is on the table; returns the job's id.

        Raises:
            UserError: nothing is there, or the server refuses it.
        """
        if not tray.files:
            raise UserError("No photos were given.", "Drop some into the box first.")
        view = self.jobs.submit(
            owner, tray.files, as_preset(read_settings(values)), name=(name or "").strip(), turns=dict(tray.turns),
            masks=[Path(mask) for mask in masks or ()],
        )  # fmt: skip
        return view.id
