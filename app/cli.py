"""The command `recon`: pick a command, read its flags, run it, turn errors into words and exit codes.

Input: command-line words. Output: an exit code.
Does not: do the work; every command lives beside the thing it drives and is imported only when asked for, so that
`recon --help` answers at once.

Exit codes: 0 done; 1 some folders of a batch failed, or an internal error; 2 wrong usage, input or machine; 3 these photos
cannot be reconstructed (a batch: none could); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from recon import __version__
from recon.errors import UserError
from recon.progress import Cancelled

EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True)
class Command:
    """Where a command lives."""

    summary: str
    """One line of the overview."""
    module: str
    """Module with the record of its arguments and the function that runs it."""
    arguments: str
    """Name of the record."""
    function: str
    """Name of the function: record -> exit code."""


COMMANDS = {
    "run": Command("photos -> splats, cameras, preview, video, report", "app.run", "RunArguments", "run"),
    "check": Command("look at photos before a run: blur, exposure, copies", "app.check_command", "CheckArguments", "check"),
    "view": Command("walk round a scene in the browser", "app.scene_commands", "ViewArguments", "view"),
    "app": Command("a local web page: drop photos, watch, look, download", "app.server.command", "AppArguments", "serve"),
    "batch": Command("one run for each sub-folder of a folder", "app.batch", "BatchArguments", "batch"),
    "polish": Command("optimise a scene further against its photos", "app.polish_command", "PolishArguments", "polish_scene"),
    "eval": Command("score a scene against photos", "app.eval_command", "EvalArguments", "evaluate"),
    "eval cameras": Command("score cameras against a reference", "app.eval_cameras", "EvalCamerasArguments", "evaluate_cameras"),
    "render": Command("pictures of a scene from its cameras, or a video", "app.scene_commands", "RenderArguments", "render"),
    "export": Command("write a scene as another file, and check it", "app.export_command", "ExportArguments", "export"),
    "info": Command("what a scene is made of", "app.scene_commands", "InfoArguments", "info"),
    "crop": Command("cut a part out of a scene", "app.scene_tools", "CropArguments", "crop"),
    "clean": Command("remove floaters, outliers and what has no evidence", "app.scene_tools", "CleanArguments", "clean_scene"),
    "merge": Command("join scenes that share one world", "app.scene_tools", "MergeArguments", "merge"),
    "transform": Command("move, turn and scale a scene with its cameras", "app.scene_tools", "TransformArguments", "transform"),
    "compare": Command("how two scenes differ", "app.scene_tools", "CompareArguments", "compare_scenes"),
    "cache": Command("what is kept between runs, and making room", "app.cache_command", "CacheArguments", "cache"),
    "doctor": Command("what this machine offers and which parts will be used", "app.doctor", "DoctorArguments", "doctor"),
    "weights": Command("list, pull, verify, remove published networks", "app.weights_command", "WeightsArguments", "weights"),
    "worlds": Command("draw the procedural scenes that networks are trained on", "app.worlds", "WorldsArguments", "draw_worlds"),
    "train": Command("train a network from procedural scenes", "app.train", "TrainArguments", "train"),
}
"""Command -> where it lives, in the order of the overview."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0 if words else EXIT_USAGE
    if words[0] in ("-V", "--version"):
        sys.stdout.write(f"recon {__version__}\n")
        return 0
    if " ".join(words[:2]) in COMMANDS:
        words[:2] = [" ".join(words[:2])]
    if words[0] not in COMMANDS:
        sys.stderr.write(f"recon: no command {words[0]!r}; there are: {', '.join(COMMANDS)}\n")
        return EXIT_USAGE
    return _guarded(COMMANDS[words[0]], words)


def overview() -> str:
    """Text of `recon --help`."""
    lines = [f"  {name:<12} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: recon COMMAND ...",
            "",
            "Photos in, 3D Gaussian splats out. `recon COMMAND --help` lists the flags of a command.",
            "",
            *lines,
            "",
            "A first try:  recon run my_photos/ -o out/my_scene && recon view out/my_scene",
            "",
            "exit codes: 0 done, 1 part of a batch failed or an internal error, 2 wrong usage, input or machine,",
            "            3 these photos cannot be reconstructed, 130 stopped by Ctrl-C",
            "",
        ]
    )


def _guarded(command: Command, words: list[str]) -> int:
    """Run a command; what a person can act on is said in words, anything else is a fault of ours and keeps its traceback."""
    from recon.resume.disk import disk_trouble

    from .console import say

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # a polite kill cleans up the way Ctrl-C does
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads sleep: spinning makes a busy machine crawl
    prefer_large_pages(LARGE_PAGES)
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # photos are judged by our own check, which says more
    if "--quiet" not in words:
        logging.getLogger("render.kernels").setLevel(logging.INFO)  # says when half a minute goes into compiling
    try:
        module = import_module(command.module)
        arguments = parse(getattr(module, command.arguments), words[1:], f"recon {words[0]}")
        return getattr(module, command.function)(arguments)
    except UserError as error:
        return refuse(error, words)
    except (KeyboardInterrupt, Cancelled):
        say("Stopped.")
        return EXIT_STOPPED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; there is nobody to tell
        return EXIT_INTERNAL
    except OSError as error:
        told = disk_trouble(error)
        if told is None:
            raise
        return refuse(told, words)


def refuse(error: UserError, words: Sequence[str]) -> int:
    """Say why a command cannot be done and what would help; returns the exit code."""
    from .console import say_error

    if "--json" in words:
        sys.stdout.write(json.dumps({"error": error.reason, "remedy": error.remedy, "exit_code": error.exit_code}) + "\n")
    say_error(error.reason, error.remedy)
    return error.exit_code


def prefer_large_pages(setting: Path) -> None:
    """Let torch ask for large memory pages where Linux gives them on request: new buffers cost a fraction of the time.

    Args:
        setting: the system's file that says whether it does.
    """
    if setting.is_file() and "[madvise]" in setting.read_text():
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def parse(record: type, words: Sequence[str], program: str) -> Any:
    """Read flags into ``record``; nested records lose their prefix, so that `--max-gaussians` is enough.

    Raises:
        SystemExit: the words do not fit (code 2), or help was asked for (code 0).
    """
    import tyro

    return tyro.cli(record, args=list(words), prog=program, registry=_registry(), config=(tyro.conf.OmitArgPrefixes,))


def _registry() -> Any:
    """Teach tyro to read a holdout as ``K[:OFFSET]``."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()
    if "recon.config" not in sys.modules:  # no record that was imported has one; importing it brings torch, which takes seconds
        return registry
    from recon.config import Holdout

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type not in (Holdout, Holdout | None):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="K[:OFFSET]",
            instance_from_str=lambda words: None if words[0] == "none" else Holdout.parse(words[0]),
            is_instance=lambda value: value is None or isinstance(value, Holdout),
            str_from_instance=lambda value: ["none" if value is None else f"{value.every}:{value.offset}"],
        )

    return registry


if __name__ == "__main__":
    sys.exit(main())
