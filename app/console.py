"""Show a run on the terminal: one line per stage with time left, then what came out.

Input: progress events and reports. Output: text on stderr (progress) and stdout (results).
Does not: run anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import tyro
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from recon.progress import Progress, ProgressEvent

Quiet = tyro.conf.FlagCreatePairsOff[bool]
"""A flag without its `--no-` twin."""
LABELS = {
    "photos": "Reading photos",
    "cameras": "Finding cameras",
    "depth": "Estimating depth",
    "gaussians": "Making Gaussians",
    "polish": "Polishing",
    "score": "Scoring",
    "write": "Writing",
}
"""Stage -> what a person reads."""


class _Bars:
    """One bar per stage on a terminal that can redraw."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: ProgressEvent) -> None:
        if event.advice:
            self.bars.console.print(f"  {event.message}", markup=False, highlight=False)
            return
        for stage, task in self.tasks.items():
            if stage != event.stage:  # stages follow one another: what came before is done
                self.bars.update(task, completed=1.0)
                self.bars.stop_task(task)
        if event.stage not in self.tasks:
            self.tasks[event.stage] = self.bars.add_task(LABELS.get(event.stage, event.stage), total=1.0, note="")
        self.bars.update(self.tasks[event.stage], completed=event.fraction, note=event.message)


class _Lines:
    """One line per stage and per half of it, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stage = ""
        self.next_fraction = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        if event.advice:
            self.console.print(f"  {event.message}", markup=False, highlight=False)
            return
        if event.stage != self.stage:
            self.stage, self.next_fraction = event.stage, 0.0
        if event.fraction < self.next_fraction:
            return
        self.next_fraction = 0.5 if event.fraction < 0.5 else (1.0 if event.fraction < 1.0 else 2.0)
        note = f": {event.message}" if event.message else ""
        line = f"{LABELS.get(event.stage, event.stage)} {event.fraction:4.0%}{time_left(event)}{note}"
        self.console.print(line, markup=False, highlight=False)


def time_left(event: ProgressEvent) -> str:
    """Estimate the rest of the stage from its pace so far, as ``" (about 12 s left)"``; empty while unknown."""
    if event.fraction <= 0.02 or event.fraction >= 1.0 or event.elapsed_s < 1.0:
        return ""
    return f" (about {format_seconds(event.elapsed_s * (1.0 - event.fraction) / event.fraction)} left)"


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Progress]:
    """Give a ``Progress`` that draws on stderr while the block runs; a quiet one draws nothing."""
    if quiet:
        yield Progress()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(_Lines(console))
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>4.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bars(*columns, console=console) as bars:
        yield Progress(_Bars(bars))


def say(text: str) -> None:
    """Write a line for a person on stderr."""
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)


def say_error(reason: str, remedy: str) -> None:
    """Write what went wrong and what to do about it on stderr."""
    console = Console(stderr=True, soft_wrap=True)
    console.print("Error:", style="bold red", end=" ")
    console.print(reason, markup=False, highlight=False)
    if remedy:
        console.print("What to do:", style="bold", end=" ")
        console.print(remedy, markup=False, highlight=False)


def answer(text: str) -> None:
    """Write a result on stdout, where another program may read it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def format_seconds(seconds: float) -> str:
    """Write a duration the way a person says it."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(count: float) -> str:
    """Write a size in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
