"""`recon doctor`: what this machine offers, which parts will be used and why, and what is broken.

Input: nothing. Output: a table, or one JSON object; exit code 2 when something that every run needs is broken.
Does not: repair, or reach the network.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from recon.errors import UserError

from .cli import EXIT_USAGE
from .console import Quiet, answer, format_bytes, format_seconds

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """'note' works but could be better; 'broken' stops every run."""
    text: str


@dataclass(frozen=True, kw_only=True)
class DoctorArguments:
    """Say what this machine offers and which parts will be used."""

    warm: Quiet = False
    """Also compile the CPU kernels now, so that the first run does not have to."""
    json: Quiet = False
    """Print one JSON object on stdout."""


def doctor(arguments: DoctorArguments) -> int:
    """Run the command."""
    findings = [finding for check in CHECKS for finding in guarded(check)]
    if arguments.warm:
        findings += list(guarded(check_warm))
    if arguments.json:
        answer(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        drawn = Table(show_header=False, box=None)
        colours = {"ok": "green", "note": "yellow", "broken": "red"}
        for finding in findings:
            drawn.add_row(f"[{colours[finding.state]}]{finding.state}[/]", finding.name, finding.text)
        Console(soft_wrap=True).print(drawn)
    return EXIT_USAGE if any(finding.state == "broken" for finding in findings) else 0


def guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turn a check that fails into a finding; that is what a doctor is for."""
    try:
        yield from check()
    except Exception as error:
        yield Finding(name=check.__name__.removeprefix("check_"), state="broken", text=f"{type(error).__name__}: {error}")


def check_python() -> Iterator[Finding]:
    new_enough = sys.version_info >= (3, 11)
    text = f"{platform.python_version()} on {platform.platform()}"
    yield Finding(name="python", state="ok" if new_enough else "broken", text=text)


def check_packages() -> Iterator[Finding]:
    wanted = ("torch", "numpy", "numba", "pycolmap", "opencv-python-headless", "pillow", "gradio", "viser")
    found, missing = [], []
    for name in wanted:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(f"{name} MISSING")
    yield Finding(name="packages", state="broken" if missing else "ok", text=", ".join(missing + found))


def check_machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(name="cores", state="ok", text=f"{cores} usable")
    memory = memory_bytes()
    if memory is not None:
        total, available = memory
        state: State = "ok" if available > LOW_MEMORY_BYTES else "note"
        yield Finding(name="memory", state=state, text=f"{format_bytes(available)} free of {format_bytes(total)}")


def memory_bytes() -> tuple[int, int] | None:
    """Total and available memory; None where the system does not tell."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    facts = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    total, available = (int(facts[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return total, available


def check_gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding(name="gpu", state="ok", text=f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})")
    else:
        yield Finding(name="gpu", state="ok", text="none that torch can use; the CPU does everything")


def check_rasterizer() -> Iterator[Finding]:
    import torch

    from render.rasterizer import describe, load_rasterizer

    idle_gpu = torch.cuda.is_available() and load_rasterizer("auto").name != "cuda"
    yield Finding(name="rasteriser", state="note" if idle_gpu else "ok", text=describe())


def check_threads() -> Iterator[Finding]:
    import numba

    from render.kernels.jit import prepare

    layer, count = prepare(), numba.get_num_threads()
    if layer in ("tbb", "omp"):
        yield Finding(name="threads", state="ok", text=f"{count}, threading layer {layer}")
    else:
        text = f"{count}, threading layer {layer}: pictures are drawn one at a time; `pip install tbb` would allow several"
        yield Finding(name="threads", state="note", text=text)


def check_weights() -> Iterator[Finding]:
    from models.registry import shipped_path, shipped_weights

    if not shipped_weights():
        yield Finding(name="weights", state="broken", text="this installation ships none; reinstall recon")
    for name, entry in shipped_weights().items():
        try:
            shipped_path(name)
        except UserError as error:
            yield Finding(name=f"weights {name}", state="broken", text=str(error))
        else:
            text = f"{entry.file}, {format_bytes(entry.size_bytes)}, {entry.licence}, checksum right"
            yield Finding(name=f"weights {name}", state="ok", text=text)


def check_published() -> Iterator[Finding]:
    """Say which published networks are on this machine and which can run here."""
    import torch

    from models.checkpoints import all_checkpoints, is_installed
    from models.published.planner import verdict
    from models.published.zoo import find_network

    device = "cuda" if torch.cuda.is_available() else "cpu"
    verdicts = {name: verdict(find_network(name), device) for name in {entry.network for entry in all_checkpoints().values()}}
    for name, entry in all_checkpoints().items():
        fits, why = verdicts[entry.network]
        here = "on this machine" if is_installed(name) else f"not here; get it with: recon weights pull {name}"
        state: State = "note" if is_installed(name) and not fits else "ok"
        text = f"{'can run' if fits else 'cannot run'} on {device}: {why.removesuffix('.')}; {here}"
        yield Finding(name=f"model {name}", state=state, text=text)


def check_cache() -> Iterator[Finding]:
    import render

    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else Path(str(render.__file__)).parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}): kernels are compiled again in every run; set NUMBA_CACHE_DIR"
        yield Finding(name="kernel cache", state="note", text=text)
    else:
        yield Finding(name="kernel cache", state="ok", text=str(folder))


def check_warm() -> Iterator[Finding]:
    """Compile what a run on a CPU uses, forward and backward, and keep it in the cache."""
    from .warming import warm_up

    yield Finding(name="warm", state="ok", text=f"kernels ready in {format_seconds(warm_up())}")


LOW_MEMORY_BYTES = 4 * 2**30
CHECKS = (
    check_python, check_packages, check_machine, check_gpu, check_threads, check_rasterizer,
    check_weights, check_published, check_cache,
)  # fmt: skip
