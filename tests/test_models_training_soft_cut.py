"""The cut that can be learnt: what it is in the limit, its budget, its gradient, and that following it gives better scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from app import bare_training
from app import train as command
from app.cli import main
from models.head import HeadNetwork
from models.registry import load_updater
from models.training import head_trainer, soft_cut
from models.training.described import Described, cut_capture, cut_capture_softly, describe_capture, settle
from models.training.head_trainer import HeadTrainConfig, Lesson, draw, head_maker, head_step, make_lesson, train_head
from models.training.losses import color_loss
from models.training.soft_cut import Tree, find_threshold, grow_tree, leaf_shares, thin
from recon.fuse import FuseConfig
from recon.fusing.leaves import SIZES, build_pyramid, choose_blocks, price_for_budget
from recon.records import Gaussians
from render.rasterizer import load_rasterizer

HEIGHT, WIDTH = 60, 88
"""Not whole numbers of the largest block."""
SEED = 2
"""A world whose photos share most of what they see."""


def picture(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Photo, depth, drawn pixels and importance; detail of every size, and holes."""
    rng = torch.Generator().manual_seed(seed)
    coarse = [torch.rand(1, 5, HEIGHT // n, WIDTH // n, generator=rng) for n in (1, 4, 12, 30)]
    sized = [torch.nn.functional.interpolate(maps, (HEIGHT, WIDTH), mode="bilinear") for maps in coarse]
    maps = torch.cat(sized).sum(0).double()
    drawn = maps[3] > 1.6
    return maps[:3].permute(1, 2, 0) / 4, 2 + maps[4], drawn, torch.exp(torch.tanh(2 * (maps[4] - 2)))


def tree_of(importance: Tensor, seed: int = 0, finest: int = 1) -> Tree:
    image, depth, drawn, _ = picture(seed)
    return grow_tree(build_pyramid(image, depth, drawn, finest=finest), importance, drawn)


@pytest.mark.parametrize("budget", [60, 200, 1000])
def test_a_narrow_threshold_cuts_as_fusing_does(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_cut, "WIDTH", 1e-7)
    trees, pyramids = [], []
    for seed, finest in ((0, 1), (1, 4)):
        image, depth, drawn, importance = picture(seed)
        trees.append(tree_of(importance, seed, finest))
        pyramids.append(build_pyramid(image, depth, drawn, finest=finest, boost=importance))
    price, threshold = price_for_budget(pyramids, budget), find_threshold(trees, budget)
    for tree, pyramid in zip(trees, pyramids, strict=True):
        chosen = choose_blocks(pyramid, price)
        soft = leaf_shares(tree, threshold)
        differ = sum(int((mask != (share > 0.5)).sum()) for mask, share in zip(chosen, soft, strict=True))
        assert differ <= 5, "the last cut that does not quite fit the budget, and its children"


@pytest.mark.parametrize("budget", [60.0, 200.0, 1000.0])
def test_as_many_leaves_are_expected_as_the_budget_allows(budget: float) -> None:
    tree = tree_of(picture()[3])
    shares = leaf_shares(tree, find_threshold([tree], budget))
    assert all(float(share.min()) >= 0 for share in shares)
    assert float(sum(share.sum() for share in shares)) == pytest.approx(budget, abs=1e-3)
    over_pixel = torch.zeros(-(-HEIGHT // 16) * 16, -(-WIDTH // 16) * 16)
    for share, side in zip(shares, SIZES, strict=True):
        over_pixel += share.repeat_interleave(side, 0).repeat_interleave(side, 1)
    assert torch.allclose(over_pixel[:HEIGHT, :WIDTH][picture()[2]], torch.ones(()), atol=1e-5)


def test_a_budget_beyond_reach_has_no_gradient() -> None:
    importance = picture()[3].requires_grad_()
    tree = tree_of(importance)
    few, many = (find_threshold([tree], budget) for budget in (3, 10**6))
    assert float(few) == torch.inf
    assert not few.requires_grad
    assert not many.requires_grad
    for threshold, level in ((few, 0), (many, -1)):
        shares = leaf_shares(tree, threshold)
        assert float(shares[level].detach().sum()) == float(tree.filled[level].sum())


@pytest.mark.parametrize("budget", [80.0, 400.0])
def test_the_gradient_is_that_of_finite_differences_with_the_budget_held(budget: float) -> None:
    """Any loss of the leaves: the threshold moves with the importance, and the gradient knows."""
    rng = torch.Generator().manual_seed(3)
    worth: list[Tensor] = []

    def loss(log_importance: Tensor) -> Tensor:
        importance = torch.nn.functional.interpolate(log_importance[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0].exp()
        tree = tree_of(importance)
        shares = leaf_shares(tree, find_threshold([tree], budget))
        worth.extend(torch.rand(share.shape, generator=rng).double() for share in shares[len(worth) :])
        return torch.stack([(share * value).sum() for share, value in zip(shares, worth, strict=True)]).sum()

    given = (0.3 * torch.randn(4, 5, generator=rng)).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (given,), eps=1e-6, atol=1e-4, rtol=1e-3)
    (gradient,) = torch.autograd.grad(loss(given), given)
    assert float(gradient.abs().max()) > 0.1
    assert abs(float(gradient.sum())) < 1e-6, "more importance everywhere is no importance"


def test_what_is_cut_in_part_hides_as_much_as_one() -> None:
    one = Gaussians(
        means=torch.zeros(5, 3), quats=torch.eye(4)[:1].expand(5, 4), scales=torch.ones(5, 3),
        opacities=torch.tensor([1e-4, 0.2, 0.7, 0.98, 0.9995]), sh=torch.zeros(5, 1, 3),
    )  # fmt: skip
    share = torch.tensor([0.3, 0.0, 1.0, 0.5, 0.01])
    through = (1 - thin(one, share).opacities) * (1 - thin(one, 1 - share).opacities)
    assert torch.allclose(1 - through, one.opacities, atol=1e-6)


def lesson_of(size: tuple[int, int] = (64, 80)) -> Lesson:
    capture = head_maker(HeadTrainConfig(out=Path(), size=size), None, SEED, 0)()
    return make_lesson(capture, None, np.random.default_rng(1), "noise")


def marked(described: Described, log_importance: Tensor) -> Described:
    """The same with other importance: a grid for each view."""
    size = described.attributes[0].importance.shape
    maps = torch.nn.functional.interpolate(log_importance[:, None], size, mode="bilinear")[:, 0].exp()
    return replace(described, attributes=[replace(a, importance=m) for a, m in zip(described.attributes, maps, strict=True)])


BUDGET = FuseConfig(shell=100, recolor_steps=0, max_gaussians=500)


def test_the_gradient_of_a_drawn_loss_is_that_of_finite_differences() -> None:
    lesson, rasterizer = lesson_of(), load_rasterizer("cpu")
    described = describe_capture(lesson.inputs, lesson.prediction, HeadNetwork(), BUDGET)

    def loss(log_importance: Tensor) -> Tensor:
        gaussians = cut_capture_softly(marked(described, log_importance), BUDGET)
        assert gaussians is not None
        drawn, photos = draw(gaussians, lesson, [4, 5], rasterizer, "cpu")
        return ((drawn - photos).double() ** 2).sum()

    rng = torch.Generator().manual_seed(0)
    given = (0.2 * torch.randn(4, 3, 4, generator=rng)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(given), given)
    step = 0.004
    """Of the logarithm: above what single precision loses, below what brings other blocks to the threshold."""
    for direction in (gradient / gradient.norm(), torch.randn(4, 3, 4, generator=rng)):
        with torch.no_grad():
            found = float(loss(given + step * direction) - loss(given - step * direction)) / (2 * step)
        assert found == pytest.approx(float((gradient * direction).sum()), rel=0.1, abs=0.03 * float(gradient.norm()))


def test_refinement_leaves_the_gradient_of_opacities() -> None:
    lesson, rasterizer, updater = lesson_of(), load_rasterizer("cpu"), load_updater()
    assert updater is not None
    gaussians = cut_capture(describe_capture(lesson.inputs, lesson.prediction, HeadNetwork(), BUDGET), BUDGET)
    assert gaussians is not None
    given = replace(gaussians.detach(), opacities=gaussians.opacities.detach().clamp(0.01, 0.99).requires_grad_())
    settled = settle(given, lesson.inputs, rasterizer, updater, 2)
    assert not settled.means.requires_grad
    (gradient,) = torch.autograd.grad(torch.logit(settled.opacities).sum(), given.opacities)
    inside = (settled.opacities > 0.001) & (settled.opacities < 0.999)
    unit = 1 / (given.opacities * (1 - given.opacities))
    assert torch.allclose(gradient[inside], unit[inside], rtol=0.02)
    for kept, name in ((lesson.inputs, "inputs"), (lesson.everything, "all")):
        cameras, photos = kept.cameras, torch.stack([kept.image(i) for i in range(len(kept))])
        before, after = (float(((rasterizer(g, cameras).color - photos) ** 2).mean()) for g in (given.detach(), settled.detach()))
        assert after < before, name


def test_following_the_gradient_gives_a_better_cut_of_the_same_number() -> None:
    lesson, rasterizer = lesson_of(), load_rasterizer("cpu")
    described = describe_capture(lesson.inputs, lesson.prediction, HeadNetwork(), BUDGET)
    grid = torch.zeros(4, 6, 8, requires_grad=True)
    optimizer = torch.optim.Adam([grid], lr=0.15)
    hard = []
    for step in range(9):
        if step % 8 == 0:
            with torch.no_grad():
                cut = cut_capture(marked(described, grid), BUDGET)
                assert cut is not None
                hard.append((float(color_loss(*draw(cut, lesson, [4, 5], rasterizer, "cpu"))), len(cut)))
        gaussians = cut_capture_softly(marked(described, grid), BUDGET)
        assert gaussians is not None
        loss = color_loss(*draw(gaussians, lesson, [4, 5], rasterizer, "cpu"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (before, few), (after, many) = hard
    assert abs(few - many) <= 3
    assert after < before


def test_a_stretch_teaches_the_cut_where_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worlds(config, textures, seed):
        make = head_maker(config, textures, SEED, 0)
        while True:
            yield make()

    monkeypatch.setattr(head_trainer, "made_worlds", worlds)
    monkeypatch.setattr(head_trainer, "EXAM_BUDGETS", (0.03,))
    config = HeadTrainConfig(out=tmp_path, minutes=5.0, size=(64, 80), validation_worlds=1, max_steps=1, count=30.0)
    path = train_head(config, load_rasterizer("cpu"), None, load_updater())
    assert load_file(path)["leave.bias"][24:].any()
    found = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["validation"]
    assert {"learnt_3.0%", "flat_3.0%"} <= set(found)


def test_a_step_that_does_not_ask_leaves_the_cut_alone() -> None:
    head, capture = HeadNetwork(), head_maker(HeadTrainConfig(out=Path(), size=(64, 80)), None, SEED, 0)()
    average, optimizer = HeadNetwork(), torch.optim.AdamW(head.parameters(), lr=1e-3)
    found = head_step(
        capture, average, optimizer, 0, head=head, rasterizer=load_rasterizer("cpu"), predictor=None, rng=np.random.default_rng(1)
    )
    assert set(found) == {"loss", "gradient_norm"}
    bias = head.state_dict()["leave.bias"]
    assert bias[:24].any()
    assert not bias[24:].any()


def test_the_option_belongs_to_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(command, "train_head", lambda config, *tools: asked.append((config.count, tools[2] is None)) or tmp_path)
    out = ["--out", str(tmp_path)]
    assert main(["train", "head", *out, "--count", "30"]) == 0
    assert main(["train", "head", *out]) == 0
    assert asked == [(30.0, False), (0.0, True)]
    assert main(["train", "head", *out, "--count", "-1"]) == 2
    assert "is no weight" in capsys.readouterr().err
    for model in ("mini", "matcher"):
        assert main(["train", model, *out, "--count", "30"]) == 2
        assert "belongs to 'head'" in capsys.readouterr().err
    monkeypatch.setattr(bare_training, "train_head", lambda config, *tools: asked.append((config.count, len(tools))))
    assert bare_training.main(["head", *out, "--count", "2"]) == 0
    assert asked[-1] == (2.0, 3)
