"""Killed runs go on, the same run twice does nothing twice, and a cache that fails costs nothing but resuming."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from kill_server import Killer
from test_recon_pipeline import write_capture

from recon.errors import UserError
from recon.outputs import check_writable
from recon.ply import read_ply
from recon.records import Gaussians
from recon.resume import store as store_module
from recon.resume.disk import disk_trouble
from recon.resume.leftovers import PARTIAL, REPLACED, clear_leftovers, hidden_folder, make_temporary, temporary_folder
from recon.resume.out_format import FORMAT, finished_report, migrate
from recon.resume.packing import pack, unpack
from recon.resume.store import StageStore, entries, make_room
from recon.run_records import Ledger

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
STAGES = ("photos", "cameras", "depth", "gaussians", "write")
POLISHED = ("photos", "cameras", "depth", "polish", "write")
KEPT = ("cameras", "depth", "gaussians")
"""Stages whose result is kept, in order."""


def some_gaussians(seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=g)  # noqa: E731
    return Gaussians(means=draw(5, 3), quats=draw(5, 4), scales=draw(5, 3), opacities=draw(5), sh=draw(5, 1, 3))


# --- the store ---------------------------------------------------------------------------------------------------------


def test_records_return_from_bytes():
    shared = torch.arange(6)
    value = ({"a": [1, 2.5, None, "x", True], "b": (shared, shared[2:])}, some_gaussians(), [float("inf")])
    back = unpack(pack(value))
    assert back[0]["a"] == value[0]["a"]
    assert torch.equal(back[0]["b"][1], shared[2:])
    assert torch.equal(back[1].means, value[1].means)
    assert isinstance(back[0]["b"], tuple)
    assert back[2] == [float("inf")]
    with pytest.raises(TypeError):
        pack({1: 2})
    with pytest.raises(TypeError):
        pack(object())


def computed(store: StageStore, key: str, seed: int = 0) -> tuple[Gaussians, Ledger]:
    ledger = Ledger()

    def compute() -> Gaussians:
        ledger.seconds["depth"] = 2.0
        ledger.choices["depth"] = {"how": "well"}
        ledger.warnings.append("careful")
        return some_gaussians(seed)

    return store.keep("depth", key, ledger, compute), ledger


def test_a_kept_result_comes_back_with_its_notes(tmp_path):
    first, noted = computed(StageStore(tmp_path), "k")
    store = StageStore(tmp_path)
    again, repeated = computed(store, "k", seed=9)
    assert store.resumed == ["depth"]
    assert store.computed == []
    assert torch.equal(first.means, again.means)
    assert (repeated.choices, repeated.warnings) == (noted.choices, noted.warnings)
    assert (repeated.seconds, repeated.cached_s) == ({}, noted.seconds), "what the cache gave was not spent"
    other = StageStore(tmp_path)
    assert not torch.equal(computed(other, "another key", seed=9)[0].means, first.means)
    assert other.computed == ["depth"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "not ours"])
def test_a_damaged_result_is_computed_again(tmp_path, damage):
    first, _ = computed(StageStore(tmp_path), "k")
    (path,) = (tmp_path / "stages").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes({"cut": data[:-9], "flipped": bytes(data), "emptied": b"", "not ours": b"hello" * 99}[damage])
    store = StageStore(tmp_path)
    assert torch.equal(computed(store, "k")[0].means, first.means)
    assert store.computed == ["depth"]
    assert torch.equal(computed(StageStore(tmp_path), "k", seed=9)[0].means, first.means), "and kept again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_cache_that_cannot_be_written_costs_resuming_alone(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store_module.os, "fsync", refuse)
    store = StageStore(tmp_path)
    assert len(computed(store, "k")[0]) == 5
    assert os.strerror(number) in store.trouble
    assert list((tmp_path / "stages").iterdir()) == []


def test_the_cache_keeps_to_its_limit(tmp_path):
    store = StageStore(tmp_path)
    for index in range(4):
        computed(store, f"{index}", seed=index)
        os.utime(tmp_path / "stages" / f"depth-{index}.bin", (1e9 + index, 1e9 + index))
    size = next(entries(tmp_path)).bytes
    assert make_room(tmp_path, int(2.5 * size)) == 2 * size
    assert sorted(entry.path.name for entry in entries(tmp_path)) == ["depth-2.bin", "depth-3.bin"]
    computed(StageStore(tmp_path, limit_bytes=0), "fresh")
    assert [entry.path.name for entry in entries(tmp_path)] == ["depth-fresh.bin"], "what was just made stays"


# --- the output folder -------------------------------------------------------------------------------------------------


def test_output_folders_say_their_format(tmp_path):
    assert migrate({"format": 1, "seconds": {}}, tmp_path)["format"] == FORMAT
    with pytest.raises(UserError, match="newer version"):
        migrate({"format": FORMAT + 1}, tmp_path)
    with pytest.raises(UserError, match="not a report"):
        migrate({"hello": 1}, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(UserError, match="newer version"):
        check_writable(out)
    assert finished_report(out, "key") is None


@pytest.mark.skipif(os.name != "posix", reason="processes are looked up the POSIX way")
def test_what_a_killed_run_leaves_is_cleared(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 12345)  # a process that does not exist
    partial, old = hidden_folder(out, PARTIAL), hidden_folder(out, REPLACED)
    monkeypatch.undo()
    (partial / "scene.ply").write_text("half")
    (old / "out").mkdir()
    (old / "out" / "scene.ply").write_text("earlier")
    mine = hidden_folder(out, PARTIAL)
    other = tmp_path / ".outside.part-x-1-y"
    other.mkdir()
    clear_leftovers(out)
    assert (out / "scene.ply").read_text() == "earlier", "killed between taking the earlier result away and putting the new one"
    assert sorted(tmp_path.iterdir()) == sorted([out, mine, other])


@pytest.mark.skipif(os.name != "posix", reason="processes are looked up the POSIX way")
def test_temporary_folders_of_killed_processes_go(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 12345)  # a process that does not exist
    killed = make_temporary("colmap")
    (killed / "database.db").write_bytes(bytes(9))
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "recon-colmap-anothermachine-1-x"
    elsewhere.mkdir()
    mine = make_temporary("capture")
    with temporary_folder("colmap") as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, mine, elsewhere])
    assert not folder.exists()


def test_disk_trouble_is_said_in_words():
    told = disk_trouble(OSError(errno.ENOSPC, "No space left", "/disk/a\udcff"))
    assert told is not None
    assert "the disk is full" in told.reason
    assert "same command again" in told.remedy
    assert told.reason.isprintable()
    assert disk_trouble(OSError(errno.EINVAL, "what")) is None


# --- kills -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killer():
    killer = Killer()
    yield killer
    killer.close()


def kill_and_go_on(
    killer: Killer, folder: Path, stages: tuple[str, ...], times: int, seed: int, *, find_cameras: bool = False, polish: float = 0.0
) -> list[str]:
    """Kill runs at random moments of each stage; each must go on to the very same result, repeating one stage at most.

    Args:
        find_cameras: let COLMAP find the cameras; otherwise they are given.
        polish: seconds of polishing, which ends by the clock: the result then need only be whole.

    Returns:
        What was seen, one line per kill.
    """
    print(f"seed {seed}")
    rng = random.Random(seed)
    photos = write_capture(folder)
    request = {"photos": str(photos), "cameras": "sfm" if find_cameras else str(folder / "cameras.json"), "polish": polish}
    killer.run({**request, "cache": str(folder / "cache_first"), "out": str(folder / "first")})  # compiles, so it takes longer
    whole = killer.run({**request, "cache": str(folder / "cache_whole"), "out": str(folder / "whole")})
    assert whole.status == 0, whole.error
    wanted = (folder / "first" / "scene.ply").read_bytes()

    def is_right(out: Path) -> bool:
        return len(read_ply(out / "scene.ply")) > 100 if polish else (out / "scene.ply").read_bytes() == wanted

    began = [*whole.began.items(), ("", whole.seconds)]
    lasts = {name: began[i + 1][1] - at for i, (name, at) in enumerate(began[:-1])}
    assert is_right(folder / "whole"), "a run does the same again"
    seen, tried = [], 0
    for stage in stages:
        while len(seen) < times * (stages.index(stage) + 1):
            tried += 1
            assert tried <= 4 * times * len(stages), "nearly all runs end before their kill"
            home = folder / "killed"
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            out = home / "out"
            after_s = rng.uniform(0.0, lasts[stage])
            request |= {"out": str(out), "cache": str(home / "cache")}
            killed = killer.run(request, kill_in=stage, after_s=after_s)
            if out.exists():
                assert is_right(out), "what is there is whole"
            went_on = killer.run(request)
            assert went_on.status == 0, went_on.error
            assert is_right(out)
            assert [path.name for path in home.iterdir() if path.name != "cache"] == ["out"], "nothing is left beside it"
            report = json.loads((out / "report.json").read_text())
            again = report["stages"]["computed"]
            order = POLISHED if polish else STAGES
            done_before = [name for name in KEPT if name in order[: order.index(stage)]]
            if killed.status == 0:  # it ended before its kill came
                continue
            assert not set(done_before) & set(again), f"{again} although {stage} was reached"
            seen.append(f"{stage} after {after_s * 1e3:.0f} ms: computed again {again}")
    print("\n".join(seen))
    return seen


@needs_fork
def test_killed_runs_go_on(killer, tmp_path):
    seed = time.time_ns() % 2**32
    assert len(kill_and_go_on(killer, tmp_path, ("depth", "write"), 1, seed)) == 2


@needs_fork
@pytest.mark.slow
def test_twenty_kills_per_stage(killer, tmp_path):
    seed = time.time_ns() % 2**32
    assert len(kill_and_go_on(killer, tmp_path / "given", STAGES, 20, seed)) == 20 * len(STAGES)
    assert len(kill_and_go_on(killer, tmp_path / "found", ("cameras",), 20, seed, find_cameras=True)) == 20
    assert len(kill_and_go_on(killer, tmp_path / "polished", ("polish",), 20, seed, polish=1.0)) == 20


@needs_fork
def test_the_same_run_twice_does_nothing_twice(killer, tmp_path):
    photos = write_capture(tmp_path)
    request = {"photos": str(photos), "cameras": str(tmp_path / "cameras.json"), "cache": str(tmp_path / "cache")}
    request["out"] = str(tmp_path / "out")
    first = killer.run(request)
    assert first.status == 0, first.error
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = killer.run(request)
    assert again.status == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert "depth" not in again.began
    (tmp_path / "out" / "scene.ply").write_bytes(b"spoilt")
    assert killer.run(request).status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["stages"]["computed"] == []
    assert (tmp_path / "out" / "scene.ply").stat().st_size == report["files"]["scene.ply"], "written again from what was kept"
    plan = report["plan"]
    assert plan["total_s"]["estimated"] > 0
    assert plan["memory_bytes"]["actual"] > 0
