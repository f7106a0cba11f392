"""Batches: one child per folder, a broken one does not stop the rest, and the exit code tells how many worked."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app import batch
from app.batch import Outcome, child_environment, config_flags, exit_code, find_captures
from app.cli import main, parse
from app.run import RunArguments
from recon.config import Holdout, PipelineConfig
from recon.errors import UserError
from recon.fuse import FuseConfig

import helpers

CHILD = """
import json, os, pathlib, signal, sys, time
folder, out = map(pathlib.Path, sys.argv[1:3])
print("working on", folder.name, file=sys.stderr, flush=True)
if folder.name.startswith("bad"):
    print(json.dumps({"error": "The photos show different places.", "remedy": "Take overlapping photos.", "exit_code": 3}))
    sys.exit(3)
if folder.name.startswith("crash"):
    os.kill(os.getpid(), signal.SIGKILL)
if folder.name.startswith("slow"):
    (folder / "started").write_text(str(os.getpid()))
    time.sleep(120)
out.mkdir(parents=True)
(out / "scene.ply").write_text("ply")
counts, memory = {"gaussians": 7, "photos": 3, "registered": 2}, {"process": 5, "child": 9}
print(json.dumps({"counts": counts, "quality": {"n_scored": 1, "psnr_mean": 20.5}, "peak_memory_bytes": memory}))
"""
"""Behaves the way `recon run --json` does, by the name of its folder."""


@pytest.fixture
def fake_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "child_command", lambda folder, out, config: [sys.executable, "-c", CHILD, str(folder), str(out)])


def make_root(root: Path, *names: str) -> Path:
    for name in names:
        helpers.write_noise_photos(root / name, 1)
    return root


def read_batch(out: Path) -> dict:
    return json.loads((out / "batch.json").read_text())


def test_a_broken_folder_does_not_stop_the_rest(fake_child, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = make_root(tmp_path / "in", "good1", "bad2", "crash3", "good10")
    out = tmp_path / "out"
    assert main(["batch", str(root), "-o", str(out)]) == 1
    found = read_batch(out)
    assert [(result["name"], result["status"]) for result in found["results"]] == [
        ("bad2", "failed"),
        ("crash3", "failed"),
        ("good1", "ok"),
        ("good10", "ok"),
    ]
    assert found["counts"] == {"ok": 2, "failed": 2, "stopped": 0, "not started": 0}
    bad, crash, good, _ = found["results"]
    assert (bad["reason"], bad["remedy"], bad["exit_code"]) == (
        "The photos show different places.",
        "Take overlapping photos.",
        3,
    )
    assert "signal 9" in crash["reason"]
    assert (good["gaussians"], good["psnr_mean"]) == (7, 20.5)
    assert (good["photos"], good["registered"], good["memory_bytes"]) == (3, 2, 9)
    assert (out / "good1" / "scene.ply").is_file()
    assert "working on bad2" in (out / "bad2.log").read_text()
    said = capsys.readouterr().err
    assert "different places" in said
    assert "20.50 dB" in said
    assert "2 of 3 photos placed" in " ".join(said.split())


@pytest.mark.parametrize(("names", "code"), [(["good"], 0), (["good", "bad"], 1), (["bad1", "bad2"], 3)])
def test_exit_code_says_all_some_or_none(fake_child, tmp_path: Path, names: list[str], code: int) -> None:
    assert main(["batch", str(make_root(tmp_path / "in", *names)), "-o", str(tmp_path / "out"), "--quiet"]) == code


def test_json_prints_what_batch_json_holds(fake_child, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["batch", str(make_root(tmp_path / "in", "good")), "-o", str(tmp_path / "out"), "--json", "--quiet"])
    assert json.loads(capsys.readouterr().out) == read_batch(tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_ctrl_c_stops_the_child_and_keeps_what_is_finished(fake_child, tmp_path: Path) -> None:
    root = make_root(tmp_path / "in", "good1", "slow2", "zebra3")
    out = tmp_path / "out"
    mark = root / "slow2" / "started"

    def interrupt_once_started() -> None:
        deadline = time.monotonic() + 30
        while not mark.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_once_started, daemon=True).start()
    assert main(["batch", str(root), "-o", str(out), "--quiet"]) == 130
    statuses = {result["name"]: result["status"] for result in read_batch(out)["results"]}
    assert statuses == {"good1": "ok", "slow2": "stopped", "zebra3": "not started"}
    assert (out / "good1" / "scene.ply").is_file()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_captures_are_found_in_natural_order_also_in_images(tmp_path: Path) -> None:
    make_root(tmp_path, "room10", "room2", "out", ".hidden")
    make_root(tmp_path / "fox", "images")
    (tmp_path / "empty").mkdir()
    found = find_captures(tmp_path, tmp_path / "out")
    assert list(found) == ["fox", "room2", "room10"]
    assert found["fox"] == tmp_path / "fox" / "images"


def test_a_root_without_captures_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        find_captures(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match="holds photos"):
        find_captures(tmp_path, tmp_path / "out")
    helpers.write_noise_photos(tmp_path, 2)
    with pytest.raises(UserError, match="recon run"):
        find_captures(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    "config",
    [
        PipelineConfig(),
        PipelineConfig(long_side=320, holdout=Holdout(every=4, offset=1), video=False, seed=3, device="cpu"),
        PipelineConfig(fuse=FuseConfig(max_gaussians=1234), weights=Path("a b.safetensors"), keep_gps=True),
    ],
)
def test_a_child_gets_the_same_choices(config: PipelineConfig) -> None:
    assert parse(RunArguments, ["photos", "-o", "out", *config_flags(config)], "recon run").config == config


def test_no_outcome_is_forgotten_in_the_exit_code() -> None:
    ok, failed = Outcome(name="a", status="ok"), Outcome(name="b", status="failed")
    assert exit_code([ok, ok]) == 0
    assert exit_code([ok, failed]) == 1
    assert exit_code([ok, dataclasses.replace(failed, status="not started")]) == 1
    assert exit_code([failed]) == 3


def test_a_real_child_says_why_it_cannot(tmp_path: Path) -> None:
    """The real command line, from a working directory that holds a decoy called `app`."""
    root = tmp_path / "in"
    (root / "broken").mkdir(parents=True)
    (root / "broken" / "a.jpg").write_text("this is not a photo")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the decoy was imported')")
    words = [sys.executable, "-P", "-m", "app.cli", "batch", str(root), "-o", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run(words, cwd=tmp_path, env=child_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    (result,) = read_batch(tmp_path / "out")["results"]
    assert result["exit_code"] == 3
    assert "a.jpg" in result["reason"]
    assert result["remedy"]
    assert not (tmp_path / "out" / "broken").exists()
