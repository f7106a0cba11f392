"""A run's report as one page that opens anywhere.

Input: the dictionary of report.json, cameras, pictures of errors. Output: HTML text with charts as inline SVG and pictures as
data URIs. Does not: ask anything of the network, or run scripts.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..posed import PosedViews
from ..records import Cameras, Gaussians, Rasterizer
from .charts import bars, cameras_from_above, curve
from .html_capture import capture_sections

THUMB_SIDE = 240
"""Longest side of an error map in pixels."""
ERROR_FULL = 0.25
"""Mean absolute colour error drawn at the hot end."""
MOST_MAPS = 24
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#1d2733;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #d7dee6;padding-bottom:.2rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #eceff3}
td:first-child,th:first-child{text-align:left}.maps{display:flex;flex-wrap:wrap;gap:12px}
figure{margin:0}figcaption{font-size:12px;color:#5a6877}
.warn{background:#fff6df;border-left:4px solid #e0a100;
padding:.5rem .8rem;margin:.4rem 0}
svg{max-width:100%;height:auto}code{background:#f2f4f7;padding:0 .25rem}
@media (prefers-color-scheme:dark){body{background:#14181d;color:#dbe2ea}td,th{border-color:#2a323b}
.warn{background:#332a10}code{background:#222a33}}
"""
REMEDIES = (
    ("could not be placed", "Take more photos between these and the others; overlap by two thirds."),
    ("was skipped", "Convert the file to JPEG, or leave it out."),
    ("No other photo overlaps", "Take photos that see the same place from another position."),
    ("polishing was undone", "Give it more seconds or more photos; the scene before polishing was kept."),
    ("stopped", "Run it again with the seconds it needs."),
)
"""Words of a warning -> what would help."""


@dataclass(frozen=True, kw_only=True)
class ErrorMap:
    """Where one photo and its rendering differ."""

    name: str
    psnr: float
    png: bytes
    """Photo, rendering and error side by side."""


def heat(error: np.ndarray) -> np.ndarray:
    """Error in [0, ERROR_FULL] as uint8 colours from black over red and yellow to white."""
    t = np.clip(error / ERROR_FULL, 0, 1)[..., None]
    return (np.clip(np.concatenate([3 * t, 3 * t - 1, 3 * t - 2], axis=-1), 0, 1) * 255).astype(np.uint8)


def error_maps(gaussians: Gaussians, posed: PosedViews, rasterizer: Rasterizer, *, most: int = MOST_MAPS) -> list[ErrorMap]:
    """Draw photos beside the scene, evenly spread when there are more than ``most``."""
    maps = []
    for i in np.unique(np.linspace(0, len(posed) - 1, min(most, len(posed))).round().astype(int)) if len(posed) else []:
        image, valid = posed.pixels(int(i))
        with torch.no_grad():
            drawn = rasterizer(gaussians, posed.cameras.select([int(i)]).to(gaussians.means.device)).color[0].cpu().clamp(0, 1)
        squared = ((drawn - image) ** 2)[valid].double().mean().item()
        factor = max(1, math.ceil(max(image.shape[:2]) / THUMB_SIDE))
        small = [_shrink(x * valid[..., None], factor) for x in (image, drawn, (drawn - image).abs())]
        sheet = np.concatenate([*((s * 255).astype(np.uint8) for s in small[:2]), heat(small[2].mean(-1))], axis=1)
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "PNG")
        maps.append(ErrorMap(name=posed.names[int(i)], psnr=-10 * math.log10(max(squared, 1e-10)), png=buffer.getvalue()))
    return maps


def _shrink(image: torch.Tensor, factor: int) -> np.ndarray:
    return torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], factor, ceil_mode=True)[0].permute(1, 2, 0).numpy()


