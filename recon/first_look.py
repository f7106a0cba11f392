"""A first look at the scene: coarse depth of a few photos, shown while the whole is still being made.

Input: placed photos. Output: a small ``Scene``, seconds after the cameras are known. Does not: shape the result in any way.
"""

from __future__ import annotations

import logging

import torch

from . import lens
from .cameras.scoring import evenly_spread
from .depth_range import choose_depth_range
from .errors import UserError
from .fuse import FuseConfig, fuse
from .neighbours import choose_neighbours
from .posed import PosedViews
from .progress import Cancelled, Progress
from .records import Scene
from .run_records import Capture, Tools

logger = logging.getLogger(__name__)

LONG_SIDE = 320
"""Longest side of a photo here, pixels."""
SEEDS, PARTNERS, MATCHING_VIEWS = 5, 1, 3
"""Photos spread over the capture, partners that join each, and neighbours each of all these is matched with."""
BUDGET = 20_000
"""Gaussians of a first look."""
NETWORK = "mini"
"""The built-in network: it is always there, and the quickest."""


def worth_a_look(long_side: int) -> bool:
    """Whether a first look comes much sooner than the scene itself, whose photos have this longest side."""
    return long_side >= 1.5 * LONG_SIDE


def first_look(capture: Capture, tools: Tools, device: str, progress: Progress) -> Scene | None:
    """Make a coarse scene from a few photos; None when that does not work, which nobody needs to know.

    Args:
        capture: held-out photos take no part, as in the scene itself.
        progress: asked whether to stop; raises ``Cancelled``.
    """
    quiet = progress.silent()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # the result is the same whether somebody watches or not
            posed = few_views(capture)
            predictor, head = tools.load_predictor(NETWORK, device=device, weights=None), tools.load_splat_head(device=device)
            neighbours = choose_neighbours(posed, count=MATCHING_VIEWS)
            prediction = predictor(posed, neighbours, choose_depth_range(posed), quiet)
            fused = fuse(posed, prediction, head, FuseConfig(max_gaussians=BUDGET, recolor_steps=0), quiet, device=device)
    except Cancelled:
        raise
    except UserError as error:
        logger.info("no first look: %s", error)
        return None
    except Exception:  # a fault of ours, but the scene itself does not depend on it
        logger.warning("no first look", exc_info=True)
        return None
    return Scene(gaussians=fused.gaussians, cameras=posed.cameras)


def few_views(capture: Capture) -> PosedViews:
    """Small pictures of photos spread over the capture, and of those that see most of the same."""
    solved, names = capture.solved, capture.views.names
    used = [names.index(name) for name in capture.inputs.names]
    small = lens.posed_views(capture.views, solved, used, long_side=LONG_SIDE)
    seeds, partners = evenly_spread(list(range(len(used))), SEEDS), choose_neighbours(small, count=PARTNERS)
    chosen = set(seeds).union(*(partners[seed] for seed in seeds))
    return lens.posed_views(capture.views, solved, [used[i] for i in sorted(chosen)], long_side=LONG_SIDE)
