"""How the page looks: colours, system fonts, the style sheet.

Input: the files in ``static``. Output: the options with which the page is mounted. Does not: fetch fonts or scripts from anywhere.
"""

from __future__ import annotations

import os
from importlib import resources
from typing import Any

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")
DESCRIPTION = '<meta name="description" content="Photos of a place become a 3D scene, on this machine.">'


def count_nothing() -> None:
    """Keep gradio from sending usage data, and from summing up its own events with pandas after each of them."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)


def static(name: str) -> str:
    """Read a style sheet or script of the page."""
    return resources.files("app.web").joinpath("static", name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Quiet colours with enough contrast to read, in light and dark."""
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="md", text_size="md", font=FONTS, font_mono=MONO
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_800",
        block_border_width="1px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_large_text_weight="600",
        input_background_fill="white",
        input_border_width="1px",
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_300",
        slider_color="*primary_700",
        color_accent="*primary_700",
    )  # fmt: skip


def page_options() -> dict[str, Any]:
    """What ``gradio.mount_gradio_app`` takes beside the blocks."""
    return {"theme": theme(), "css": static("page.css"), "head": DESCRIPTION, "footer_links": [], "ssr_mode": False, "pwa": False}
