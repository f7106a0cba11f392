"""The same for programs: Gradio's client asks for a reconstruction and for its state.

Input: uploaded files and a few choices. Output: plain records. Does not: show anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from recon.errors import UserError

from ..server.exports import EXPORTS
from ..server.records import Jobs, JobView
from ..server.settings import RunSettings
from .new_scene import OwnerOf


def add_api(jobs: Jobs, owner_of: OwnerOf) -> None:
    """Add the endpoints ``/reconstruct``, ``/status``, ``/export`` and ``/delete`` to the blocks being built."""

    def tell(error: UserError) -> gr.Error:
        return gr.Error(str(error), print_exception=False)

    def reconstruct(
        photos: Sequence[str] | None, settings: dict[str, Any] | None, name: str, request: gr.Request
    ) -> dict[str, Any]:
        """Queue photos, a zip or a video. Settings are those of the HTTP API, {"preset": "fast"} for instance."""
        owner = owner_of(request)
        try:
            chosen = RunSettings.read(settings or {})
            return describe(jobs.submit(owner, [Path(path) for path in photos or ()], chosen, name=name or ""), jobs, owner)
        except UserError as error:
            raise tell(error) from error

    def status(job: str, request: gr.Request) -> dict[str, Any]:
        """Say how far a job is, and where its files are found."""
        owner = owner_of(request)
        try:
            return describe(jobs.get(owner, job), jobs, owner)
        except UserError as error:
            raise tell(error) from error

    def export(job: str, format: str, request: gr.Request) -> dict[str, Any]:
        """Make one of the files to take home; returns its path on this server."""
        owner = owner_of(request)
        try:
            file = jobs.export(owner, job, format)
            return {"file": file.name, "bytes": file.stat().st_size, "href": jobs.file_path(owner, job, file)}
        except UserError as error:
            raise tell(error) from error

    def delete(job: str, request: gr.Request) -> dict[str, Any]:
        """Remove a job with all its files."""
        try:
            jobs.delete(owner_of(request), job)
        except UserError as error:
            raise tell(error) from error
        return {"deleted": job}

    photos = gr.File(label="photos", file_count="multiple", visible=False)
    settings, answer = gr.JSON(label="settings", visible=False), gr.JSON(label="job", visible=False)
    name, job = gr.Textbox(label="name", visible=False), gr.Textbox(label="job", visible=False)
    format = gr.Textbox(label="format", visible=False)
    ask = gr.Button(visible=False)
    ask.click(reconstruct, [photos, settings, name], answer, api_name="reconstruct", concurrency_limit=8)
    ask.click(status, [job], answer, api_name="status", concurrency_limit=32)
    ask.click(export, [job, format], answer, api_name="export", concurrency_limit=4)
    ask.click(delete, [job], answer, api_name="delete")


def describe(view: JobView, jobs: Jobs, owner: str) -> dict[str, Any]:
    """A job as a plain record; no path of the server in it."""
    stages = {
        name: {"fraction": stage.fraction, "message": stage.message, "seconds": stage.seconds}
        for name, stage in view.stages.items()
    }
    files = {}
    if view.scene is not None:
        ready = {kind.file: view.scene / kind.file for kind in EXPORTS.values() if kind.from_run}
        files = {name: jobs.file_path(owner, view.id, file) for name, file in ready.items() if file.is_file()}
    return {
        "id": view.id,
        "name": view.name,
        "state": view.state,
        "position": view.position,
        "photos": list(view.photos),
        "stages": stages,
        "advice": list(view.advice),
        "reason": view.reason,
        "remedy": view.remedy,
        "offending": list(view.offending),
        "counts": (view.report or {}).get("counts"),
        "quality": (view.report or {}).get("quality"),
        "files": files,
    }
