"""The panel's page for lengths: measure between two points, say how long something is.

Input: a ``Visitor``. Output: controls and lines in its browser, the scale of the document.
Does not: move anything; the scale is applied when the scene is saved.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .visitor import Visitor

LINE_COLOR = (255, 80, 80)
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}


def said_length(units: float, metres_per_unit: float | None) -> str:
    """A length in words: in the unit that suits it, or in units of the scene when nobody knows the scale."""
    if metres_per_unit is None:
        return f"{units:.4g} units"
    metres = units * metres_per_unit
    if metres >= 1.0:
        return f"{metres:.3f} m"
    return f"{100 * metres:.2f} cm" if metres >= 0.01 else f"{1000 * metres:.2f} mm"


class Ruler:
    """Lines between pairs of points, with their lengths."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self.pairs: list[Tensor] = []
        self._nodes: list[object] = []

    def add(self, points: Tensor) -> None:
        """Keep a pair of points, ``2 3`` world units."""
        self.pairs.append(points)
        self.draw()

    def clear(self) -> None:
        """Forget all pairs."""
        self.pairs.clear()
        self.draw()

    @property
    def last(self) -> float | None:
        """Length of the last pair, world units."""
        return float((self.pairs[-1][1] - self.pairs[-1][0]).norm()) if self.pairs else None

    def draw(self) -> None:
        """Put lines and lengths into the page."""
        scene, document = self._visitor.client.scene, self._visitor.document
        for node in self._nodes:
            node.remove()  # pyright: ignore[reportAttributeAccessIssue] viser's scene nodes
        self._nodes.clear()
        for index, pair in enumerate(self.pairs):
            ends = document.frame.to_page(pair)
            line = scene.add_line_segments(
                f"/lengths/{index}/line", ends[None].astype(np.float32), LINE_COLOR, thickness=3.0, thickness_units="screen"
            )
            length = said_length(float((pair[1] - pair[0]).norm()), document.step.metres_per_unit)
            label = scene.add_label(f"/lengths/{index}/label", length, position=ends.mean(axis=0), anchor="bottom-center")
            self._nodes += [line, label]


def add_measuring(visitor: Visitor) -> Ruler:
    """Measure, and set the scale from a known length."""
    gui, ruler, document = visitor.client.gui, Ruler(visitor), visitor.document
    button = gui.add_button("Measure", hint="Click two points of the scene. Key: M")
    said = gui.add_markdown("")
    known = gui.add_number("It really is", initial_value=1.0, min=0.0, step=0.001, disabled=True)
    unit = gui.add_dropdown("Unit", tuple(METRES), initial_value="m", disabled=True)
    apply = gui.add_button("Set the scale", disabled=True, hint="The whole scene is then in metres; undo takes it back")
    clear = gui.add_button("Clear lengths", disabled=True)

    def done(points: Tensor) -> None:
        ruler.add(points)
        refresh()

    def start(_: object) -> None:
        if visitor.tool.active:
            visitor.tool.stop()
            return
        button.label = "Click 2 points (here to stop)"
        visitor.tool.start(2, done, lambda: setattr(button, "label", "Measure"))

    def set_scale(_: object) -> None:
        if ruler.last is not None:
            length, metres = ruler.last, float(known.value) * METRES[unit.value]
            visitor.attempt(lambda: document.set_length(length, metres))

    def forget(_: object) -> None:
        ruler.clear()
        refresh()

    def refresh() -> None:
        for control in (known, unit, apply, clear):
            control.disabled = not ruler.pairs
        scale = document.step.metres_per_unit
        length = "" if ruler.last is None else f"Last: **{said_length(ruler.last, scale)}**. "
        said.content = length + ("The scale is not known." if scale is None else f"One unit of the scene is {scale:.4g} m.")

    def redraw() -> None:
        ruler.draw()
        refresh()

    button.on_click(start)
    apply.on_click(set_scale)
    clear.on_click(forget)
    visitor.refreshers.append(redraw)
    command = gui.add_command("Measure between two points", hotkey="M")
    command.on_trigger(start)
    refresh()
    return ruler
