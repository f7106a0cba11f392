"""recon: photos in, 3D Gaussians out.

The facade of the project and the one file that may reach into other rooms: ``reconstruct``, ``load_predictor`` and
``load_rasterizer`` are looked up lazily (PEP 562), so that ``import recon`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["load_predictor", "load_rasterizer", "reconstruct"]

_DOORS = {
    "reconstruct": ("app.run", "reconstruct"),
    "load_predictor": ("models.registry", "load_predictor"),
    "load_rasterizer": ("render.rasterizer", "load_rasterizer"),
}


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'recon' has no attribute {name!r}")
    module, attribute = _DOORS[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_DOORS])
