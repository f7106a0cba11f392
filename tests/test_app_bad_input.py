"""Bad input through the real command line: words instead of tracebacks, exit codes, and nothing half-written.

Everything is real: photos, COLMAP in its child process, network, rasteriser. Commands run in this process, so that packages
and kernels are loaded once; one test starts a process of its own to see that Ctrl-C ends the whole family.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import main
from recon.cameras import child_process
from recon.capture import decoder
from recon.outputs import RESULT_NAMES
from recon.progress import Progress

from helpers import REPOSITORY

WIDTH, HEIGHT = 256, 192
QUICK = ("--no-video", "--long-side", "128", "--max-gaussians", "1500", "--device", "cpu")
NEIGHBOURS = ("sample_04.jpg", "sample_05.jpg", "sample_06.jpg")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Temporary files go to a folder of the test, which must be empty at the end; started children must have ended."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    children = []
    start = subprocess.Popen

    class Recorded(start):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            children.append(self)

    assert decoder.subprocess.Popen is start, "loaded before its type hints could meet the class below"
    monkeypatch.setattr(child_process.subprocess, "Popen", Recorded)
    yield
    assert all(child.poll() is not None for child in children)
    assert list(temporary.iterdir()) == []


@pytest.fixture
def photos(sample_photos: Path, tmp_path: Path) -> Path:
    """Three neighbouring photos of the sample, small, EXIF kept."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NEIGHBOURS:
        shrink(sample_photos / name, folder / name)
    return folder


