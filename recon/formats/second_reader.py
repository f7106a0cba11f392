"""Read a splat file with somebody else's program, in a process of its own.

Input: a path and a format. Output: the ``Gaussians`` that gaussforge (Apache-2.0, C++) sees in the file.
Does not: trust it: it runs in a child with a time limit, and a crash there is an answer, not a crash here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ..ply import read_ply
from ..records import Gaussians
from .reading import BadFile

NAME = "gaussforge"
LIMIT_S = 120.0
CHILD = """
import os, sys
import gaussforge
source, kind, target = sys.argv[1:]
sys.stdout = open(os.devnull, "w")
with open(source, "rb") as file:
    answer = gaussforge.GaussForge().convert(file.read(), kind, "ply")
if "error" in answer:
    sys.exit(str(answer["error"]))
with open(target, "wb") as file:
    file.write(answer["data"])
"""


def second_reader_missing() -> str:
    """Say why there is no second reader; empty when there is one."""
    return "" if find_spec(NAME) else f"{NAME} is not installed"


def read_elsewhere(path: Path, kind: str) -> Gaussians:
    """Convert the file to 3DGS PLY with gaussforge and read that.

    Args:
        path: the file.
        kind: gaussforge's name of its format.

    Raises:
        BadFile: gaussforge refused the file, crashed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="recon-check-") as folder:
        target = Path(folder) / "seen.ply"
        try:
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(path), kind, str(target)], capture_output=True, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise BadFile(f"{NAME} did not read it within {LIMIT_S:.0f} s.") from error
        if done.returncode != 0 or not target.is_file():
            why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise BadFile(f"{NAME} cannot read it ({why[0][:200]}).")
        return read_ply(target)
