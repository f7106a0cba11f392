"""One viewer process per open scene, on loopback, closed when nobody looks.

Input: an owner, a job and its scene. Output: a path on the app's own port, and the viewer behind it. Does not: draw, or forward.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .limits import Limits
from .processes import HOME, child_environment, end_child, let_go, new_group
from .refusals import NotThere, Refused

START_S = 120.0
"""Seconds a viewer may take to load its scene."""
KEY_HEADER, KEY_VARIABLE = "X-Recon-Key", "RECON_VIEWER_KEY"
"""The child answers nobody who does not send its key: other users of this machine can reach its port, too."""
IDLE_FACTOR = 3.0
"""The child ends itself after this many times the idle time, should the server be gone."""


def new_key() -> str:
    """What nobody guesses."""
    return secrets.token_urlsafe(24)


@dataclass
class Viewer:
    """An open viewer."""

    owner: str
    job_id: str
    scene: Path
    secret: str = field(default_factory=new_key)
    key: str = field(default_factory=new_key)
    """What the child wants to hear with every request."""
    port: int = 0
    child: subprocess.Popen | None = None
    sockets: int = 0
    """Open WebSockets."""
    used_s: float = field(default_factory=time.monotonic)
    starting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> str:
        return f"/view/{self.job_id}/{self.secret}/"

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.poll() is None


class Viewers:
    """All open viewers.

    Args:
        limits: how many, and how long they rest.
        module: what the child runs.
    """

    def __init__(self, limits: Limits, *, module: str = "app.viewing.child") -> None:
        self._limits, self._module = limits, module
        self._open: dict[tuple[str, Path], Viewer] = {}
        self._lock = threading.Lock()
        self._ahead: tuple[subprocess.Popen, str] | None = None

    def open(self, owner: str, job_id: str, scene: Path, photos: Path) -> Viewer:
        """The viewer of a scene; started when it is not there (seconds).

        Raises:
            Refused: the scene cannot be shown, or too many viewers are in use.
        """
        with self._lock:
            viewer = self._open.setdefault((job_id, scene), Viewer(owner=owner, job_id=job_id, scene=scene))
        with viewer.starting:
            viewer.used_s = time.monotonic()
            if not viewer.alive:
                self._make_room(viewer)
                self._start(viewer, photos)
            viewer.used_s = time.monotonic()
        return viewer

    def warm(self) -> None:
        """Start the next viewer's process before it is wanted, as loading takes seconds. It ends by itself when it is not."""
        with self._lock:
            if self._ahead is not None and self._ahead[0].poll() is None:
                return
            before, self._ahead = self._ahead, None
            if before is not None:
                _end(before[0])
            key = new_key()
            try:
                self._ahead = self._spawn(["--wait"], key), key
            except OSError:
                return

    def find(self, owner: str, job_id: str, secret: str) -> Viewer:
        """An open viewer, by all that its address names.

        Raises:
            NotThere: one of them does not fit.
        """
        with self._lock:
            here = [viewer for viewer in self._open.values() if viewer.job_id == job_id and viewer.owner == owner and viewer.port]
        viewer = next((one for one in here if secrets.compare_digest(one.secret.encode(), secret.encode())), None)
        if viewer is None or not viewer.alive:
            raise NotThere
        viewer.used_s = time.monotonic()
        return viewer

    def close(self, job_id: str | None = None) -> None:
        """Close the viewers of a job, or all."""
        with self._lock:
            going = [key for key in self._open if job_id is None or key[0] == job_id]
            viewers = [self._open.pop(key) for key in going]
            ahead, self._ahead = (self._ahead, None) if job_id is None else (None, self._ahead)
        for viewer in viewers:
            _end(viewer.child)
        if ahead is not None:
            _end(ahead[0])

    def tidy(self) -> None:
        """Close what nobody has looked at for a while, and forget what has ended."""
        now = time.monotonic()
        with self._lock:
            rested = [
                key
                for key, viewer in self._open.items()
                if viewer.port and (not viewer.alive or (viewer.sockets == 0 and now - viewer.used_s > self._limits.viewer_idle_s))
            ]
            viewers = [self._open.pop(key) for key in rested]
        for viewer in viewers:
            _end(viewer.child)

    def __len__(self) -> int:
        return sum(viewer.alive for viewer in list(self._open.values()))

    def _make_room(self, wanted: Viewer) -> None:
        """Close the viewer that rested longest when there are too many."""
        with self._lock:
            others = [key for key, viewer in self._open.items() if viewer.alive and viewer is not wanted]
            if len(others) < self._limits.max_viewers:
                return
            resting = [key for key in others if self._open[key].sockets == 0]
            if not resting:
                raise Refused(f"{len(others)} viewers are in use.", "Close one, or try again in a few minutes.", 503)
            oldest = self._open.pop(min(resting, key=lambda key: self._open[key].used_s))
        _end(oldest.child)

    def _spawn(self, words: list[str], key: str) -> subprocess.Popen:
        words = [*words, "--port", "0", "--idle-s", f"{max(60.0, IDLE_FACTOR * self._limits.viewer_idle_s):g}"]
        return subprocess.Popen(
            [sys.executable, "-m", self._module, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, cwd=HOME, env={**child_environment(self._limits.cores), KEY_VARIABLE: key}, **new_group(),
        )  # fmt: skip

    def _begin(self, viewer: Viewer, photos: Path | None) -> subprocess.Popen:
        """The process of a viewer: the one started ahead, or a new one."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        if ahead is not None:
            child, key = ahead
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps({"scene": str(viewer.scene), "photos": str(photos or "")}) + "\n")
                child.stdin.flush()
            except OSError:
                _end(child)
            else:
                viewer.key = key
                return child
        return self._spawn(["--scene", str(viewer.scene), *(["--photos", str(photos)] if photos else [])], viewer.key)

    def _start(self, viewer: Viewer, photos: Path) -> None:
        viewer.port = 0
        viewer.child = child = self._begin(viewer, photos if photos.is_dir() else None)
        assert child.stdout is not None
        late = threading.Timer(START_S, end_child, (child,))
        late.start()
        line = child.stdout.readline()
        late.cancel()
        try:
            said = json.loads(line)
        except ValueError:
            said = {"error": "The viewer ended before it could be seen.", "remedy": "The machine may lack memory."}
        if "port" not in said:
            _end(viewer.child)
            raise Refused(said["error"], said.get("remedy", ""), 500)
        viewer.port = int(said["port"])


def _end(child: subprocess.Popen | None) -> None:
    """End a viewer's process, if there is one, and let go of it."""
    if child is not None:
        end_child(child)
        let_go(child)
