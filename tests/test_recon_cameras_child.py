"""The process COLMAP runs in: ending it while it speaks leaves no thread behind and no half-read line; and those it starts."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import sys
import threading

import numpy as np
import pycolmap
import pytest

from recon.cameras import child_process
from recon.cameras.child import matching
from recon.cameras.child.database import fill_database
from recon.errors import UserError

CHATTER = """
import sys
while True:
    sys.stdout.write('{"stage": 1}\\n' * 50 + '{"sta')
    sys.stdout.flush()
    sys.stdout.write('ge": 1}\\n')
"""


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_ending_a_talkative_child_ends_its_listener():
    """Killed twenty times in the middle of its words: the listener comes to its end, and every piece of news is whole."""
    for _ in range(20):
        news: queue.Queue = queue.Queue()
        process = subprocess.Popen([sys.executable, "-c", CHATTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        listener = threading.Thread(target=child_process._listen, args=(process.stdout, news))
        listener.start()
        first = news.get(timeout=10)
        child_process._end(process)
        listener.join(timeout=10)
        assert not listener.is_alive()
        assert process.stdout.closed
        said = [first, *news.queue]
        assert said[-1] is None
        assert all("stage" in item for item in said[:-1])


def test_what_an_earlier_command_left_is_not_taken_for_the_answer(tmp_path):
    np.savez(tmp_path / "result.npz", match_pairs=np.zeros((1, 2)))
    with pytest.raises(UserError, match="COLMAP stopped"):
        child_process.run_child("match", tmp_path, {"database": np.array("a.db")})


# --- matching by several processes -------------------------------------------------------------------------------------


@pytest.fixture
def photographed(tmp_path):
    """A database of six photos of 300 points, whose descriptors are alike in all of them."""
    rng = np.random.default_rng(0)
    points, looks = np.array((0, 0, 5)) + rng.uniform(-1, 1, (300, 3)), rng.integers(0, 160, (300, 128))
    job = {"sizes": np.full((6, 2), (640, 480)), "focal_px": np.full(6, 700.0), "known": np.full((6, 8), np.nan)}
    job["camera_of"] = np.zeros(6, int)
    for i in range(6):
        seen = points - (0.2 * i, 0.05 * i, 0)
        px = 700 * seen[:, :2] / seen[:, 2:] + (320, 240) + rng.normal(0, 0.3, (300, 2))
        job[f"keypoints_{i}"] = np.concatenate([px, np.ones((300, 1)), np.zeros((300, 1))], axis=1).astype(np.float32)
        job[f"descriptors_{i}"] = (looks + rng.integers(0, 12, looks.shape)).astype(np.uint8)
    path = tmp_path / "database.db"
    fill_database(path, job)
    return path


PAIRS = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])


def held(path):
    database = pycolmap.Database.open(path)
    raw = dict(zip(*database.read_all_matches(), strict=True))
    verified = {pair: one.inlier_matches for pair, one in zip(*database.read_two_view_geometries(), strict=True)}
    database.close()
    return raw, verified


def test_several_processes_find_what_one_finds(photographed, monkeypatch, capsys):
    alone = photographed.with_name("alone.db")
    shutil.copy(photographed, alone)
    matching.match(alone, PAIRS, 0, guided=False)
    monkeypatch.setattr(matching, "processes_for", lambda pairs: 3)
    capsys.readouterr()
    matching.match(photographed, PAIRS, 0, guided=False)
    fractions = [json.loads(line)["fraction"] for line in capsys.readouterr().out.splitlines()]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    for one, other in zip(held(alone), held(photographed), strict=True):
        assert list(one) == list(other)
        assert len(one) == len(PAIRS)
        assert all(np.array_equal(one[pair], other[pair]) for pair in one)
    assert min(len(rows) for rows in held(alone)[1].values()) > 200
    assert sorted(path.name for path in photographed.parent.iterdir()) == ["alone.db", "database.db"]


def test_a_process_that_ends_early_is_an_error(photographed, monkeypatch):
    monkeypatch.setattr(matching, "processes_for", lambda pairs: 2)
    monkeypatch.setattr(matching.shutil, "copy", lambda source, target: target.write_bytes(b"no database"))
    with pytest.raises(RuntimeError, match="matched photos ended"):
        matching.match(photographed, PAIRS, 0, guided=False)


def test_few_pairs_are_worth_one_process():
    assert matching.processes_for(3) == 1
    assert 1 <= matching.processes_for(10_000) <= matching.MOST_PROCESSES
