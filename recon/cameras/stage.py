"""The stage "cameras": found, asked of a network or loaded, as the run's choices say; upright, and at the scale the user knows.

Input: ``Views``, ``PipelineConfig`` and the run's tools. Output: ``SfmResult``, and what to report in the ``Ledger``.
Does not: solve anything itself.
"""

from __future__ import annotations

from pathlib import Path

from .. import upright
from ..capture.known import KnownDistance, apply_distance
from ..config import PipelineConfig
from ..progress import Progress
from ..records import Views
from ..run_records import Ledger, Tools
from . import camera_files
from .auto import ADJUSTED, CameraCandidate, cameras_of
from .auto import find_cameras as search
from .predicted import cameras_by_network
from .recipes import LADDER, QUICK, Recipe, with_matches_of
from .result import SfmResult


def find_cameras(views: Views, config: PipelineConfig, tools: Tools, device: str, ledger: Ledger, progress: Progress) -> SfmResult:
    """Structure from motion or a network, turned upright, or the user's cameras, kept exactly; at the scale the user knows."""
    solved = search_cameras(views, config, tools, device, ledger, progress)
    if config.capture.scale_from is None:
        return solved
    known = KnownDistance.parse(config.capture.scale_from)
    solved, factor = apply_distance(solved, known, views.names)
    ledger.choices["scale"] = {"from": [known.first, known.second], "metres": known.metres, "metres_per_unit_before": factor}
    return solved


def search_cameras(
    views: Views, config: PipelineConfig, tools: Tools, device: str, ledger: Ledger, progress: Progress
) -> SfmResult:
    """Find or load cameras, at the scale they come with."""
    if config.cameras in ("auto", "sfm"):
        auto = config.cameras == "auto"
        others = network_candidates(config, tools, device) if auto else ()
        ladder = full_ladder(config, tools, device) if auto else QUICK
        solved = search(views, progress=progress, seed=config.seed, ladder=ladder, others=others)
        chosen = next(one["tried"] for one in solved.attempts if one.get("chosen"))
        source = "network" if chosen.removesuffix(ADJUSTED) in [one.name for one in others] else "sfm"
        ledger.choices["cameras"] = {"source": source, "chosen": chosen, "attempts": list(solved.attempts)}
        ledger.warnings += solved.warnings
        return upright.turn(solved, upright.upright_rotation(solved.cameras))
    if config.cameras in tools.camera_models:
        network = tools.load_camera_predictor(config.cameras, device=device, weights=config.camera_network)
        named = CameraCandidate(
            name=network.name, find=lambda photos, told: cameras_by_network(photos, network.predict_views, told)
        )
        own = network.makes_gaussians and config.takes_own_gaussians
        solved = cameras_of(named, views, progress=progress, seed=config.seed, adjust=config.adjust_cameras and not own)
        told = {"source": "network", "network": network.name, "points": len(solved.points_world)}
        ledger.choices["cameras"] = {**told, "attempts": list(solved.attempts)}
        ledger.warnings += solved.warnings
        return upright.turn(solved, upright.upright_rotation(solved.cameras))
    progress.update("cameras", 0.0, "reading cameras")
    ledger.choices["cameras"] = {"source": str(config.cameras)}
    return camera_files.load_cameras(Path(config.cameras), views)


def full_ladder(config: PipelineConfig, tools: Tools, device: str) -> tuple[Recipe, ...]:
    """Every way of finding cameras by matches, those of a matching network among them where there is one."""
    matcher = tools.load_matcher(device=device, weights=config.matcher) if tools.load_matcher is not None else None
    return LADDER if matcher is None else with_matches_of(matcher)


def network_candidates(config: PipelineConfig, tools: Tools, device: str) -> tuple[CameraCandidate, ...]:
    """The best network on this machine, asked when structure from motion gives no strong evidence."""

    def ask(views: Views, progress: Progress) -> SfmResult:
        network = tools.load_camera_predictor("network", device=device, weights=config.camera_network)
        return cameras_by_network(views, network.predict_views, progress)

    return (CameraCandidate(name="network", find=ask),) if "network" in tools.camera_models else ()
