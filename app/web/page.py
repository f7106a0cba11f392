"""The page as a whole: a tab to begin a scene, a tab with all scenes, and the same for programs.

Input: ``Jobs`` and who a request belongs to. Output: Gradio blocks that the server mounts. Does not: serve, or keep jobs.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from recon.errors import UserError

from ..server.records import Jobs
from .api import add_api
from .new_scene import NewScene, OwnerOf
from .scenes import Scenes
from .style import count_nothing
from .words import told

HEADER = (
    """<header class="site"><h1>recon</h1><p>Photos of a place become a 3D scene. Everything stays on this machine.</p></header>"""
)
JOB_OF_ADDRESS = "() => [new URL(window.location.href).searchParams.get('job') || '']"


def build_page(jobs: Jobs, owner_of: OwnerOf) -> gr.Blocks:
    """Build the page.

    Args:
        jobs: the server's side.
        owner_of: whose jobs a request may see.
    """
    count_nothing()
    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="recon: photos to a 3D scene", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(HEADER)
        with gr.Tabs(selected="new", elem_id="tabs") as tabs:
            with gr.Tab("New scene", id="new"):
                new = NewScene(jobs, owner_of)
                refusal = gr.HTML("", elem_id="refusal")
            with gr.Tab("My scenes", id="scenes") as mine:
                scenes = Scenes(jobs, owner_of)
        add_api(jobs, owner_of)
        asked = gr.Textbox(visible=False)

        def begin(request: gr.Request, tray: Any, name: str, masks: Any, *values: Any) -> tuple[Any, ...]:
            """Queue what is on the table and open it in the other tab; the table is kept when it is refused."""
            owner = owner_of(request)
            try:
                job = new.submit(tray, name, masks, values, owner)
            except UserError as error:
                return told(error), gr.skip(), *[gr.skip()] * (len(new.table) + 2 + len(scenes.screen))
            return "", gr.update(selected="scenes"), *new.empty(), "", None, *scenes.open(job, owner)

        def arrive(job: str, request: gr.Request) -> tuple[Any, ...]:
            """Open the scene that the page's address names."""
            if not job:
                return gr.skip(), *[gr.skip()] * len(scenes.screen)
            return gr.update(selected="scenes"), *scenes.open(job, owner_of(request))

        def visit(shown: Any, request: gr.Request) -> Any:
            """Bring the cards up to date."""
            return gr.skip() if shown.job else scenes.cards(owner_of(request))

        new.start.click(
            begin,
            [new.tray, new.name, new.masks, *new.choices],
            [refusal, tabs, *new.table, new.name, new.masks, *scenes.screen],
            concurrency_limit=8,
            **hidden,
        )
        mine.select(visit, [scenes.shown], [scenes.gallery], **hidden)
        blocks.load(arrive, [asked], [tabs, *scenes.screen], js=JOB_OF_ADDRESS, **hidden)
    return blocks
