"""What can be said about a splat file: its part of `recon info`.

Input: a file and the Gaussians read from it. Output: plain values.
Does not: load or print.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recon.formats.attribute_bytes import attribute_bytes
from recon.formats.registry import finite_mask, sniff_format
from recon.ply import extra_columns
from recon.records import Gaussians


def file_facts(path: Path, gaussians: Gaussians) -> dict[str, Any]:
    """What a splat file holds: format, bounds, values that are not finite, columns left out, bytes per attribute."""
    found = sniff_format(path)
    finite = finite_mask(gaussians)
    kept = gaussians.select(finite)
    facts: dict[str, Any] = {
        "format": found.name,
        "bytes_per_gaussian": round(path.stat().st_size / max(len(gaussians), 1), 2),
        "not_finite": int((~finite).sum()),
        "extra_columns": extra_columns(path) if found.name == "ply" else [],
        "bytes_per_attribute": attribute_bytes(path, found.name),
    }
    if len(kept):
        lower, upper = kept.means.min(dim=0).values, kept.means.max(dim=0).values
        facts["bounds_world"] = [[round(float(a), 4), round(float(b), 4)] for a, b in zip(lower, upper, strict=True)]
        facts["largest_scale_world"] = round(float(kept.scales.max()), 6)
    return facts
