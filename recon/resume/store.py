"""Results of stages, kept under a key of everything they depend on.

Input: a stage, its key and a way to compute it. Output: its result, computed now or by an earlier run.
Does not: know what the stages do. A cache that cannot be written costs resuming and nothing else.

One file per result: magic, digest of the rest, packed records. A file appears whole or not at all, and one that has been
damaged since is computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UserError
from ..files import atomic_path, plain
from .packing import pack, unpack
from .places import cache_limit_bytes, cache_root

if TYPE_CHECKING:
    from ..run_records import Ledger

logger = logging.getLogger(__name__)

STAGES, UNPACKED = "stages", "captures"
MAGIC = b"recon-stage-1\n"
DIGEST_BYTES = 16
FRESH_S = 3600.0
"""What was used within this time is not removed to make room: a run may still need it."""

T = TypeVar("T")


class StageStore:
    """Keeps results of stages in a folder.

    Args:
        root: folder of the cache; None keeps nothing and finds nothing.
        limit_bytes: size the cache is kept under.
    """

    def __init__(self, root: Path | None, limit_bytes: int | None = None) -> None:
        self.root = root
        self.limit_bytes = cache_limit_bytes() if limit_bytes is None else limit_bytes
        self.resumed: list[str] = []
        """Stages whose result was found."""
        self.computed: list[str] = []
        """Stages that were computed."""
        self.trouble = ""
        """Why results could not be kept, in words; empty when they could."""

    def keep(
        self, stage: str, key: str, ledger: Ledger, compute: Callable[[], T], *, worth: Callable[[T], bool] = lambda _: True
    ) -> T:
        """Return the result of a stage: the kept one, else what ``compute`` gives, which is then kept.

        Args:
            key: of everything the result depends on.
            ledger: what ``compute`` notes there is kept with the result and noted again.
            worth: tells whether a result may be kept; one that was cut short may not.
        """
        found = self._read(stage, key)
        if found is not None:
            self.resumed.append(stage)
            value, notes = found
            for name, seconds in notes["seconds"].items():
                ledger.cached_s[name] = ledger.cached_s.get(name, 0.0) + seconds
            ledger.choices.update(notes["choices"])
            ledger.warnings += notes["warnings"]
            return value
        seconds, choices, warned = dict(ledger.seconds), dict(ledger.choices), len(ledger.warnings)
        value = compute()
        self.computed.append(stage)
        notes = {
            "seconds": {n: s - seconds.get(n, 0.0) for n, s in ledger.seconds.items() if s != seconds.get(n)},
            "choices": plain({n: c for n, c in ledger.choices.items() if n not in choices or choices[n] is not c}),
            "warnings": ledger.warnings[warned:],
        }
        if worth(value):
            self._write(stage, key, value, notes)
        return value

    def ready(self, keys: Mapping[str, str]) -> list[str]:
        """Stages that need not run because their result, or that of a later one, is kept.

        Args:
            keys: stage -> key, in the order of a run.
        """
        if self.root is None:
            return []
        names = list(keys)
        last = max((i for i, name in enumerate(names) if self._path(name, keys[name]).is_file()), default=-1)
        return names[: last + 1]

    def _path(self, stage: str, key: str) -> Path:
        assert self.root is not None
        return self.root / STAGES / f"{stage}-{key}.bin"

    def _read(self, stage: str, key: str) -> tuple[Any, dict[str, Any]] | None:
        if self.root is None:
            return None
        path = self._path(stage, key)
        try:
            data = path.read_bytes()
            body = data[len(MAGIC) + DIGEST_BYTES :]
            if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : len(MAGIC) + DIGEST_BYTES] != _digest(body):
                raise ValueError("its checksum differs")
            value, notes = unpack(body)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.info("%s is computed again: %s is unusable (%s)", stage, path, error)
            return None
        return value, notes

    def _write(self, stage: str, key: str, value: Any, notes: dict[str, Any]) -> None:
        if self.root is None or self.trouble:
            return
        body = pack((value, notes))
        try:
            with atomic_path(self._path(stage, key)) as partial, partial.open("wb") as file:
                file.write(MAGIC + _digest(body))
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            make_room(self.root, self.limit_bytes)
        except (OSError, UserError) as error:
            reason = getattr(error, "strerror", None) or error
            self.trouble = f"Results of stages could not be kept in {self.root} ({reason}): a stopped run would begin again."
            logger.info(self.trouble)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def open_store(wanted: bool) -> StageStore:
    """The store of this user; one that keeps nothing when that is not wanted."""
    return StageStore(cache_root() if wanted else None)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in the cache."""

    path: Path
    """A file, or a folder of an unpacked capture."""
    stage: str
    bytes: int
    used: float
    """When it was last used, seconds since 1970."""


def entries(root: Path) -> Iterator[Entry]:
    """Everything in the cache; what vanishes meanwhile is left out."""
    for path in _children(root / STAGES):
        try:
            facts = path.stat()
        except OSError:
            continue
        yield Entry(path=path, stage=path.name.partition("-")[0].lstrip("."), bytes=facts.st_size, used=facts.st_mtime)
    for path in _children(root / UNPACKED):
        if path.is_dir():
            facts = path.with_suffix(".json")
            try:
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                used = (facts if facts.exists() else path).stat().st_mtime
            except OSError:
                continue
            yield Entry(path=path, stage="unpacked", bytes=size, used=used)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def remove(entry: Entry) -> None:
    """Delete one thing from the cache."""
    if entry.path.is_dir():
        entry.path.with_suffix(".json").unlink(missing_ok=True)  # first: without it the folder is not believed
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        entry.path.unlink(missing_ok=True)


def make_room(root: Path, limit_bytes: int, *, fresh_s: float = FRESH_S) -> int:
    """Delete what was not used for longest until the cache fits its limit; returns the bytes freed.

    Args:
        fresh_s: what was used within this time stays.
    """
    kept = sorted(entries(root), key=lambda entry: entry.used)
    total, freed = sum(entry.bytes for entry in kept), 0
    for entry in kept:
        if total - freed <= limit_bytes or entry.used > time.time() - fresh_s:
            break
        remove(entry)
        freed += entry.bytes
    return freed
