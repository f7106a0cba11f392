"""Train mini or head where nothing but torch, numpy, numba, safetensors and jaxtyping is installed: a rented GPU machine.

Input: a command line. Output: what the trainer leaves in its folder. Does not: more than wire a rasteriser to the trainers of
``models.training``, which must not import one; `recon train` is the same where all of the product is installed.
Usage: python -m app.bare_training mini --device cuda --colours 10 --out DIR --textures textures.npz --scenes scenes.npz
"""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import resources
from pathlib import Path

from models.mini import MiniNetwork
from models.mini_predictor import MiniPredictor
from models.refiner import LearnedUpdater, RefinerConfig, RefinerNetwork
from models.training.head_trainer import HeadTrainConfig, train_head
from models.training.plan import plan_head, plan_stretch
from models.training.refiner_trainer import RefinerTrainConfig
from models.training.stretch import begin_with, go_last, stretch_parser
from models.training.trainer import TrainConfig, train
from recon.errors import UserError
from render.rasterizer import load_rasterizer

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and train, or say why not."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(argv)
    except (UserError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def run(argv: list[str] | None) -> None:
    """Train, or foretell what a stretch will see."""
    words = list(sys.argv[1:] if argv is None else argv)
    chooser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=len(words) < 2
    )
    chooser.add_argument("model", choices=("mini", "head"))
    model = chooser.parse_args(words[:1]).model
    parser = stretch_parser(__doc__, TrainConfig if model == "mini" else HeadTrainConfig)
    parser.add_argument("--scenes", type=Path, default=None, help="pack of real scenes to judge by")
    parser.add_argument("--plan", action="store_true", help="foretell what the stretch will see, and train nothing")
    if model == "mini":
        parser.add_argument("--captures", type=int, default=TrainConfig.captures, help="worlds of a step")
        parser.add_argument("--normals", type=float, default=TrainConfig.normals, help="weight of the loss on surface normals")
        parser.add_argument(
            "--colours", type=float, default=TrainConfig.colours, help="weight of the loss on colours drawn from depth"
        )
    else:
        parser.add_argument(
            "--count", type=float, default=HeadTrainConfig.count, help="weight of the loss on where Gaussians are worth having"
        )
    given = vars(parser.parse_args(words[1:]))
    planned, device = given.pop("plan"), given["device"]
    go_last(device)
    if model == "mini":
        config = TrainConfig(**given)
        rasterizer = load_rasterizer(device) if config.colours > 0 else None
        done = plan_stretch(config, rasterizer) if planned else train(config, rasterizer)
    else:
        # as they are shipped; models.registry wants more than a bare machine has
        network = MiniNetwork()
        refiner = RefinerNetwork(RefinerConfig(rounds=RefinerTrainConfig.rounds[1], context=RefinerTrainConfig.context))
        for name, empty in (("mini", network), ("refiner", refiner)):
            begin_with(Path(str(resources.files("weights") / f"{name}.safetensors")), empty)
        tools = load_rasterizer(device), MiniPredictor(network, device), LearnedUpdater(refiner, device)
        done = plan_head(HeadTrainConfig(**given), *tools) if planned else train_head(HeadTrainConfig(**given), *tools)
    log.info("%s", done)


if __name__ == "__main__":
    raise SystemExit(main())
