"""`recon app`: a local web page. Drop photos, watch the stages, look at the scene, take it away.

Input: photos from a browser on this machine. Output: a page on 127.0.0.1, one folder per reconstruction under OUT.
Does not: listen on other addresses, share, or send usage data.
"""

from __future__ import annotations

import html
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recon.capture.files import PHOTO_SUFFIXES, VIDEO_SUFFIXES
from recon.config import Holdout, PipelineConfig
from recon.errors import UserError
from recon.files import atomic_path
from recon.progress import STAGES

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by gradio while it is imported

import gradio as gr

from .console import LABELS, Quiet, format_seconds, say
from .jobs import Job, JobRunner
from .run import check_choices, start, summary
from .scene_commands import make_folder

POLL_S = 1.0
TAKEN = sorted(PHOTO_SUFFIXES | VIDEO_SUFFIXES)
"""Endings of files that may be dropped."""
FRAME = '<iframe src="{url}" style="width:100%;height:560px;border:0;border-radius:8px" title="3D viewer"></iframe>'
INTRO = "# recon\nDrop photos of one place, taken from different positions. Nothing leaves this machine."
PREVIEW = "Photo | rendering | depth"
CSS = """
.stages table, .stages tr, .stages td {border: 0 !important} .stages td {padding: 2px 10px 2px 0}
.stages progress {width: 180px; height: 10px} .stages .bad {color: #c0392b; font-weight: 600}
"""


@dataclass(frozen=True, kw_only=True)
class PageArguments:
    """Serve a page on 127.0.0.1 where photos can be dropped and become a scene. Runs until Ctrl-C."""

    port: int = 7860
    """Port of the page."""
    viewer_port: int = 8080
    """Port of the 3D viewer inside it; the next free one is taken when it is busy."""
    out: Path = Path("out/app")
    """Folder that keeps the reconstructions, one sub-folder each."""
    open: Quiet = False
    """Also open the page in the browser."""


def serve(arguments: PageArguments) -> int:
    """Run the command."""
    make_folder(arguments.out)
    site = Site(arguments.out.resolve(), viewer_port=arguments.viewer_port)
    try:
        url = site.launch(arguments.port, open_browser=arguments.open)
        say(f"Page: {url}  (Ctrl-C stops it)")
        while True:
            time.sleep(3600)
    finally:
        site.close()