def build_html(report: Mapping, cameras: Cameras | None, maps: Sequence[ErrorMap], *, title: str = "Reconstruction") -> str:
    """Compose the page.

    Args:
        report: as written to report.json.
        cameras: drawn from above; None leaves that out.
        maps: pictures of errors, best of held-out photos.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", _summary(report), _warnings(report), _quality(report), _polish(report)]
    if maps:
        parts.append("<h2>Where photos and scene differ</h2><p>Photo, rendering, error (white is 0.25 and more).</p>" + _maps(maps))
    if cameras is not None and len(cameras):
        parts.append("<h2>Cameras from above</h2>" + cameras_from_above(cameras))
    seconds = report.get("seconds") or {}
    if seconds:
        cached = report.get("cached_s") or {}
        rows = [(k, float(v), f"{float(v):.1f} s") for k, v in seconds.items()]
        rows += [(k, 0.0, f"from the cache; took {float(v):.1f} s when it was made") for k, v in cached.items()]
        parts.append("<h2>Time</h2>" + bars(rows))
    parts += [_memory(report), *capture_sections(report)]
    body = "\n".join(part for part in parts if part)
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
    return f"<!doctype html><html lang='en'><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>"


def _row(cells: Sequence[object], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"


def _summary(report: Mapping) -> str:
    rows = [_row([key.replace("_", " "), f"{value:,}"]) for key, value in (report.get("counts") or {}).items()]
    rows += [
        _row([f"version of {key}", value]) for key, value in (report.get("versions") or {}).items() if key in ("python", "torch")
    ]
    return "<h2>What was made</h2><table>" + "".join(rows) + "</table>" if rows else ""


def _warnings(report: Mapping) -> str:
    shown = []
    for warning in report.get("warnings") or []:
        remedy = next((words for key, words in REMEDIES if key in warning), "")
        what = f"<br><b>What helps:</b> {html.escape(remedy)}" if remedy else ""
        shown.append(f"<div class='warn'>{html.escape(warning)}{what}</div>")
    return "<h2>Warnings</h2>" + "".join(shown) if shown else ""


def _quality(report: Mapping) -> str:
    stages = [("before polish", report.get("quality_before_polish")), ("end", report.get("quality"))]
    known = [(name, q) for name, q in stages if q and q.get("n_scored")]
    if not known:
        return "<h2>Quality</h2><p>No photo was held out; <code>--holdout 8</code> scores every eighth.</p>"
    rows = [_row(["stage", "PSNR dB", "SSIM", "coverage", "photos"], "th")]
    rows += [
        _row([n, f"{q['psnr_mean']:.2f}", f"{q['ssim_mean']:.3f}", f"{q.get('coverage', 0):.0%}", q["n_scored"]]) for n, q in known
    ]
    per_view = [(v["name"], float(v["psnr"]), f"{v['psnr']:.1f} dB") for v in known[-1][1].get("per_view", [])]
    return "<h2>Quality on held-out photos</h2><table>" + "".join(rows) + "</table>" + bars(per_view)


def _polish(report: Mapping) -> str:
    entry = (report.get("choices") or {}).get("polish") or report.get("polish")
    if not isinstance(entry, Mapping):
        return ""
    rows = [_row(["stage", "guard photos before", "after", "decision"], "th")]
    for verdict in entry.get("guard", []):
        decision = "kept" if verdict["kept"] else "undone"
        rows.append(_row([verdict["stage"], f"{verdict['psnr_before']:.2f} dB", f"{verdict['psnr_after']:.2f} dB", decision]))
    notes = "".join(f"<p>{html.escape(v['note'])}</p>" for v in entry.get("guard", []))
    history = entry.get("history") or []
    charts = ""
    if len(history) > 1:
        seconds = [h["seconds"] for h in history]
        charts = curve(seconds, [h["train_psnr"] for h in history], "seconds", "PSNR of photos used, dB")
        charts += curve(seconds, [h["gaussians"] for h in history], "seconds", "Gaussians")
    return "<h2>Polish</h2><table>" + "".join(rows) + "</table>" + notes + charts


def _maps(maps: Sequence[ErrorMap]) -> str:
    figures = []
    for m in maps:
        data = base64.b64encode(m.png).decode()
        caption = f"{html.escape(m.name)}, {m.psnr:.1f} dB"
        figures.append(
            f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'><figcaption>{caption}</figcaption></figure>"
        )
    return "<div class='maps'>" + "".join(figures) + "</div>"


def _memory(report: Mapping) -> str:
    memory = report.get("peak_memory_bytes")
    if not memory:
        return ""
    return "<h2>Peak memory</h2>" + bars([(k.replace("_", " "), v / 1e9, f"{v / 1e9:.2f} GB") for k, v in memory.items()])
