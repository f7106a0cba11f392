"""What a run will cost, before it starts: seconds per stage and memory, from the photos, the choices and the machine.

Input: ``Views``, config, a short measurement of the machine. Output: ``Plan``, and a config that keeps to ``max_memory``.
Does not: run anything.

The work of each stage is counted in photos, pixels and pairs; a short measurement says how fast this machine does such work; and
what earlier runs on this machine really took corrects both (``planning.history``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..cameras.features import feature_size
from ..cameras.recipes import FEW, LEAN_SIFT, RICH_SIFT, SIFT, SOME
from ..errors import UserError
from ..fuse import default_budget
from ..records import Views
from ..refining import MOST_PHOTOS
from .history import Experience, learn, load_experience
from .memory import memory_needed, resident_bytes
from .probe import Machine, measure

if TYPE_CHECKING:
    from ..config import PipelineConfig

REFERENCE = Machine(cores=2, sift_s=0.70, conv_s=0.0165)
"""What the probe said of the machine on which the costs below were measured."""
FEATURE_S, FEATURES_PER_MPX = 0.6, 13_000
"""Cameras: per 10^6 pixels of a photo at the size features are found at, and how many are found there."""
PAIR_S, PAIR_FEATURES, PLACE_S = 0.06, 4096, 0.22
"""Cameras: per compared pair of photos with so many features (as their number to the power 1.5), per photo placed; half as
much again as when the first way succeeds, for nearly half of our sets need another, and nobody knows which before."""
EXHAUSTIVE_UP_TO, PAIRS_PER_PHOTO = 16, 9
READ_CAMERAS_S = 0.02
"""Cameras from a file."""
READ_S = 0.06
"""Photos: per 10^6 stored pixels, decoding and looking."""
DEPTH_S = {"mini": 1.45, "plane-sweep": 14.0}
"""Depth: per 10^6 working pixels."""
FUSING_S, PASS_S = 2.0, 0.36
"""Gaussians: per 10^6 working pixels, fusing, and each pass of refinement or colour matching over the photos it looks at."""
ROUNDS = 8
"""Passes of refinement when nobody names a number."""
SCORE_S = 0.15
"""Per held-out photo."""
WRITE_S, VIDEO_S = 2.0, 11.0
POLISH_OVERHEAD = 1.35
"""Polishing with its guard over the seconds given."""
CHUNKED_SLOWER = 1.15
"""Making Gaussians in chunks over making them at once."""
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is expected to take."""

    seconds: dict[str, float | None]
    """Per stage; None where nothing is known yet of a network that was not run on this machine."""
    memory_bytes: int
    """Largest resident size of this process."""
    chunked: bool
    """True when views are worked on in chunks to keep to the memory that is allowed."""
    machine: Machine
    learned_from: int
    """Earlier runs on this machine that corrected the estimate."""

    @property
    def total_s(self) -> float:
        return sum(value for value in self.seconds.values() if value is not None)

    def sentence(self, ready: Sequence[str] = ()) -> str:
        """For a person.

        Args:
            ready: stages whose result is in the cache.
        """
        left = {name: value for name, value in self.seconds.items() if name not in ready}
        unknown = [name for name, value in left.items() if value is None]
        total_s = sum(value for value in left.values() if value is not None)
        time = f"{total_s:.0f} seconds" if total_s < 120 else f"{total_s / 60:.0f} minutes"
        rest = f", and {' and '.join(unknown)}, of which nothing is known yet" if unknown else ""
        chunks = ", in chunks" if self.chunked else ""
        return f"This will take about {time}{rest}, and {self.memory_bytes / GB:.1f} GB of memory{chunks}."

    def entry(self) -> dict:
        """The estimate for report.json; ``fill_actual`` puts beside it what was."""
        return {
            "seconds": {name: {"estimated": value, "actual": None} for name, value in self.seconds.items()},
            "total_s": {"estimated": self.total_s, "actual": None},
            "memory_bytes": {"estimated": self.memory_bytes, "actual": None},
            "chunked": self.chunked,
            "learned_from_runs": self.learned_from,
        }


