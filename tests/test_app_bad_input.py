"""Bad input through the real command line: words instead of tracebacks, exit codes, and nothing half-written.

Everything is real: photos, COLMAP in its child process, network, rasteriser. Commands run in this process, so that packages
and kernels are loaded once.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import HEIGHT, NEIGHBOURS, QUICK, WIDTH, shrink, true_cameras

from app.cli import main
from recon.outputs import RESULT_NAMES

pytestmark = pytest.mark.usefixtures("workplace")


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
    beside = lambda: {p for p in out.parent.iterdir() if p != out and not p.name.isdigit()}  # noqa: E731  numbers: processes in /proc
    before = beside() if out.parent.is_dir() else set()
    existed = out.exists()
    assert main(["run", *map(str, words), "-o", str(out), *QUICK]) == code
    captured = capsys.readouterr()
    assert "Error:" in captured.err
    assert "What to do:" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert out.exists() == existed
    if out.parent.is_dir():
        assert beside() == before
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


def test_one_photo(three_photos, tmp_path, capsys):
    said = refused(capsys, tmp_path / "out", [three_photos / NEIGHBOURS[0]], code=3)
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


def test_one_good_photo_among_broken_ones(three_photos, tmp_path, capsys):
    whole = (three_photos / NEIGHBOURS[1]).read_bytes()
    (three_photos / NEIGHBOURS[1]).write_bytes(whole[: len(whole) // 3])
    (three_photos / NEIGHBOURS[2]).write_bytes(b"")
    assert "Only one readable photo" in refused(capsys, tmp_path / "out", [three_photos], code=3)


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
def test_unwritable_output(three_photos, tmp_path, capsys, where):
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
    said = refused(capsys, out, [three_photos], code=2)
    assert str(out) in said
    assert "Reading photos" not in said
    if where == "files of somebody else":
        assert (out / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("what", ["absent photos", "absent file", "no JSON", "another schema", "one camera"])
def test_camera_file_that_cannot_be_used(three_photos, tmp_path, capsys, what):
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
    said = refused(capsys, tmp_path / "out", [three_photos, "--cameras", cameras], code=code)
    expected = {
        "absent photos": "sample_11.jpg",
        "absent file": "cameras.json",
        "no JSON": "is not valid JSON",
        "another schema": "'K' is missing",
        "one camera": "Cameras were found for 1 of the 3 input photos",
    }
    assert expected[what] in said
