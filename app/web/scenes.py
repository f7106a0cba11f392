"""The tab of past and running reconstructions: cards, and one of them opened.

Input: clicks and a clock. Output: what has changed since the last time. Does not: reconstruct, or keep anything that the server
does not know: a page that is loaded again shows the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from recon.errors import UserError

from ..server.exports import EXPORTS
from ..server.records import Jobs, JobView
from .draw_job import Address, draw_head, draw_outcome, draw_photos, draw_stages, plot_data
from .gallery import draw_gallery
from .new_scene import OwnerOf
from .style import static
from .take_home import draw_take_home
from .words import safe, told

POLL_S = 1.0
PLOT = """<figure class="plot">
<canvas tabindex="0" role="img" aria-label="Cameras and points found so far; arrow keys turn them"></canvas>
<figcaption>Where the photos were taken. Drag to turn.</figcaption></figure>"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a visitor's page shows now, so that only what has changed is sent."""

    job: str = ""
    since: int = 0
    drawn: dict[int, Any] = field(default_factory=dict)
    viewer: str = ""
    """Which scene the frame shows: "final", the file of an early one, or "" for none."""
    frame: str = ""
    """The frame itself; sent again only when another scene is to be seen, since that starts the viewer anew."""


class Scenes:
    """Components and handlers of the tab. Build it inside the tab."""

    def __init__(self, jobs: Jobs, owner_of: OwnerOf) -> None:
        self.jobs, self.owner_of = jobs, owner_of
        self._lock = threading.Lock()
        self._busy: dict[str, set[str]] = {}
        self._failed: dict[str, dict[str, UserError]] = {}
        self.shown = gr.State(Shown())
        self.clock = gr.Timer(POLL_S, active=False)
        with gr.Column(elem_id="gallery-column") as self.all:
            self.word = gr.HTML("", elem_id="gallery-word")
            self.gallery = gr.HTML("", js_on_load=static("photos.js"), elem_id="gallery")
        with gr.Column(visible=False, elem_id="job") as self.one:
            self.back = gr.Button("← All scenes", size="sm", elem_id="back")
            self.head = gr.HTML("", js_on_load=static("address.js"), elem_id="job-head")
            with gr.Row(elem_classes="job-row"):
                with gr.Column(scale=3, min_width=300):
                    self.plot = gr.HTML("", html_template=PLOT, js_on_load=static("plot.js"), elem_id="plot", visible=False)
                    self.viewer = gr.HTML("", elem_id="viewer")
                with gr.Column(scale=2, min_width=280):
                    self.outcome = gr.HTML("", elem_id="outcome")
                    self.stages = gr.HTML("", elem_id="stages")
                    with gr.Row():
                        self.stop = gr.Button("Stop", visible=False, elem_id="stop", size="sm")
                        self.again = gr.Button("Continue", visible=False, elem_id="again", variant="primary", size="sm")
            self.take = gr.HTML("", js_on_load=static("take.js"), elem_id="take")
            self.photos = gr.HTML("", elem_id="job-photos")
        self._wire()

    @property
    def parts(self) -> list[Any]:
        """What an opened job consists of, in the order of ``draw``."""
        return [self.head, self.stages, self.outcome, self.viewer, self.take, self.photos, self.plot, self.stop, self.again]

    @property
    def screen(self) -> list[Any]:
        """Everything that opening or closing a job changes."""
        return [self.shown, self.clock, self.all, self.one, self.word, self.gallery, *self.parts]

    def _wire(self) -> None:
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.clock.tick(self.poll, [self.shown], [self.shown, self.clock, *self.parts], concurrency_limit=32, **hidden)
        self.gallery.click(self.act, None, self.screen, concurrency_limit=16, **hidden)
        self.back.click(self.close, None, self.screen, **hidden)
        self.stop.click(self.cancel, [self.shown], None, **hidden)
        self.again.click(self.resume, [self.shown], self.screen, **hidden)
        self.take.click(self.make, [self.shown], [self.shown, self.take], concurrency_limit=16, trigger_mode="multiple", **hidden)

    def address(self, owner: str, view: JobView) -> Address:
        return lambda file: self.jobs.file_path(owner, view.id, file)

    def cards(self, owner: str) -> str:
        """Draw the gallery."""
        return draw_gallery(self.jobs.list(owner), lambda view: self.address(owner, view))

    def open(self, job_id: str, owner: str) -> tuple[Any, ...]:
        """Show one job; the clock fetches the rest."""
        try:
            since, view = self.jobs.wait(owner, job_id, 0, 0.0)
        except UserError as error:
            return self.closed(owner, error)
        shown = Shown(job=job_id, since=since)
        parts = self.draw(view, shown, owner)
        shown = replace(shown, drawn=dict(enumerate(parts)))
        return shown, gr.update(active=True), gr.update(visible=False), gr.update(visible=True), "", gr.skip(), *parts

    def closed(self, owner: str, error: UserError | None = None) -> tuple[Any, ...]:
        """Show the cards, and above them what could not be done; choosing the tab renews the cards alone."""
        word = told(error) if error is not None else ""
        nothing = [gr.update(value="")] * 6 + [gr.update(value="", visible=False)] + [gr.update(visible=False)] * 2
        cards = self.cards(owner)
        return Shown(), gr.update(active=False), gr.update(visible=True), gr.update(visible=False), word, cards, *nothing

    def close(self, request: gr.Request) -> tuple[Any, ...]:
        return self.closed(self.owner_of(request))

    def act(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Open or delete what was clicked."""
        act, key, owner = str(event._data.get("act")), str(event._data.get("key")), self.owner_of(request)
        if act == "open":
            return self.open(key, owner)
        error = None
        if act == "delete":
            try:
                self.jobs.delete(owner, key)
            except UserError as told_error:
                error = told_error
        return self.closed(owner, error)

    def cancel(self, shown: Shown, request: gr.Request) -> None:
        """Ask the opened job to stop; the clock shows when it has."""
        try:
            self.jobs.cancel(self.owner_of(request), shown.job)
        except UserError as error:
            raise gr.Error(safe(error)) from error

    def resume(self, shown: Shown, request: gr.Request) -> tuple[Any, ...]:
        """Queue the opened job again."""
        owner = self.owner_of(request)
        try:
            self.jobs.again(owner, shown.job)
        except UserError as error:
            raise gr.Error(safe(error)) from error
        return self.open(shown.job, owner)

    def poll(self, shown: Shown, request: gr.Request) -> tuple[Any, ...]:
        """Send what has changed, start the viewer when there is a scene to see, and stop the clock when all is shown."""
        nothing = [gr.skip()] * len(self.parts)
        if not shown.job:
            return gr.skip(), gr.update(active=False), *nothing
        owner = self.owner_of(request)
        try:
            since, view = self.jobs.wait(owner, shown.job, shown.since, 0.0)
        except UserError as error:
            return Shown(), gr.update(active=False), told(error), *nothing[1:]
        early = None if view.over else view.early_scene
        wanted = "final" if view.scene is not None else early.name if early is not None else shown.viewer
        if since == shown.since and wanted == shown.viewer:
            return gr.skip(), gr.update(active=not view.over), *nothing
        shown = replace(shown, since=since)
        if wanted != shown.viewer:
            frame = self.frame(owner, view, early=wanted != "final")
            shown = replace(shown, viewer=wanted, frame=frame)
        parts = self.draw(view, shown, owner)
        sent = [gr.skip() if shown.drawn.get(index) == part else part for index, part in enumerate(parts)]
        return replace(shown, drawn=dict(enumerate(parts))), gr.update(active=not view.over), *sent

    def frame(self, owner: str, view: JobView, *, early: bool) -> str:
        """The viewer in the page."""
        try:
            path = safe(self.jobs.viewer_path(owner, view.id, early=early))
        except UserError as error:
            return told(error)
        note = (
            "A first look: it is still being worked on."
            if early
            else "Drag to turn, right button or two fingers to shift, wheel to come nearer."
        )
        return (
            f'<iframe src="{path}" title="3D viewer" allow="fullscreen" data-scene="{"early" if early else "final"}"></iframe>'
            f'<p class="under">{note} <a href="{path}" target="_blank" rel="noopener">Open in a tab of its own</a></p>'
        )

    def draw(self, view: JobView, shown: Shown, owner: str) -> list[Any]:
        """Draw every part of an opened job."""
        address = self.address(owner, view)
        plot = plot_data(view.early_cameras) if view.early_cameras is not None and not shown.viewer and not view.over else ""
        coming = '<p class="coming" role="status">Opening the viewer …</p>' if view.scene is not None else ""
        return [
            f'<div data-job="{safe(view.id)}">{draw_head(view)}</div>',
            draw_stages(view),
            draw_outcome(view, address),
            shown.frame or coming,
            self.table(view, owner),
            draw_photos(view, address),
            gr.update(value=plot, visible=bool(plot)),
            gr.update(visible=not view.over),
            gr.update(visible=view.state in ("failed", "stopped")),
        ]

    def table(self, view: JobView, owner: str) -> str:
        with self._lock:
            busy, failed = set(self._busy.get(view.id, ())), dict(self._failed.get(view.id, {}))
        return draw_take_home(view, self.address(owner, view), busy, failed)

    def make(self, shown: Shown, event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Make one file to take home; others may be made at the same time."""
        kind, owner, job = str(event._data.get("key")), self.owner_of(request), shown.job
        view = self.jobs.get(owner, job)
        with self._lock:
            if kind not in EXPORTS or kind in self._busy.get(job, ()):
                return
            self._busy.setdefault(job, set()).add(kind)
            self._failed.setdefault(job, {}).pop(kind, None)
        yield gr.skip(), self.table(view, owner)
        trouble: UserError | None = None
        try:
            self.jobs.export(owner, job, kind)
        except UserError as error:
            trouble = error
        finally:
            with self._lock:
                self._busy[job].discard(kind)
                if trouble is not None:
                    self._failed[job][kind] = trouble
        yield gr.skip(), self.table(self.jobs.get(owner, job), owner)
