"""The panel's page for changing the scene: crop, clean, ground, undo.

Input: a ``Visitor``. Output: controls in its browser, edits of the document.
Does not: touch the scene on disk.
"""

from __future__ import annotations

import numpy as np
import torch
import viser

from recon.editing import floater_mask, quantiles
from recon.geometry import quats_to_rotations
from recon.records import Gaussians

from .document import Box
from .visitor import Visitor

FLOATER_SHARE = 0.002
"""Groups of touching Gaussians smaller than this share of the scene are floaters; as in `recon clean`."""
BOX_LEVELS = (0.1, 0.9)
"""Quantiles of the centres that the box starts with."""
BOX_COLOR = (255, 200, 60)


class CropBox:
    """A box with a gizmo; what lies outside is not drawn while it is there."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._gizmo: viser.TransformControlsHandle | None = None
        self._frame: viser.BoxHandle | None = None
        self.size = np.ones(3)

    def open(self) -> np.ndarray:
        """Show the box around the middle of the scene; returns its sides, page units."""
        lower, upper = self._extent(self._visitor.document.gaussians)
        self.size = np.maximum(upper - lower, 1e-3)
        client, middle = self._visitor.client, (lower + upper) / 2
        self._gizmo = client.scene.add_transform_controls("/crop", scale=0.35 * float(self.size.max()), position=middle)
        self._frame = client.scene.add_box(
            "/crop/box", color=BOX_COLOR, dimensions=self.size, wireframe=True, cast_shadow=False, receive_shadow=False
        )
        self._gizmo.on_update(lambda _: self.preview())
        self.preview()
        return self.size

    def _extent(self, gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
        page = torch.from_numpy(self._visitor.document.frame.to_page(gaussians.means))
        ends = [quantiles(page[:, axis], BOX_LEVELS) for axis in range(3)]
        return np.array([low for low, _ in ends]), np.array([high for _, high in ends])

    def resize(self, size: tuple[float, float, float]) -> None:
        """Change the sides, page units."""
        self.size = np.maximum(np.asarray(size, np.float64), 1e-3)
        if self._frame is not None:
            self._frame.dimensions = (float(self.size[0]), float(self.size[1]), float(self.size[2]))
            self.preview()

    @property
    def box(self) -> Box | None:
        """The box in the world."""
        if self._gizmo is None:
            return None
        frame = self._visitor.document.frame
        R_page_box = quats_to_rotations(torch.tensor(np.array([self._gizmo.wxyz]), dtype=torch.float64))[0]
        return Box(
            center_world=frame.to_world(np.asarray(self._gizmo.position)),
            R_world_box=frame.R_page_world.T @ R_page_box,
            size=torch.from_numpy(self.size / frame.scale),
        )

    def preview(self) -> None:
        """Draw only what lies within."""
        self._visitor.change(box=self.box)

    def close(self) -> None:
        """Take the box away."""
        for node in (self._frame, self._gizmo):
            if node is not None:
                node.remove()
        self._gizmo = self._frame = None
        self._visitor.change(box=None)


def add_crop(visitor: Visitor) -> None:
    """Crop with a box."""
    gui, box = visitor.client.gui, CropBox(visitor)
    shown = gui.add_checkbox("Crop box", initial_value=False, hint="Drag its arrows and arcs; only what lies within is drawn")
    size = gui.add_vector3("Box sides", (1.0, 1.0, 1.0), min=(0.01, 0.01, 0.01), step=0.1, visible=False)
    keep = gui.add_button_group("Keep", ("inside", "outside"), visible=False)

    def choose(_: object) -> None:
        for control in (size, keep):
            control.visible = shown.value
        if shown.value:
            size.value = np.round(box.open(), 2)
        else:
            box.close()

    def cut(_: object) -> None:
        if box.box is None:
            return
        inside = box.box.inside(visitor.document.gaussians.means)
        gone = ~inside if keep.value == "inside" else inside
        removed = visitor.attempt(lambda: visitor.document.remove("crop", gone))
        if removed is not None:
            shown.value = False
            visitor.say("Cropped", f"{removed:,} Gaussians removed. Undo brings them back.")

    seen_R = [visitor.document.step.R_page_world]

    def refresh() -> None:
        now = visitor.document.step.R_page_world
        if shown.value and not torch.equal(now, seen_R[0]):
            shown.value = False  # the scene was turned under the box
        seen_R[0] = now

    visitor.refreshers.append(refresh)
    shown.on_update(choose)
    size.on_update(lambda _: box.resize(size.value))
    keep.on_click(cut)


def add_cleaning(visitor: Visitor) -> None:
    """Remove what floats, or what the thresholds hide."""
    gui, document = visitor.client.gui, visitor.document
    floaters = gui.add_button("Remove floaters", hint="Small groups of Gaussians that touch nothing else")
    hidden = gui.add_button("Remove what is hidden", hint="What the sliders 'Hide fainter than' and 'Seen by at least' hide")

    def remove_floaters(_: object) -> None:
        removed = visitor.attempt(lambda: document.remove("floaters removed", floater_mask(document.gaussians, FLOATER_SHARE)))
        if removed is not None:
            visitor.say("Floaters", f"{removed:,} Gaussians removed." if removed else "None were found.")

    def remove_hidden(_: object) -> None:
        look, seen = visitor.look, visitor.painter.sets.seen
        gone = document.gaussians.opacities < look.opacity_min
        if look.seen_min > 0 and seen is not None:
            gone |= seen[document.step.keep] < look.seen_min
        removed = visitor.attempt(lambda: document.remove("hidden removed", gone))
        if removed is not None:
            visitor.say("Hidden Gaussians", f"{removed:,} removed." if removed else "The sliders hide none.")

    floaters.on_click(remove_floaters)
    hidden.on_click(remove_hidden)


def add_ground(visitor: Visitor) -> None:
    """Say where the ground is."""
    gui = visitor.client.gui
    button = gui.add_button("Set the ground", hint="Click three points of the floor or of any level surface; up is then known")

    def start(_: object) -> None:
        if visitor.tool.active:
            visitor.tool.stop()
            return
        button.label = "Click 3 points (here to stop)"
        visitor.tool.start(
            3,
            lambda points: visitor.attempt(lambda: visitor.document.set_ground(points)),
            lambda: setattr(button, "label", "Set the ground"),
        )

    button.on_click(start)


def add_undo(visitor: Visitor) -> None:
    """Take edits back."""
    gui = visitor.client.gui
    button = gui.add_button("Undo", hint="Key: U", disabled=True)
    said = gui.add_markdown("")

    def undo(_: object) -> None:
        undone = visitor.document.undo()
        visitor.say("Undone" if undone else "There is nothing to undo", undone or "")

    def refresh() -> None:
        history = visitor.document.history
        button.disabled = not history
        said.content = "\n".join(f"{index + 1}. {done}" for index, done in enumerate(history)) or "Nothing was changed."

    button.on_click(undo)
    command = gui.add_command("Undo", hotkey="U")
    command.on_trigger(undo)
    visitor.refreshers.append(refresh)
    refresh()
