"""What a run reports about itself.

Input: everything a run made and timed. Output: a plain dictionary, ready for report.json.
Does not: write it.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fuse import Fused
from ..resume.out_format import FORMAT
from .score import ViewScore, summarize

if TYPE_CHECKING:
    from ..config import PipelineConfig
    from ..run_records import Capture, Ledger

REPORTED_PACKAGES = ("recon-splats", "torch", "numpy", "numba", "pycolmap", "opencv-python-headless", "gsplat")


def peak_memory_bytes() -> dict[str, int] | None:
    """Largest resident size of this process and of its finished children; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"process": own, "largest_child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """Make a config value fit JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def build_report(
    capture: Capture,
    fused: Fused,
    scores: Sequence[ViewScore],
    skipped: Sequence[tuple[str, str]],
    config: PipelineConfig,
    ledger: Ledger,
    device: str,
) -> dict:
    """Collect counts, choices, timings, versions, warnings and quality."""
    registered = capture.solved.cameras.registered_mask.tolist()
    names = capture.views.names
    exif = {view.name: dict(view.exif) for view in capture.views if view.exif}
    return {
        "format": FORMAT,
        "config": plain(asdict(config)),
        "device": device,
        "seed": config.seed,
        "versions": versions(),
        "counts": {
            "photos": len(names),
            "skipped": len(skipped),
            "registered": sum(registered),
            "used": len(capture.inputs),
            "held_out": sum(view.holdout for view in capture.views),
            "sparse_points": len(capture.solved.points_world),
            "gaussians": len(fused.gaussians),
            "shell_gaussians": fused.shell_count,
        },
        "photos": {
            "unregistered": [name for name, ok in zip(names, registered, strict=True) if not ok],
            "skipped": [{"name": name, "reason": reason} for name, reason in skipped],
            "exif": exif,
        },
        "cameras": {"reprojection_error_px": capture.solved.reprojection_error_px},
        "choices": ledger.choices,
        "seconds": dict(ledger.seconds),
        "cached_s": dict(ledger.cached_s),
        "peak_memory_bytes": peak_memory_bytes(),
        "warnings": list(ledger.warnings),
        "quality": summarize(scores),
    }
