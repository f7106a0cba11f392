"""`recon weights`: list, fetch, check and remove the published checkpoints.

Input: the words after `recon weights`. Output: lines on the terminal, or one JSON object.
Does not: know about hubs or files; ``models.checkpoints`` does.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models import checkpoints
from recon.errors import UserError

from .console import Quiet, answer, format_bytes, say

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    """Show which checkpoints there are, their licences, and which are on this machine."""

    commercial_ok: Quiet = False
    """Show only weights that may be used commercially."""
    json: Quiet = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True, kw_only=True)
class PullArguments:
    """Fetch a checkpoint after its licence was shown and accepted."""

    name: Name
    """Name from `recon weights list`."""
    accept_licence: Quiet = False
    """You have read the licence that is shown and agree to it."""
    commercial_ok: Quiet = False
    """Refuse weights that may not be used commercially."""
    file: Path | None = None
    """Install this file instead of downloading."""


@dataclass(frozen=True, kw_only=True)
class VerifyArguments:
    """Check an installed checkpoint: its checksum, and every tensor against the network."""

    name: Name
    """Name from `recon weights list`."""


@dataclass(frozen=True, kw_only=True)
class RemoveArguments:
    """Delete an installed checkpoint."""

    name: Name
    """Name from `recon weights list`."""


@dataclass(frozen=True, kw_only=True)
class PathArguments:
    """Print where a checkpoint is, or, without a name, the folder that holds them."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Name from `recon weights list`."""


@dataclass(frozen=True, kw_only=True)
class WeightsArguments:
    """Published networks: list, pull, verify and remove them, print where they are."""

    action: (
        Annotated[ListArguments, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[PullArguments, tyro.conf.subcommand("pull", prefix_name=False)]
        | Annotated[VerifyArguments, tyro.conf.subcommand("verify", prefix_name=False)]
        | Annotated[RemoveArguments, tyro.conf.subcommand("remove", prefix_name=False)]
        | Annotated[PathArguments, tyro.conf.subcommand("path", prefix_name=False)]
    )


def weights(arguments: WeightsArguments) -> int:
    """Run the command."""
    match arguments.action:
        case ListArguments() as wanted:
            list_weights(wanted)
        case PullArguments() as wanted:
            pull_weights(wanted)
        case VerifyArguments(name=name):
            receipt = checkpoints.verify(name)
            answer(f"{name}: right ({format_bytes(receipt.size_bytes)}, sha256 {receipt.sha256}, from {receipt.source})")
        case RemoveArguments(name=name):
            answer(f"{name}: removed, {format_bytes(checkpoints.remove(name))} freed")
        case PathArguments(name=name):
            answer(str(checkpoints.weights_folder() if name is None else checkpoints.installed_path(name)))
    return 0


def list_weights(wanted: ListArguments) -> None:
    """Print the checkpoints."""
    entries = [entry for entry in checkpoints.all_checkpoints().values() if entry.commercial or not wanted.commercial_ok]
    rows = [(entry, checkpoints.is_installed(entry.name)) for entry in entries]
    if wanted.json:
        answer(json.dumps({"checkpoints": [{**asdict(entry), "installed": here} for entry, here in rows]}, indent=2))
        return
    for entry, here in rows:
        answer(f"{entry.name:<16} {entry.title}: {entry.task}")
        place = "on this machine" if here else f"{entry.size_bytes / 1e9:.2f} GB to download"
        use = "yes" if entry.commercial else "no"
        answer(f"{'':<16} {place}; needs about {entry.memory_gib:.1f} GiB of memory; commercial use: {use}")
        answer(f"{'':<16} weights: {entry.weights_licence}")


def pull_weights(wanted: PullArguments) -> None:
    """Show the licence, ask where somebody can answer, fetch.

    Raises:
        UserError: the terms were not accepted or do not fit, or the download failed.
    """
    entry = checkpoints.find_checkpoint(wanted.name)
    if wanted.commercial_ok and not entry.commercial:
        raise UserError(f"{entry.title}: {entry.weights_licence}.", "Choose one from `recon weights list --commercial-ok`.")
    accepted = wanted.accept_licence
    say(entry.licence_text)
    if not accepted and sys.stdin.isatty():
        say("Do you accept these terms? Type yes to go on.")
        accepted = sys.stdin.readline().strip().lower() in ("y", "yes")
    answer(str(checkpoints.pull(wanted.name, accept_licence=accepted, file=wanted.file, say=say)))