def as_planned(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of stages as estimates count them: a polish holds the scenes it begins with."""
    if "polish" not in seconds:
        return dict(seconds)
    return {**seconds, "polish": seconds["polish"] + seconds.get("gaussians", 0.0)}


def fill_actual(report: dict) -> None:
    """Put what a run took beside what was expected; stages found in the cache count as they took when they ran."""
    plan = report.get("plan")
    if plan is None:
        return
    seconds = as_planned({**(report.get("cached_s") or {}), **report["seconds"]})
    for name, pair in plan["seconds"].items():
        pair["actual"] = seconds.get(name)
    plan["total_s"]["actual"] = sum(seconds.get(name, 0.0) for name in plan["seconds"])
    plan["memory_bytes"]["actual"] = (report.get("peak_memory_bytes") or {}).get("process")


def variant(stage: str, config: PipelineConfig, model: str, device: str) -> str:
    """Runs of one variant of a stage take alike, so that one can be learnt from another."""
    detail = {
        "cameras": source_of_cameras(config),
        "depth": model,
        "gaussians": f"{passes(config)}",
        "write": str(config.video),
    }
    return f"{stage}|{detail.get(stage, '')}|{device}"


def passes(config: PipelineConfig) -> int:
    """How often photos are drawn to fit the Gaussians to them."""
    if config.refine == 0:
        return config.fuse.recolor_steps
    return ROUNDS if config.refine is None else config.refine


def source_of_cameras(config: PipelineConfig) -> str:
    """A word for where cameras come from: a name, or that a file gives them."""
    return config.cameras if config.cameras.replace("-", "").isalnum() and "." not in config.cameras else "file"


def work_seconds(views: Views, config: PipelineConfig, model: str, machine: Machine, *, chunked: bool) -> dict[str, float | None]:
    """Seconds per stage by counting work, before experience corrects them."""
    count = len(views)
    inputs = [view for view in views if not view.holdout]
    working_mpx = sum(view.width * view.height for view in inputs) / 1e6
    pairs = count * (count - 1) / 2 if count <= EXHAUSTIVE_UP_TO else count * PAIRS_PER_PHOTO
    one = machine.sift_s / REFERENCE.sift_s  # a thread of this machine against one of the reference
    all_threads = one * REFERENCE.cores / min(machine.cores, 8)
    networks = machine.conv_s / REFERENCE.conv_s * REFERENCE.cores / min(machine.cores, 8)
    kind = RICH_SIFT if count <= FEW else SIFT if count <= SOME else LEAN_SIFT
    sizes = [feature_size(view, kind) for view in views]
    feature_mpx = sum(width * height for width, height in sizes) / 1e6
    features = min(kind.most, FEATURES_PER_MPX * feature_mpx / max(1, count))
    pair_s = PAIR_S * (features / PAIR_FEATURES) ** 1.5
    cameras = all_threads * (FEATURE_S * feature_mpx + pair_s * pairs) + one * PLACE_S * count
    depth = DEPTH_S.get(model)
    looked_at = min(1.0, MOST_PHOTOS / max(1, len(inputs))) if config.refine != 0 else 1.0
    passes_mpx = passes(config) * looked_at * working_mpx
    gaussians = all_threads * (FUSING_S * working_mpx + PASS_S * passes_mpx) * (CHUNKED_SLOWER if chunked else 1.0)
    seconds: dict[str, float | None] = {
        "photos": all_threads * READ_S * sum(view.original_width * view.original_height for view in views) / 1e6,
        "cameras": cameras if source_of_cameras(config) != "file" else READ_CAMERAS_S * one,
        "depth": None if depth is None else depth * working_mpx * networks,
    }
    if config.polish > 0:
        seconds["polish"] = config.polish * POLISH_OVERHEAD + 2 * gaussians
    else:
        seconds["gaussians"] = gaussians
    if config.holdout is not None:
        seconds["score"] = SCORE_S * all_threads * (count - len(inputs))
    seconds["write"] = all_threads * (WRITE_S + (VIDEO_S if config.video else 0.0))
    return seconds


def plan_run(
    views: Views,
    config: PipelineConfig,
    device: str,
    *,
    model: str | None = None,
    machine: Machine | None = None,
    experience: Experience | None = None,
) -> Plan:
    """Estimate a run.

    Args:
        model: the depth network that will be used; None takes the config's, 'mini' for 'auto'.
        machine: None measures it.
        experience: None reads that of this machine.

    Raises:
        UserError: even in chunks it does not fit into ``config.max_memory``; says what would.
    """
    chosen = model or ("mini" if config.model == "auto" else config.model)
    machine = machine or measure()
    known = load_experience() if experience is None else experience
    start = resident_bytes()
    polished = polished_gaussians(config, device)
    whole = memory_needed(views, start, chunked=False, polished=polished)
    chunked = config.max_memory is not None and whole > config.max_memory * GB
    needed = memory_needed(views, start, chunked=True, polished=polished) if chunked else whole
    if config.max_memory is not None and needed > config.max_memory * GB:
        raise UserError(
            f"--max-memory {config.max_memory:g}: these {len(views)} photos need about {needed / GB:.1f} GB even in chunks.",
            smaller(views, config, start, polished),
        )
    plain = work_seconds(views, config, chosen, machine, chunked=chunked)
    seconds = {name: known.corrected(variant(name, config, chosen, device), value, machine) for name, value in plain.items()}
    learned = max((known.runs(variant(name, config, chosen, device)) for name in seconds), default=0)
    return Plan(seconds=seconds, memory_bytes=needed, chunked=chunked, machine=machine, learned_from=learned)


def polished_gaussians(config: PipelineConfig, device: str) -> int:
    """Gaussians of the scene that a run will polish; 0 when it polishes none."""
    return (config.fuse.max_gaussians or default_budget(device)) if config.polish > 0 else 0


def smaller(views: Views, config: PipelineConfig, start: int, polished: int) -> str:
    """Say which working size would fit."""
    assert config.max_memory is not None
    for side in range(config.long_side - 32, 127, -32):
        shrunk = Views(
            tuple(
                replace(v, width=max(1, v.width * side // config.long_side), height=max(1, v.height * side // config.long_side))
                for v in views
            )
        )
        if memory_needed(shrunk, start, chunked=True, polished=polished) <= config.max_memory * GB:
            return f"Give --long-side {side} or fewer photos, or allow more memory."
    return f"{'Leave --polish out, give fewer photos' if polished else 'Give fewer photos'}, or allow more memory."


def kept_within(config: PipelineConfig, plan: Plan) -> PipelineConfig:
    """The config that works the way the plan says."""
    return replace(config, fuse=replace(config.fuse, frugal=True)) if plan.chunked and not config.fuse.frugal else config


def remember(
    views: Views,
    config: PipelineConfig,
    device: str,
    plan: Plan,
    actual_s: dict[str, float],
    *,
    ran: Sequence[str],
    model: str | None,
) -> None:
    """Learn from a finished run for the next estimate.

    Args:
        ran: stages that were computed; those found in the cache teach nothing.
        model: the depth network that ran.
    """
    chosen = model or config.model
    counted = work_seconds(views, config, chosen, plan.machine, chunked=plan.chunked)
    seconds = as_planned(actual_s)
    took = {name: seconds[name] for name in counted if name in seconds and name in ran}
    learn(counted, took, {name: variant(name, config, chosen, device) for name in counted}, plan.machine)
