"""`recon batch`: one run for each sub-folder, each in a process of its own.

Input: a folder of capture folders. Output: one output folder per capture, a log beside it, a table and ``batch.json``.
Does not: stop because one folder is broken, or run several at once (one run uses every core).

A process of its own means that memory is given back, and that a crash in native code costs one folder only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from rich.console import Console
from rich.table import Table

from recon.capture.files import PHOTO_SUFFIXES, VIDEO_SUFFIXES
from recon.capture.names import natural_key
from recon.config import Holdout, PipelineConfig
from recon.errors import CannotReconstruct, UserError
from recon.files import write_json_atomic

from .cli import EXIT_STOPPED
from .console import Quiet, answer, format_bytes, format_seconds, say
from .run import check_choices

GRACE_S = 10.0
"""How long a stopped child may clean up before it is killed."""

Status = Literal["ok", "failed", "stopped", "not started"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one folder."""

    name: str
    status: Status = "not started"
    exit_code: int | None = None
    seconds: float = 0.0
    out: str = ""
    reason: str = ""
    """Why it failed; empty when it did not."""
    remedy: str = ""
    gaussians: int | None = None
    psnr_mean: float | None = None
    photos: int | None = None
    """Readable photos."""
    registered: int | None = None
    """Photos that got a camera."""
    memory_bytes: int | None = None
    """Largest resident size of the run or of a process it started."""


@dataclass(frozen=True, kw_only=True)
class BatchArguments:
    """Reconstruct every sub-folder of ROOT that holds photos into OUT/<name>. A broken folder does not stop the rest.
    Exit code 0: all worked, 1: some did, 3: none did."""

    root: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder whose sub-folders hold photos."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the results: OUT/<name>/, OUT/<name>.log, OUT/batch.json."""
    config: PipelineConfig = field(default_factory=PipelineConfig)
    quiet: Quiet = False
    """Show no progress."""
    json: Quiet = False
    """Print the summary as one JSON object on stdout."""


def batch(arguments: BatchArguments) -> int:
    """Run the command."""
    check_choices(arguments.config)
    captures = find_captures(arguments.root, arguments.out)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{arguments.out} cannot be made ({error.strerror}).", "Choose an output folder you may write to."
        ) from error
    outcomes = [Outcome(name=name) for name in captures]
    tell = (lambda _: None) if arguments.quiet else say
    stopped = False
    for index, (name, folder) in enumerate(captures.items()):
        tell(f"[{index + 1}/{len(captures)}] {name}")
        outcomes[index] = run_one(name, folder, arguments.out, arguments.config, tell)
        write_summary(arguments.out, outcomes)
        if outcomes[index].status == "stopped":
            stopped = True
            break
        tell(f"    {describe(outcomes[index])}")
    if arguments.json:
        answer(json.dumps(summarise(outcomes), indent=2))
    elif not arguments.quiet:
        Console(stderr=True).print(table(outcomes))
    return EXIT_STOPPED if stopped else exit_code(outcomes)


def find_captures(root: Path, out: Path) -> dict[str, Path]:
    """Find the sub-folders of ``root`` with photos in them or in their `images` folder, in natural name order.

    Returns:
        Sub-folder name -> folder of its photos; ``out`` is not one of them.

    Raises:
        UserError: there is no such folder, or nothing to do in it.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder.", "Give a folder whose sub-folders hold photos.")
    folders = [child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")]
    folders = sorted((child for child in folders if child.resolve() != out.resolve()), key=lambda child: natural_key(child.name))
    captures = {
        child.name: photos for child in folders for photos in (child / "images", child) if photos.is_dir() and has_photos(photos)
    }
    if not captures:
        own = f"It holds photos itself: use `recon run {root} -o {out}`."
        raise UserError(f"No sub-folder of {root} holds photos.", own if has_photos(root) else "Give each capture a sub-folder.")
    return captures


def has_photos(folder: Path) -> bool:
    return any(path.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES for path in folder.iterdir())


def config_flags(config: PipelineConfig) -> list[str]:
    """Write the choices that differ from the defaults as command-line flags."""
    flags: list[str] = []
    _collect_flags(config, type(config)(), flags)
    return flags


def _collect_flags(config: Any, usual: Any, flags: list[str]) -> None:
    for entry in dataclasses.fields(config):
        value, default = getattr(config, entry.name), getattr(usual, entry.name)
        flag = "--" + entry.name.replace("_", "-")
        if value == default:
            continue
        if isinstance(value, Holdout):
            flags += [flag, f"{value.every}:{value.offset}"]
        elif dataclasses.is_dataclass(value):
            _collect_flags(value, default, flags)
        elif isinstance(value, bool):
            flags.append(flag if value else "--no-" + flag[2:])
        else:
            flags += [flag, str(value)]


def child_command(folder: Path, out: Path, config: PipelineConfig) -> list[str]:
    """Build the command line of one child; ``-P`` keeps a folder named `app` in the working directory from being imported."""
    return [sys.executable, "-P", "-m", "app.cli", "run", str(folder), "-o", str(out), "--json", *config_flags(config)]


def child_environment() -> dict[str, str]:
    """Let a child find this very installation, however the parent found it."""
    here = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))}


def run_one(name: str, folder: Path, out: Path, config: PipelineConfig, tell: Callable[[str], None]) -> Outcome:
    """Run one folder in a child process; its stderr goes to ``OUT/<name>.log``. Ctrl-C stops the child and marks it stopped."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stdout, open(out / f"{name}.log", "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            child_command(folder, out / name, config),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=child_environment(),
            start_new_session=True,  # the terminal's Ctrl-C reaches us alone, and we pass it on
        )
        assert child.stderr is not None
        try:
            for line in child.stderr:
                log.write(line)
                log.flush()
                tell(f"    {line.rstrip()}")
            code = child.wait()
        except KeyboardInterrupt:
            stop_child(child)
            return Outcome(name=name, status="stopped", exit_code=EXIT_STOPPED, seconds=round(time.perf_counter() - began, 2))
        finally:
            child.stderr.close()
        stdout.seek(0)
        said = stdout.read()
    seconds = round(time.perf_counter() - began, 2)
    return read_outcome(name, out / name, code, seconds, said)


