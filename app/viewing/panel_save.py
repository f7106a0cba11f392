"""The panel's page for taking things along: a picture, the edited scene.

Input: a ``Visitor``. Output: controls in its browser, files.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from recon.formats.registry import FORMATS, write_splats

from .pictures import paint
from .saving import save_edited
from .splats import SHOWN_DISTANCE
from .visitor import Visitor

PICTURE_SIDES = {"as shown": None, "1920": 1920, "3840": 3840}
ANSWER_S = 120.0


def screenshot(visitor: Visitor, long_side: int | None) -> bytes:
    """Draw what the visitor sees by our rasteriser, as PNG.

    Args:
        long_side: pixels of the longer side; None takes the canvas.
    """
    eye, look, document = visitor.eye, visitor.look, visitor.document
    if long_side is not None:
        factor = long_side / max(eye.width, eye.height)
        eye = eye.sized(round(eye.width * factor), round(eye.height * factor))

    def draw():
        drawn = visitor.painter.draw(visitor.painter.sets.get(look, 1.0), eye, look)
        return paint(drawn, look, eye, document.frame, SHOWN_DISTANCE / document.scale)

    picture = visitor.painter.ask(draw).result(timeout=ANSWER_S)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def add_saving(visitor: Visitor) -> None:
    """Screenshot, save, download."""
    gui, stage = visitor.client.gui, visitor.stage
    side = gui.add_dropdown("Picture", tuple(PICTURE_SIDES), initial_value="as shown", hint="Pixels of the longer side")
    shot = gui.add_button("Screenshot", hint="Drawn by the server, without cameras and gizmos. Key: X")
    save = gui.add_button("Save the edited scene", hint="Beside the scene, as a folder 'edited'; what was opened stays as it is")
    take = gui.add_button("Download the edited scene", hint="A .ply file with the edits, the ground and the scale applied")
    said = gui.add_markdown("")

    def take_picture(_: object) -> None:
        picture = visitor.attempt(lambda: screenshot(visitor, PICTURE_SIDES[side.value]))
        if picture is not None:
            visitor.client.send_file_download(f"{stage.name}.png", picture, save_immediately=True)

    def keep(_: object) -> None:
        target = visitor.attempt(lambda: save_edited(visitor.document, stage.folder))
        if target is not None:
            said.content = f"Saved in `{target.parent.name}/{target.name}`: {len(visitor.document.gaussians):,} Gaussians."
            visitor.say("Saved", said.content)

    def download(_: object) -> None:
        def write() -> bytes:
            with tempfile.TemporaryDirectory(prefix="recon-take-") as folder:
                path = Path(folder) / "scene.ply"
                write_splats(path, visitor.document.edited().gaussians, FORMATS["ply"])
                return path.read_bytes()

        content = visitor.attempt(write)
        if content is not None:
            visitor.client.send_file_download(f"{stage.name}-edited.ply", content)

    shot.on_click(take_picture)
    save.on_click(keep)
    take.on_click(download)
    command = gui.add_command("Screenshot", hotkey="X")
    command.on_trigger(take_picture)
