"""Pairs of photos matched by their descriptors, by several processes with one thread each.

Input: a database with features, pairs. Output: the database with verified pairs.
Does not: choose pairs or find features.

COLMAP's own threads make matches that differ from run to run on a busy machine: the index that a photo's descriptors are looked up
in comes out a little different when another thread works beside the one that makes it. With one thread in a process it does not,
so that the same photos have the same cameras, however many cores there are and whatever else they do.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from .database import verification
from .speech import say

__all__ = ["match", "match_share"]

BLOCKS = 12
"""Pairs are matched in this many blocks, with news after each."""
PAIRS_WORTH_A_PROCESS = 8
"""A process of its own takes 0.3 s to start."""
MOST_PROCESSES = 16
"""Each takes about 100 MB."""


def match(path: Path, pairs: np.ndarray, seed: int, *, guided: bool) -> None:
    """Match the chosen pairs by their descriptors and verify them by their two-view geometry.

    Args:
        path: the database.
        pairs: ``P 2``, photos to compare.
        guided: look for more matches along the epipolar lines of a geometry once it is found.

    Raises:
        RuntimeError: a process ended before it was done.
    """
    shares = [share for share in np.array_split(pairs, processes_for(len(pairs))) if len(share)]
    if len(shares) < 2:
        match_here(path, pairs, seed, guided=guided, tell=lambda fraction: say(step="matching", fraction=fraction))
        return
    parts = [path.with_name(f"part_{number}_{path.name}") for number in range(len(shares))]
    for part, share in zip(parts, shares, strict=True):
        shutil.copy(path, part)
        np.savez(part.with_suffix(".npz"), pairs=share, seed=seed, guided=guided)
    run_side_by_side(parts)
    gather(path, parts)
    for part in parts:
        part.unlink()
        part.with_suffix(".npz").unlink()


def processes_for(pairs: int) -> int:
    """How many processes share the pairs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_PROCESSES, pairs // PAIRS_WORTH_A_PROCESS))


def match_here(path: Path, pairs: np.ndarray, seed: int, *, guided: bool, tell) -> None:
    """Match pairs with one thread; tells the share that is done."""
    listed = path.with_suffix(".txt")
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = listed
    matching = pycolmap.FeatureMatchingOptions()
    matching.guided_matching = guided
    matching.num_threads = 1
    blocks = [b for b in np.array_split(pairs, BLOCKS) if len(b)]
    for number, block in enumerate(blocks, start=1):
        listed.write_text("".join(f"{i:06d} {j:06d}\n" for i, j in block))
        pycolmap.match_image_pairs(
            path, matching_options=matching, pairing_options=pairing, verification_options=verification(seed)
        )
        tell(number / len(blocks))
    listed.unlink(missing_ok=True)


def match_share(path: Path) -> None:
    """What each process does with its copy of the database."""
    job = np.load(path.with_suffix(".npz"))
    match_here(path, job["pairs"], int(job["seed"]), guided=bool(job["guided"]), tell=lambda fraction: say(fraction=fraction))


def run_side_by_side(parts: Sequence[Path]) -> None:
    """Start a process for every copy of the database and pass on what they tell; they end when this process does."""
    news: queue.Queue[tuple[int, float | None]] = queue.Queue()
    command = [sys.executable, "-m", "recon.cameras.child", "match_share"]
    processes = [subprocess.Popen([*command, str(part)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for part in parts]

    def listen(number: int) -> None:
        stream = processes[number].stdout
        assert stream is not None
        with stream:
            for line in stream:
                if line.startswith(b"{") and line.endswith(b"\n"):
                    news.put((number, json.loads(line)["fraction"]))
        news.put((number, None))

    for number in range(len(parts)):
        threading.Thread(target=listen, args=(number,), daemon=True).start()
    done, running = [0.0] * len(parts), len(parts)
    try:
        while running:
            number, fraction = news.get()
            if fraction is None:
                running -= 1
            else:
                done[number] = fraction
                say(step="matching", fraction=sum(done) / len(done))
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
    if any(codes):
        raise RuntimeError(f"a process that matched photos ended with {max(codes, key=abs)}; is there enough memory?")


def gather(path: Path, parts: Sequence[Path]) -> None:
    """Take the pairs of all copies into the database."""
    database = pycolmap.Database.open(path)
    with pycolmap.DatabaseTransaction(database):
        for part in parts:
            copy = pycolmap.Database.open(part)
            for pair_id, rows in zip(*copy.read_all_matches(), strict=True):
                database.write_matches(*pycolmap.pair_id_to_image_pair(pair_id), rows)
            for pair_id, geometry in zip(*copy.read_two_view_geometries(), strict=True):
                database.write_two_view_geometry(*pycolmap.pair_id_to_image_pair(pair_id), geometry)
            copy.close()
    database.close()
