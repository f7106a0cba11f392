"""What a killed run leaves beside its output folder and among the temporary files.

Input: an output folder's path. Output: names for unfinished folders; an earlier result put back, unfinished ones removed.
Does not: touch what a living process of this machine is writing.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL, REPLACED = "part", "old"
_OWNER = re.compile(r"(part|old)-([0-9a-z-]+)-([0-9]+)-")
_TEMPORARY = re.compile(r"recon-[a-z]+-([0-9a-z]+)-([0-9]+)-")


def _host() -> str:
    return re.sub(r"[^0-9a-z]", "", socket.gethostname().lower())[:24] or "host"


def hidden_folder(out: Path, kind: str) -> Path:
    """Make a hidden folder beside ``out`` whose name says which process it belongs to."""
    return Path(tempfile.mkdtemp(prefix=f".{out.name}.{kind}-{_host()}-{os.getpid()}-", dir=out.parent))


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True


def _abandoned(host: str, pid: str) -> bool:
    """Whether the process that a name tells of was one of this machine and is gone."""
    return host == _host() and os.name == "posix" and not _alive(int(pid))


def make_temporary(kind: str) -> Path:
    """Make a temporary folder whose name says which process it belongs to, and remove those of processes that were killed.

    Args:
        kind: lower-case letters, for the name.
    """
    root = Path(tempfile.gettempdir())
    for path in root.glob("recon-*-*"):
        match = _TEMPORARY.match(path.name)
        if match is not None and _abandoned(match[1], match[2]):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"recon-{kind}-{_host()}-{os.getpid()}-", dir=root))


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """A temporary folder that vanishes with the block, or with the next one if this process is killed."""
    folder = make_temporary(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(out: Path) -> None:
    """Undo what killed runs left: an earlier result that was being replaced returns, unfinished results go."""
    try:
        beside = [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")]
    except OSError:
        return
    for path in sorted(beside):
        match = _OWNER.match(path.name[len(out.name) + 2 :])
        if match is None or not _abandoned(match[2], match[3]):
            continue
        earlier = path / out.name
        if match[1] == REPLACED and earlier.is_dir() and not out.exists():
            os.replace(earlier, out)
        shutil.rmtree(path, ignore_errors=True)
