"""The panel's page for a camera path: key frames, and a video along them.

Input: a ``Visitor``. Output: controls in its browser, an MP4 file to download.
"""

from __future__ import annotations

import numpy as np
import viser

from .flight import FPS, LONGEST_S, SIZES, film, flight
from .page_frame import Eye
from .visitor import Visitor

KEY_COLOR = (90, 200, 250)


class KeyFrames:
    """The key frames of one visitor, and how they look in the page."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self.eyes: list[Eye] = []
        self._nodes: list[viser.SceneNodeHandle] = []
        self._R_page_world = visitor.document.step.R_page_world

    def follow(self) -> bool:
        """Turn with the scene when somebody sets the ground; True when that was so."""
        now = self._visitor.document.step.R_page_world
        turned = (now @ self._R_page_world.T).numpy()
        self._R_page_world = now
        if np.allclose(turned, np.eye(3), atol=1e-9):
            return False
        self.eyes[:] = [eye.turned(turned) for eye in self.eyes]
        return True

    def draw(self, *, loop: bool) -> None:
        """Put them and the way between them into the page."""
        scene = self._visitor.client.scene
        for node in self._nodes:
            node.remove()
        self._nodes.clear()
        for index, eye in enumerate(self.eyes):
            frustum = scene.add_camera_frustum(
                f"/path/{index}",
                fov=eye.fov,
                aspect=eye.width / eye.height,
                scale=0.5 * (self._visitor.nodes.side or 0.5),
                color=KEY_COLOR,
                wxyz=eye.wxyz,
                position=eye.position,
            )
            frustum.on_click(lambda _, eye=eye: self._visitor.go_to_eye(eye))
            self._nodes.append(frustum)
        if len(self.eyes) > 1:
            points = np.array([eye.position for eye in self.eyes])
            line = scene.add_spline_catmull_rom(
                "/path/way", points, closed=loop, color=KEY_COLOR, thickness=2.0, thickness_units="screen"
            )
            self._nodes.append(line)


def add_path(visitor: Visitor) -> KeyFrames:
    """Key frames and their list."""
    gui, keys = visitor.client.gui, KeyFrames(visitor)
    add = gui.add_button("Add key frame here", hint="Key: K")
    which = gui.add_dropdown("Key frame", list[str](("none",)), disabled=True)
    doing = gui.add_button_group("", ("go", "replace", "delete"), disabled=True)
    loop = gui.add_checkbox("Closed loop", initial_value=False)
    clear = gui.add_button("Clear path", disabled=True)

    def redraw(chosen: int | None = None) -> None:
        labels = tuple(f"{index + 1}" for index in range(len(keys.eyes))) or ("none",)
        which.options = labels
        which.value = labels[min(chosen if chosen is not None else len(labels) - 1, len(labels) - 1)]
        for control in (which, doing, clear):
            control.disabled = not keys.eyes
        keys.draw(loop=loop.value)

    def add_key(_: object) -> None:
        keys.eyes.append(visitor.eye)
        redraw()

    def do(_: object) -> None:
        if not keys.eyes:
            return
        index = int(which.value) - 1
        if doing.value == "go":
            visitor.go_to_eye(keys.eyes[index])
        elif doing.value == "replace":
            keys.eyes[index] = visitor.eye
            redraw(index)
        else:
            del keys.eyes[index]
            redraw(max(0, index - 1))

    def forget(_: object) -> None:
        keys.eyes.clear()
        redraw()

    add.on_click(add_key)
    doing.on_click(do)
    loop.on_update(lambda _: keys.draw(loop=loop.value))
    clear.on_click(forget)
    visitor.refreshers.append(lambda: keys.draw(loop=loop.value) if keys.follow() else None)
    command = gui.add_command("Add a key frame here", hotkey="K")
    command.on_trigger(add_key)
    add_video(visitor, keys, loop)
    return keys


def add_video(visitor: Visitor, keys: KeyFrames, loop: viser.GuiCheckboxHandle) -> None:
    """Render the path to a video."""
    gui = visitor.client.gui
    seconds = gui.add_number("Seconds", initial_value=6.0, min=0.5, max=LONGEST_S, step=0.5)
    size = gui.add_dropdown("Size", tuple(SIZES), initial_value="1280 x 720")
    button = gui.add_button("Render the video", hint=f"{FPS} frames per second, drawn by the server, downloaded as MP4")
    bar = gui.add_progress_bar(0.0, visible=False)
    state = {"running": False, "stop": False}

    def tell(share: float) -> None:
        bar.value = 100.0 * share

    def render() -> bytes | None:
        frames = max(2, round(float(seconds.value) * FPS))
        path = flight(keys.eyes, visitor.document.frame, frames, SIZES[size.value], loop=loop.value)
        bar.value, bar.visible, button.label = 0.0, True, "Stop"
        left = visitor.painter.sets.get(visitor.look, 1.0)
        return film(visitor.painter, left, path, visitor.look, tell, lambda: state["stop"])

    def start(_: object) -> None:
        if state["running"]:
            state["stop"] = True
            return
        state.update(running=True, stop=False)
        try:
            video = visitor.attempt(render)
            if video is not None:
                visitor.client.send_file_download(f"{visitor.stage.name}-path.mp4", video)
        finally:
            state["running"] = False
            bar.visible, button.label = False, "Render the video"

    button.on_click(start)
    visitor.on_leave.append(lambda: state.update(stop=True))
