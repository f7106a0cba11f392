"""Ctrl-C through the real command line: exit code 130, one line, no process left, and nothing half-written."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_runs import QUICK, true_cameras

from app.cli import main
from recon.progress import Progress

from helpers import REPOSITORY

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch):
    """``ctrl_c(stage, word)`` presses Ctrl-C shortly after progress speaks of a stage (and says a word)."""
    pressed = threading.Event()
    timers: list[threading.Timer] = []

    def arm(stage: str, word: str = "", after_s: float = 0.02) -> threading.Event:
        update = Progress.update

        def watched(self: Progress, at: str, fraction: float, message: str = "") -> None:
            if at == stage and word in message and not timers:
                timers.append(threading.Timer(after_s, press))
                timers[0].start()
            update(self, at, fraction, message)

        def press() -> None:
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Progress, "update", watched)
        return pressed

    yield arm
    for timer in timers:
        timer.cancel()
        timer.join()


@pytest.mark.parametrize(
    ("stage", "word", "before"),
    [
        ("photos", "", "nothing"),
        ("cameras", "features", "nothing"),
        ("cameras", "matching", "nothing"),
        ("cameras", "matching", "an earlier result"),
        ("depth", "", "nothing"),
        ("gaussians", "", "nothing"),
        ("write", "scene.ply", "nothing"),
        ("write", "scene.ply", "an earlier result"),
    ],
)
def test_ctrl_c_in_each_stage(three_photos, tmp_path, capsys, ctrl_c, stage, word, before):
    """Exit code 130, one line, and OUT is as it was: absent, or the earlier result untouched."""
    home = tmp_path / "home"
    home.mkdir()
    out = home / "out"
    if before == "an earlier result":
        out.mkdir()
        (out / "scene.ply").write_text("an earlier scene")
    words = ["run", str(three_photos), "-o", str(out), *QUICK]
    if stage not in ("photos", "cameras"):
        words += ["--cameras", str(true_cameras(tmp_path / "cameras.json"))]
    pressed = ctrl_c(stage, word)
    assert main(words) == 130
    assert pressed.is_set()
    said = capsys.readouterr()
    assert said.err.rstrip().endswith("Stopped.")
    assert "Traceback" not in said.err
    assert said.out == ""
    if before == "nothing":
        assert list(home.iterdir()) == []
    else:
        assert [p.name for p in home.rglob("*")] == ["out", "scene.ply"]
        assert (out / "scene.ply").read_text() == "an earlier scene"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see processes")
def test_ctrl_c_during_sfm_leaves_no_process(three_photos, tmp_path):
    """A real process, interrupted while COLMAP matches: it and all its descendants are gone, and so are their files."""
    home = tmp_path / "home"
    home.mkdir()
    program = [sys.executable, "-m", "app.cli", "run", str(three_photos), "-o", str(home / "out"), *QUICK]
    environment = {**os.environ, "RECON_TEST_FAMILY": str(tmp_path)}
    command = subprocess.Popen(program, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
    assert command.stderr is not None
    said = ""
    for line in command.stderr:
        said += line
        if "features" in line:
            break
    deadline = time.monotonic() + 60
    while len(family(str(tmp_path))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(family(str(tmp_path))) == 2  # the command and COLMAP
    command.send_signal(signal.SIGINT)
    said += command.stderr.read()
    command.stderr.close()
    assert command.wait(timeout=30) == 130
    assert said.rstrip().endswith("Stopped.")
    assert "Traceback" not in said
    assert family(str(tmp_path)) == []
    assert list(home.iterdir()) == []


def family(mark: str) -> list[int]:
    """Processes whose environment carries the mark of this test."""
    wanted = f"RECON_TEST_FAMILY={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is not ours
    return found