def shrink(source: Path, target: Path, *, width: int = WIDTH, quality: int = 92) -> Path:
    with Image.open(source) as image:
        small = image.resize((width, width * image.height // image.width), Image.Resampling.LANCZOS)
        small.save(target, quality=quality, exif=image.getexif())
    return target


def true_cameras(target: Path, names: tuple[str, ...] = NEIGHBOURS) -> Path:
    """Write the true cameras of some photos of the sample."""
    record = json.loads((REPOSITORY / "data" / "sample_cameras.json").read_text())
    record["frames"] = [frame for frame in record["frames"] if frame["name"] in names]
    assert len(record["frames"]) == len(names)
    target.write_text(json.dumps(record))
    return target


def draw_place(target: Path, seed: int) -> None:
    """Draw a place of its own: many overlapping coloured boxes, rich in corners."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for _ in range(260):
        x, y = rng.integers(-20, WIDTH), rng.integers(-20, HEIGHT)
        w, h = rng.integers(6, 44, 2)
        canvas[max(y, 0) : y + h, max(x, 0) : x + w] = rng.integers(0, 255, 3)
    Image.fromarray(canvas).save(target, quality=92)


def refused(capsys: pytest.CaptureFixture, out: Path, words: list, *, code: int) -> str:
    """Run a command that must fail in words and leave nothing; returns what it said."""
    before = {p for p in out.parent.iterdir() if p != out} if out.parent.is_dir() else set()
    existed = out.exists()
    assert main(["run", *map(str, words), "-o", str(out), *QUICK]) == code
    captured = capsys.readouterr()
    assert "Error:" in captured.err
    assert "What to do:" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert out.exists() == existed
    if out.parent.is_dir():
        assert {p for p in out.parent.iterdir() if p != out} == before
    return " ".join(captured.err.split())


def assert_whole(out: Path) -> dict:
    """OUT holds a whole result; returns its report."""
    assert {p.name for p in out.iterdir()} == RESULT_NAMES - {"orbit.mp4"}
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["gaussians"] > 100
    assert report["seconds"]["write"] > 0
    return report


# --- too few, too alike, too different ---------------------------------------------------------------------------------


def test_no_photo(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refused(capsys, tmp_path / "out", [tmp_path / "empty"], code=3)
    assert "no file or folder" in refused(capsys, tmp_path / "out", [tmp_path / "absent"], code=2)


def test_one_photo(photos, tmp_path, capsys):
    said = refused(capsys, tmp_path / "out", [photos / NEIGHBOURS[0]], code=3)
    assert "Only one readable photo" in said
    assert "Take 8 to 60 photos" in said


def test_two_photos_make_a_small_scene(sample_photos, tmp_path, capsys):
    """Two neighbours are the least that works: a small scene, and the report says how many photos made it."""
    pair = [shrink(sample_photos / name, tmp_path / name, width=320) for name in NEIGHBOURS[:2]]
    out = tmp_path / "out"
    assert main(["run", *map(str, pair), "-o", str(out), *QUICK]) == 0
    assert "from 2 photos" in capsys.readouterr().err
    assert assert_whole(out)["counts"]["used"] == 2


def test_not_an_image(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "letter.jpg").write_text("Dear photo,")
    (folder / "notes.txt").write_text("none")
    said = refused(capsys, tmp_path / "out", [folder], code=3)
    assert "letter.jpg is not a JPEG, PNG" in said
    assert "notes.txt" in said


def test_one_good_photo_among_broken_ones(photos, tmp_path, capsys):
    whole = (photos / NEIGHBOURS[1]).read_bytes()
    (photos / NEIGHBOURS[1]).write_bytes(whole[: len(whole) // 3])
    (photos / NEIGHBOURS[2]).write_bytes(b"")
    assert "Only one readable photo" in refused(capsys, tmp_path / "out", [photos], code=3)


def test_photos_of_different_places(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        draw_place(folder / f"place_{seed}.jpg", seed)
    said = refused(capsys, tmp_path / "out", [folder], code=3)
    assert "the same place" in said
    assert "overlap" in said


def test_a_photo_of_elsewhere_is_named_and_the_rest_becomes_a_scene(sample_photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ("sample_03.jpg", *NEIGHBOURS)
    for name in names:
        shrink(sample_photos / name, folder / name, width=320)
    draw_place(folder / "zoo.jpg", 9)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a photo")
    out = tmp_path / "out"
    assert main(["run", str(folder), "-o", str(out), *QUICK]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 5 photos could not be placed: zoo.jpg" in said
    assert "broken.jpg was skipped" in said
    assert assert_whole(out)["counts"]["used"] == 4
    frames = {frame["name"]: frame["registered"] for frame in json.loads((out / "cameras.json").read_text())["frames"]}
    assert frames == {**dict.fromkeys(names, True), "zoo.jpg": False}


@pytest.mark.parametrize("how", ["copies", "stored again"])
def test_all_the_same_photo(sample_photos, tmp_path, capsys, how):
    """Byte for byte, or the same picture stored at another quality."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        quality = 92 if how == "copies" else 80 + 6 * index
        shrink(sample_photos / NEIGHBOURS[0], folder / f"{index}.jpg", quality=quality)
    said = refused(capsys, tmp_path / "out", [folder], code=3)
    assert "same picture" in said if how == "copies" else "far enough apart" in said


# --- places and files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["a file", "under a file", "files of somebody else", "no permission"])
def test_unwritable_output(photos, tmp_path, capsys, where):
    """Said before any work is done: no stage has begun."""
    out = tmp_path / "out"
    if where == "a file":
        out.write_text("mine")
    elif where == "under a file":
        (tmp_path / "plain").write_text("mine")
        out = tmp_path / "plain" / "deep" / "out"
    elif where == "files of somebody else":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    elif sys.platform != "linux":
        pytest.skip("needs a folder that even an administrator may not write to: /proc")
    else:
        out = Path("/proc/recon_out")
    said = refused(capsys, out, [photos], code=2)
    assert str(out) in said
    assert "Reading photos" not in said
    if where == "files of somebody else":
        assert (out / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("what", ["absent photos", "absent file", "no JSON", "another schema", "one camera"])
def test_camera_file_that_cannot_be_used(photos, tmp_path, capsys, what):
    cameras = tmp_path / "cameras.json"
    if what == "absent photos":
        true_cameras(cameras, (*NEIGHBOURS, "sample_11.jpg"))
    elif what == "no JSON":
        cameras.write_text('{"format": 1, "frames": [')
    elif what == "another schema":
        cameras.write_text('{"format": 1, "frames": [{"name": "sample_04.jpg"}]}')
    elif what == "one camera":
        true_cameras(cameras, NEIGHBOURS[:1])
    code = 3 if what == "one camera" else 2
    said = refused(capsys, tmp_path / "out", [photos, "--cameras", cameras], code=code)
    expected = {
        "absent photos": "sample_11.jpg",
        "absent file": "cameras.json",
        "no JSON": "is not valid JSON",
        "another schema": "'K' is missing",
        "one camera": "Cameras were found for 1 of the 3 input photos",
    }
    assert expected[what] in said


# --- Ctrl-C ------------------------------------------------------------------------------------------------------------


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
def test_ctrl_c_in_each_stage(photos, tmp_path, capsys, ctrl_c, stage, word, before):
    """Exit code 130, one line, and OUT is as it was: absent, or the earlier result untouched."""
    home = tmp_path / "home"
    home.mkdir()
    out = home / "out"
    if before == "an earlier result":
        out.mkdir()
        (out / "scene.ply").write_text("an earlier scene")
    words = ["run", str(photos), "-o", str(out), *QUICK]
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
def test_ctrl_c_during_sfm_leaves_no_process(photos, tmp_path):
    """A real process, interrupted while COLMAP matches: it and all its descendants are gone, and so are their files."""
    home = tmp_path / "home"
    home.mkdir()
    program = [sys.executable, "-m", "app.cli", "run", str(photos), "-o", str(home / "out"), *QUICK]
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