def stop_child(child: subprocess.Popen) -> None:
    """Ask a child and everything it started to stop, then make them."""
    _signal_group(child, signal.SIGINT)
    try:
        child.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(child, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        child.wait()


def _signal_group(child: subprocess.Popen, signum: int) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signum)
        else:
            child.terminate()
    except ProcessLookupError:
        return  # it ended by itself in the meantime


def read_outcome(name: str, out: Path, code: int, seconds: float, said: str) -> Outcome:
    """Understand what a child printed."""
    common = {"name": name, "exit_code": code, "seconds": seconds}
    how = f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
    try:
        report = json.loads(said)
    except json.JSONDecodeError:  # it died before it could say why; its log has the rest
        return Outcome(**common, status="failed", reason=f"{how} and gave no report; see {out}.log")
    if code != 0:
        return Outcome(**common, status="failed", reason=report.get("error") or how, remedy=report.get("remedy", ""))
    score, counts = (report["quality"] or {}).get("psnr_mean"), report["counts"]
    return Outcome(
        **common, status="ok", out=str(out), gaussians=counts["gaussians"], psnr_mean=score,
        photos=counts.get("photos"), registered=counts.get("registered"),
        memory_bytes=max((report.get("peak_memory_bytes") or {}).values(), default=None),
    )  # fmt: skip


def exit_code(outcomes: list[Outcome]) -> int:
    """0 when all worked, 1 when some did, 3 when none did."""
    worked = sum(outcome.status == "ok" for outcome in outcomes)
    return 0 if worked == len(outcomes) else 1 if worked else CannotReconstruct.exit_code


def summarise(outcomes: list[Outcome]) -> dict[str, Any]:
    """Make the content of batch.json."""
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in get_args(Status)}
    return {"format": 1, "counts": counts, "results": [dataclasses.asdict(outcome) for outcome in outcomes]}


def write_summary(out: Path, outcomes: list[Outcome]) -> None:
    write_json_atomic(out / "batch.json", summarise(outcomes))


def describe(outcome: Outcome) -> str:
    """Say in one line what became of a folder."""
    if outcome.status == "ok":
        score = f", {outcome.psnr_mean:.2f} dB" if outcome.psnr_mean is not None else ""
        count = f", {outcome.gaussians:,} Gaussians" if outcome.gaussians is not None else ""
        placed = f", {outcome.registered} of {outcome.photos} photos placed" if outcome.registered != outcome.photos else ""
        memory = f", {format_bytes(outcome.memory_bytes)}" if outcome.memory_bytes else ""
        return f"done in {format_seconds(outcome.seconds)}{count}{placed}{score}{memory}"
    return f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status


def table(outcomes: list[Outcome]) -> Table:
    """Lay the outcomes out for a terminal."""
    drawn = Table("folder", "result", "note")
    for outcome in outcomes:
        colour = {"ok": "green", "failed": "red"}.get(outcome.status, "yellow")
        drawn.add_row(outcome.name, f"[{colour}]{outcome.status}[/{colour}]", describe(outcome))
    return drawn
