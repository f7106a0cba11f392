"""The panel beside the picture, page by page, and the hint for who is here for the first time.

Input: a ``Visitor``. Output: its controls.
"""

from __future__ import annotations

import logging

from .meshes import MeshMaker
from .panel_edit import add_cleaning, add_crop, add_ground, add_undo
from .panel_look import add_drawing, add_layers, add_photos, add_reset
from .panel_measure import add_measuring
from .panel_path import add_path
from .panel_save import add_saving
from .visitor import Visitor

logger = logging.getLogger(__name__)

HINT_KEY = "recon-viewer-hint"
HINT_WAIT_S = 10.0
NARROW_PX = 700
"""Below this width of the canvas the panel starts folded: it would cover half of the scene."""
HINT = """
| | mouse | touch |
|---|---|---|
| turn | drag | one finger |
| shift | right button, or Shift and drag | two fingers |
| closer, farther | wheel | pinch |

**Keys**: W A S D Q E move, arrows turn, N and P go from photo to photo, B draws in the browser or on the server, C shows the
cameras, M measures, K keeps a key frame, U undoes, X takes a picture, R goes back to the first view, H shows this again.

Click a camera to look through it. Edits are kept apart from the scene until you save.
"""


def add_panels(visitor: Visitor, meshes: MeshMaker) -> None:
    """Lay out everything for a visitor."""
    gui = visitor.client.gui
    title = gui.add_markdown("")

    def refresh() -> None:
        document = visitor.document
        count, cameras = len(document.gaussians), 0 if document.placed is None else len(document.placed)
        title.content = f"**{visitor.stage.name}** · {count:,} Gaussians · {cameras} cameras"

    visitor.refreshers.append(refresh)
    refresh()
    eye = visitor.eye
    if eye.height > eye.width:  # a phone: its panel lies over the scene and cannot be folded from here, but a folder in it can
        with gui.add_folder("Controls", expand_by_default=False):
            add_tabs(visitor, meshes)
    else:
        add_tabs(visitor, meshes)
        if eye.width < NARROW_PX:
            gui.main_panel.minimize()


def add_tabs(visitor: Visitor, meshes: MeshMaker) -> None:
    """The pages of the panel."""
    gui = visitor.client.gui
    tabs = gui.add_tab_group()
    with tabs.add_tab("Look"):
        add_reset(visitor)
        add_photos(visitor)
        add_drawing(visitor)
        add_layers(visitor, meshes)
        help_button = gui.add_button("Help", hint="Key: H")
    with tabs.add_tab("Edit"):
        add_crop(visitor)
        add_cleaning(visitor)
        add_ground(visitor)
        add_undo(visitor)
    with tabs.add_tab("Measure"):
        add_measuring(visitor)
    with tabs.add_tab("Path"):
        add_path(visitor)
    with tabs.add_tab("Save"):
        add_saving(visitor)
    help_button.on_click(lambda _: show_hint(visitor))
    command = gui.add_command("Help", hotkey="H")
    command.on_trigger(lambda _: show_hint(visitor))


def show_hint(visitor: Visitor) -> None:
    """Say how to move."""
    gui = visitor.client.gui
    with gui.add_modal("Walking round the scene") as modal:
        gui.add_markdown(HINT)
        close = gui.add_button("Go on")
        close.on_click(lambda _: modal.close())


def greet(visitor: Visitor) -> None:
    """Show the hint once per browser."""
    storage = visitor.client.local_storage
    try:
        seen = storage.get_item(HINT_KEY, timeout=HINT_WAIT_S)
        if seen is None:
            storage.set_item(HINT_KEY, "seen")
            show_hint(visitor)
    except (RuntimeError, TimeoutError) as error:  # the browser keeps nothing, or is gone again
        logger.info("no first-time hint: %s", error)
