"""The registry of published checkpoints: which there are, under which licence, and getting them onto this machine.

Input: names, and a yes to the licence. Output: checked weight files in the weights folder.
Does not: load networks (``models.published`` does) or fetch anything without a yes.

A file is fetched into a staging folder, where an interrupted download can go on later, checked (size, checksum, and every
tensor against the network), and only then renamed into place beside a receipt. What is not installed completely is not
installed at all.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import platform
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from recon.errors import UserError
from recon.files import atomic_folder, read_json, write_json_atomic

from .published.checkpoint.files import open_checkpoint
from .published.checkpoint.keys import WrongCheckpoint, match_keys, require_match
from .published.checkpoint.pickles import BrokenCheckpoint
from .published.doors import PublishedPredictor, load_published
from .published.zoo import find_network, identify, on_meta

__all__ = [
    "Checkpoint",
    "Receipt",
    "all_checkpoints",
    "find_checkpoint",
    "installed_path",
    "is_installed",
    "load_installed",
    "pull",
    "remove",
    "verify",
    "weights_folder",
]

RECEIPT = "receipt.json"
STAGING = ".unfinished"
FREE_MARGIN = 1.05
"""Free disk space wanted, over the size of the file."""
READ_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One entry of ``weights/published.toml``."""

    name: str
    network: str
    """Name in ``models.published.zoo``."""
    title: str
    task: str
    repository: str
    """On the Hugging Face hub."""
    revision: str
    """Commit, or "main" where none is pinned."""
    file: str
    size_bytes: int
    """Exact when ``sha256`` is given and ends in no round number; used to look for room."""
    sha256: str | None = None
    code_licence: str
    weights_licence: str
    commercial: bool
    """True when the weights may be used commercially."""
    gated: bool
    """True when the hub hands them out on request only."""
    memory_gib: float
    """Memory for four photos of 4:3 on a CPU, weights included."""

    @property
    def licence_text(self) -> str:
        """What a person agrees to, in a few lines."""
        lines = [
            f"{self.title} ({self.repository}), {self.size_bytes / 1e9:.2f} GB",
            f"  weights: {self.weights_licence}",
            f"  code:    {self.code_licence}",
            f"  commercial use: {'yes' if self.commercial else 'no'}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was installed."""

    name: str
    file: str
    source: str
    """Where it came from: repository and commit, or the file the user gave."""
    size_bytes: int
    sha256: str


@lru_cache
def all_checkpoints() -> dict[str, Checkpoint]:
    """Read the entries, in the order of the file."""
    text = resources.files("weights").joinpath("published.toml").read_text(encoding="utf-8")
    return {entry["name"]: Checkpoint(**entry) for entry in tomllib.loads(text)["checkpoint"]}


def find_checkpoint(name: str) -> Checkpoint:
    """Look up an entry.

    Raises:
        UserError: there is none; suggests the nearest.
    """
    entries = all_checkpoints()
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UserError(f"There is no checkpoint called {name!r}.", f"{hint}There are: {', '.join(entries)}.")


def weights_folder() -> Path:
    """Choose where checkpoints are kept: RECON_WEIGHTS_DIR, else the user's cache folder."""
    given = os.environ.get("RECON_WEIGHTS_DIR")
    if given:
        return Path(given).expanduser()
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "recon" / "weights"
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "recon" / "weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recon" / "weights"


def installed_path(name: str) -> Path:
    """Find the installed file of a checkpoint.

    Raises:
        UserError: the name is unknown, or it is not installed.
    """
    entry = find_checkpoint(name)
    if not is_installed(name):
        raise UserError(
            f"The weights of {name} are not on this machine.",
            f"Fetch them with `recon weights pull {name}` ({entry.size_bytes / 1e9:.2f} GB), or give a file with --weights.",
        )
    return weights_folder() / name / entry.file


def is_installed(name: str) -> bool:
    """Say whether a checkpoint is on this machine.

    Raises:
        UserError: the name is unknown.
    """
    folder = weights_folder() / name
    return (folder / find_checkpoint(name).file).is_file() and (folder / RECEIPT).is_file()


def pull(name: str, *, accept_licence: bool, file: Path | None = None, say: Callable[[str], None] = lambda text: None) -> Path:
    """Install a checkpoint from the hub, or from a file the user has.

    Args:
        accept_licence: the person has seen ``licence_text`` and agrees.
        file: a file to install instead of downloading; it is copied.
        say: called with one line per step.

    Returns:
        The installed file.

    Raises:
        UserError: unknown name, no agreement, no network, no room, no permission, or a file that is not what it should be.
            Nothing is installed then.
    """
    entry = find_checkpoint(name)
    if not accept_licence:
        raise UserError(
            f"The terms of {entry.title} were not accepted (weights: {entry.weights_licence}).",
            f"Read them at https://huggingface.co/{entry.repository} and repeat: recon weights pull {name} --accept-licence",
        )
    try:
        found, source = (Path(file), f"file {Path(file).name}") if file is not None else _download(entry, say)
        say("checking the file")
        receipt = _check(entry, found, source)
        target = weights_folder() / name
        _require_room(target.parent, receipt.size_bytes if file is not None else 0)
        with atomic_folder(target) as folder:
            if file is not None:
                shutil.copyfile(found, folder / entry.file)
            else:
                os.replace(found, folder / entry.file)
            write_json_atomic(folder / RECEIPT, asdict(receipt))
    except (BrokenCheckpoint, WrongCheckpoint):
        _clear_staging(name)
        raise
    except OSError as error:
        raise _disk_error(error, weights_folder()) from error
    _clear_staging(name)
    say(f"installed {target / entry.file}")
    return target / entry.file


def load_installed(name: str, device: str = "cpu", weights: Path | None = None) -> PublishedPredictor:
    """Load a checkpoint as a predictor.

    Args:
        device: 'cpu' or 'cuda'.
        weights: a file of the user's instead of the installed one.

    Raises:
        UserError: it is not installed, or the file is damaged or of another network.
    """
    entry = find_checkpoint(name)
    return load_published(entry.network, installed_path(name) if weights is None else Path(weights), device, name=name)


def verify(name: str) -> Receipt:
    """Check an installed checkpoint: size and checksum against its receipt, every tensor against the network.

    Raises:
        UserError: it is not installed or damaged.
    """
    entry, path = find_checkpoint(name), installed_path(name)
    receipt = Receipt(**read_json(path.parent / RECEIPT))
    fresh = _check(entry, path, receipt.source)
    if (fresh.sha256, fresh.size_bytes) != (receipt.sha256, receipt.size_bytes):
        raise BrokenCheckpoint(f"{path} changed since it was installed.", f"Pull it again: recon weights pull {name}")
    return receipt


def remove(name: str) -> int:
    """Delete an installed checkpoint and any unfinished download of it; returns the bytes freed.

    Raises:
        UserError: the name is unknown, or nothing of it is here.
    """
    find_checkpoint(name)
    folders = [folder for folder in (weights_folder() / name, weights_folder() / STAGING / name) if folder.is_dir()]
    if not folders:
        raise UserError(f"The weights of {name} are not on this machine.", "`recon weights list` shows what is.")
    freed = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    for folder in folders:
        shutil.rmtree(folder)
    return freed


def _check(entry: Checkpoint, path: Path, source: str) -> Receipt:
    """Check a file's kind, checksum and tensors.

    Raises:
        BrokenCheckpoint: damaged or no checkpoint.
        WrongCheckpoint: of another network.
    """
    opened = open_checkpoint(path)
    network = find_network(entry.network)
    match = match_keys(on_meta(network.build), network.keys(), opened.shapes)
    if not match.complete:
        require_match(match, network_name=entry.name, file_name=path.name, looks_like=identify(opened.shapes))
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    if entry.sha256 is not None and not source.startswith("file ") and digest.hexdigest() != entry.sha256:
        raise BrokenCheckpoint(f"{path.name} is not the file that was published: its checksum differs.", "Download it again.")
    return Receipt(name=entry.name, file=entry.file, source=source, size_bytes=path.stat().st_size, sha256=digest.hexdigest())


def _download(entry: Checkpoint, say: Callable[[str], None]) -> tuple[Path, str]:
    """Fetch a file from the hub into the staging folder; an unfinished download goes on where it stopped."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise UserError(
            "Offline mode is on (HF_HUB_OFFLINE), so nothing is downloaded.",
            f"Unset it, or install a file you have: recon weights pull {entry.name} --file FILE",
        )
    import huggingface_hub as hub

    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        url = hub.hf_hub_url(entry.repository, entry.file, revision=entry.revision, endpoint=endpoint)
        facts = hub.get_hf_file_metadata(url, endpoint=endpoint)
        if facts.commit_hash is None or facts.etag is None:
            raise UserError(
                "The answer did not come from a Hugging Face hub: a proxy or a login page may stand between.",
                f"Check HF_ENDPOINT and the proxy, or install a file you have: recon weights pull {entry.name} --file FILE",
            )
        size = facts.size or entry.size_bytes
        _require_room(weights_folder(), size)
        say(f"downloading {entry.file} of {entry.repository} ({size / 1e9:.2f} GB)")
        staging = weights_folder() / STAGING / entry.name
        staging.mkdir(parents=True, exist_ok=True)
        path = hub.hf_hub_download(entry.repository, entry.file, revision=facts.commit_hash, local_dir=staging, endpoint=endpoint)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises errors of three libraries; each becomes words
        raise _hub_error(error, entry) from error
    return Path(path), f"{entry.repository}@{facts.commit_hash}"


def _hub_error(error: Exception, entry: Checkpoint) -> UserError:
    """Put an error of the hub's client into words."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{entry.repository}"
    own_file = f"or install a file you have: recon weights pull {entry.name} --file FILE"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return _disk_error(error, weights_folder())
    if isinstance(error, errors.GatedRepoError):
        remedy = f"Ask for access at {page}, then log in (hf auth login) or set HF_TOKEN."
        return UserError(f"{entry.title} is handed out on request only.", remedy)
    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)
    if isinstance(error, absent) and not isinstance(error, errors.LocalEntryNotFoundError):  # the last means no connection
        return UserError(f"The hub has no {entry.file} at {entry.repository}@{entry.revision}.", f"Look at {page}, {own_file}")
    return UserError(
        f"The download failed ({type(error).__name__}: {str(error)[:200]}).",
        f"Check the network and repeat: it goes on where it stopped; {own_file}",
    )


def _disk_error(error: OSError, folder: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"The disk that holds {folder} is full.", "Free some space, or set RECON_WEIGHTS_DIR to another disk.")
    return UserError(f"{folder} cannot be written ({error.strerror or error}).", "Set RECON_WEIGHTS_DIR to a folder of yours.")


def _require_room(folder: Path, size: int) -> None:
    """Refuse before a file is fetched for which there is no room."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < FREE_MARGIN * size:
        raise UserError(
            f"{size / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free on the disk that holds {folder}.",
            "Free some space, or set RECON_WEIGHTS_DIR to another disk.",
        )


def _clear_staging(name: str) -> None:
    folder = weights_folder() / STAGING / name
    if folder.is_dir():
        shutil.rmtree(folder)