class Site:
    """The page, its worker and its viewer.

    Args:
        out: folder of the reconstructions.
        viewer_port: where the viewer listens.
        start_job: runs one reconstruction; tests give their own.
    """

    def __init__(self, out: Path, *, viewer_port: int, start_job: Callable = start) -> None:
        from render.rasterizer import load_rasterizer

        from .viewer import SceneViewer

        self.out = out
        self.viewer = SceneViewer(port=viewer_port, rasterizer=load_rasterizer("cpu"))
        self.runner = JobRunner(start_job, self._show)
        self.jobs: dict[str, Job] = {}
        self.blocks = self._build()

    def launch(self, port: int, *, open_browser: bool = False) -> str:
        """Start serving in the background and return the address.

        Raises:
            UserError: the port is taken.
        """
        try:
            _, url, _ = self.blocks.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                quiet=True,
                inbrowser=open_browser,
                prevent_thread_lock=True,
                allowed_paths=[str(self.out)],
                ssr_mode=False,
                footer_links=[],
                css=CSS,
            )
        except OSError as error:
            raise UserError(f"Port {port} is taken.", "Give another one with --port.") from error
        return url

    def close(self) -> None:
        """Stop the job, the viewer and the page."""
        self.runner.close()
        self.viewer.stop()
        self.blocks.close(verbose=False)

    def _show(self, job: Job) -> None:
        """Put a finished scene into the viewer and pack its folder; runs in the worker thread."""
        assert job.result is not None
        scene = job.result.scene
        cameras = None if scene.cameras is None else scene.cameras.to("cpu")
        seen = {**scene.provenance, "photos": job.photos[0], "folder": str(job.out.parent)}
        self.viewer.show(replace(scene, gaussians=scene.gaussians.to("cpu"), cameras=cameras, provenance=seen))
        pack(job.out, job.out.with_suffix(".zip"))

    def _build(self) -> gr.Blocks:
        usual = PipelineConfig()
        with gr.Blocks(title="recon", analytics_enabled=False) as blocks:
            gr.Markdown(INTRO)
            job_id = gr.State("")
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    photos = gr.File(label="Photos", file_count="multiple", file_types=TAKEN, height=220)
                    with gr.Accordion("Options", open=False):
                        side = gr.Slider(256, 1600, value=usual.long_side, step=32, label="Working size: longest side in pixels")
                        budget = gr.Number(value=0, precision=0, minimum=0, label="Most Gaussians (0: by device)")
                        holdout = gr.Number(value=0, precision=0, minimum=0, label="Score every K-th photo (0: none)")
                    with gr.Row():
                        begin = gr.Button("Reconstruct", variant="primary")
                        stop = gr.Button("Stop")
                    status = gr.HTML(draw_status(None), elem_classes="stages")
                with gr.Column(scale=3, min_width=420):
                    viewer = gr.HTML("")
                    preview = gr.Image(label=PREVIEW, interactive=False, visible=False, buttons=["download", "fullscreen"])
                    files = gr.File(label="Take it away", interactive=False, visible=False)
            begin.click(
                self.reconstruct,
                [photos, side, budget, holdout],
                [job_id, status, viewer, preview, files],
                api_name="reconstruct",
                concurrency_limit=16,
                show_progress="hidden",
            )
            stop.click(self.stop, [job_id], None, api_name="stop", show_progress="hidden")
        return blocks

    def reconstruct(self, photos: Sequence[str] | None, side: float, budget: float, holdout: float) -> Iterator[tuple[Any, ...]]:
        """Queue a job and yield what the page shows until it has finished."""
        try:
            job_id, job = self._queue(photos or [], side, budget, holdout)
        except UserError as error:
            yield "", draw_failure(error.reason, error.remedy), "", gr.update(visible=False), gr.update(visible=False)
            return
        hidden = gr.update(value=None, visible=False)
        yield job_id, draw_status(job), "", hidden, hidden
        while not job.finished:
            job.wait(POLL_S)
            if not job.finished:
                yield gr.skip(), draw_status(job), gr.skip(), gr.skip(), gr.skip()
        if job.state != "done":
            yield job_id, draw_status(job), "", hidden, hidden
            return
        link = f'<p><a href="{self.viewer.url}" target="_blank">Open the viewer in a tab of its own</a></p>'
        taken = [str(job.out / "scene.ply"), str(job.out.with_suffix(".zip"))]
        preview = gr.update(value=str(job.out / "preview.png"), visible=True)
        yield job_id, draw_status(job), FRAME.format(url=self.viewer.url) + link, preview, gr.update(value=taken, visible=True)

    def stop(self, job_id: str) -> None:
        """Ask a job to stop."""
        if job_id in self.jobs:
            self.jobs[job_id].stop()

    def _queue(self, photos: Sequence[str], side: float, budget: float, holdout: float) -> tuple[str, Job]:
        if not photos:
            raise UserError("No photos were given.", "Drop some into the box first.")
        if holdout == 1:
            raise UserError("Every photo would be held out.", "Give 0 to hold out none, or 2 or more.")
        config = PipelineConfig(long_side=int(side), holdout=Holdout(every=int(holdout)) if holdout >= 2 else None)
        config = replace(config, fuse=replace(config.fuse, max_gaussians=int(budget) or None))
        check_choices(config)
        job_id = time.strftime("%Y%m%d-%H%M%S") + f"-{len(self.jobs):03d}"
        folder = self.out / job_id
        gather(photos, folder / "photos")
        job = Job(photos=[folder / "photos"], out=folder / "scene", config=config)
        self.jobs[job_id] = job
        return job_id, self.runner.submit(job)


def gather(photos: Sequence[str], folder: Path) -> None:
    """Copy dropped photos into one folder; a second photo of the same name gets a number."""
    folder.mkdir(parents=True)
    for photo in map(Path, photos):
        target, number = folder / photo.name, 1
        while target.exists():
            number += 1
            target = folder / f"{photo.stem}_{number}{photo.suffix}"
        shutil.copyfile(photo, target)


def pack(folder: Path, target: Path) -> None:
    """Zip a result folder."""
    with atomic_path(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent))


def draw_status(job: Job | None) -> str:
    """Draw the stages of a job as HTML."""
    if job is None:
        return "<p>Eight to sixty photos that overlap by two thirds work best.</p>"
    if job.state == "failed":
        return draw_failure(job.reason, job.remedy)
    if job.state == "waiting":
        return "<p>Waiting for another reconstruction to finish.</p>"
    rows, reached = [], [stage for stage in STAGES if stage in job.events]
    for stage in reached:
        event = job.events[stage]
        share = 1.0 if job.state == "done" or stage != reached[-1] else event.fraction
        note = html.escape(event.message) if share < 1.0 else ""
        cells = (LABELS[stage], f'<progress value="{share:.3f}"></progress>', format_seconds(event.elapsed_s), note)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    closing = ""
    if job.state == "stopped":
        closing = "<p><b>Stopped.</b> Nothing was written.</p>"
    elif job.state == "done" and job.result is not None:
        closing = "".join(f"<p>{html.escape(line)}</p>" for line in summary(job.result))
    return f"<table>{''.join(rows)}</table>{closing}"


def draw_failure(reason: str, remedy: str) -> str:
    """Say what went wrong and what to do, as HTML."""
    return f'<p class="bad">{html.escape(reason)}</p><p>{html.escape(remedy)}</p>'
