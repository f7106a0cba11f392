"""One scene shown by a process of its own: ``python -m app.viewing.child --scene PATH --port 0 --idle-s 600``.

Input: a SCENE; with ``--wait`` in its place everything is loaded first and then one line is read, ``{"scene", "photos"}``.
Output: one line of JSON on stdout, ``{"port": 40123}`` once it can be visited, or ``{"error", "remedy"}`` and exit code 2. The
process ends by itself when nobody has been connected for ``--idle-s`` seconds. Under a server, the variable
RECON_VIEWER_KEY holds a secret: every request must then carry it, and the process ends when its stdin is closed.
Does not: know visitors apart; it listens on 127.0.0.1 and stands behind the app's own port.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from recon.errors import UserError

EXIT_USER_ERROR = 2
KEY_VARIABLE = "RECON_VIEWER_KEY"
LOOK_EVERY_S = 0.5
NEEDED = "render.rasterizer", "app.scene_files", "app.viewer"
"""What showing a scene imports; most of the seconds until it can be seen."""
PATIENCE_S = 900.0
"""Seconds a process that was started ahead waits for its scene."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m app.viewing.child", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scene", type=Path, help="output folder of `recon run`, or a splat file")
    what.add_argument("--wait", action="store_true", help="load everything, then read the scene's name on stdin")
    parser.add_argument("--photos", type=Path, default=None, help="folder of the photos, when they have moved")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--idle-s", type=float, default=600.0, help="end after so long without a visitor; 0 never")
    return parser.parse_args(arguments)


def answer(**facts: object) -> None:
    """Tell the process that started this one."""
    print(json.dumps(facts), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Show a scene until nobody looks at it any more."""
    given = parse(arguments)
    key = os.environ.pop(KEY_VARIABLE, None)
    if given.wait:
        wait_for_order(given)
    if key is not None:
        threading.Thread(target=end_with_server, name="recon-server-watch", daemon=True).start()
    from render.rasterizer import load_rasterizer

    from ..scene_files import load_scene
    from ..viewer import SceneViewer

    try:
        scene = load_scene(given.scene, photos=given.photos)
        if len(scene.gaussians) == 0:
            raise UserError(f"{given.scene} holds no Gaussians.", "Run the reconstruction again.")
        viewer = SceneViewer(port=given.port, rasterizer=load_rasterizer("cpu"), key=key)
    except UserError as error:
        answer(error=error.reason, remedy=error.remedy)
        return EXIT_USER_ERROR
    try:
        viewer.show(scene)
        answer(port=viewer.server.get_port())
        sys.stdout = sys.stderr  # what is printed from here on is for people
        watch(viewer, given.idle_s)
    except KeyboardInterrupt:
        return 130
    finally:
        viewer.stop()
    return 0


def wait_for_order(given: argparse.Namespace) -> None:
    """Load everything while nobody waits, then learn the scene; ends the process when none comes."""
    late = threading.Timer(PATIENCE_S, os._exit, (0,))
    late.daemon = True
    late.start()
    for module in NEEDED:
        import_module(module)
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    late.cancel()
    order = json.loads(line)
    given.scene, given.photos = Path(order["scene"]), Path(order["photos"]) if order["photos"] else None


def end_with_server() -> None:
    """End this process when the one that started it closes our stdin, which its death does."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def watch(viewer: object, idle_s: float) -> None:
    """Return once nobody has been connected for ``idle_s`` seconds."""
    last_seen = time.monotonic()
    while idle_s <= 0 or time.monotonic() - last_seen < idle_s:
        if viewer.server.get_clients():  # pyright: ignore[reportAttributeAccessIssue]
            last_seen = time.monotonic()
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
