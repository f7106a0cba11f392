"""The refiner: untrained it matches colours, it treats all Gaussians alike, it learns, and the shipped one makes scenes better."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from models.head import HeadNetwork, LearnedSplatHead
from models.refiner import LearnedUpdater, RefinerConfig, RefinerNetwork, near_mean
from models.registry import load_predictor, load_splat_head, load_updater, shipped_weights
from models.training import refiner_trainer
from models.training.plan import plan_refiner
from models.training.refiner_trainer import RefinerTrainConfig, make_lesson, psnr_of, train_refiner
from models.training.worlds import Worlds
from recon.errors import UserError
from recon.fusing.recolor import recolor
from recon.progress import Progress
from recon.records import Gaussians
from recon.refining import Feedback, gather_feedback, pixel_spacing, refine, with_degree
from render.rasterizer import load_rasterizer


def worlds_of(seed: int) -> Worlds:
    return Worlds(None, seed)


def small_lesson(monkeypatch, seed: int = 3):
    monkeypatch.setattr(refiner_trainer, "SIZES", ((96, 128),))
    monkeypatch.setattr(refiner_trainer, "INPUT_VIEWS", (4, 4))
    made = None
    worlds = worlds_of(seed)
    while made is None:
        made = make_lesson(worlds, None, LearnedSplatHead(HeadNetwork()))
    return made


def random_feedback(count: int, seed: int = 0) -> tuple[Gaussians, torch.Tensor, Feedback]:
    g = torch.Generator().manual_seed(seed)
    gaussians = Gaussians(
        means=torch.randn(count, 3, generator=g),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=0.01 + 0.05 * torch.rand(count, 3, generator=g),
        opacities=0.1 + 0.8 * torch.rand(count, generator=g),
        sh=0.3 * torch.randn(count, 1, 3, generator=g),
    )
    slope = 0.05 * torch.randn(count, 22, generator=g)
    slope[:, 13:] = 0
    feedback = Feedback(
        slope=slope,
        scatter=slope.abs() * (1 + torch.rand(count, 22, generator=g)),
        weight=20 * torch.rand(count, generator=g),
        seen=torch.randint(1, 5, (count,), generator=g).float(),
        photos=5,
        error=0.01,
    )
    return gaussians, 0.01 + 0.02 * torch.rand(count, generator=g), feedback


def random_network(seed: int = 0) -> RefinerNetwork:
    torch.manual_seed(seed)
    network = RefinerNetwork(RefinerConfig(context=8))
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    network.typical.fill_(0.05)
    return network.eval()


def picked(feedback: Feedback, order: torch.Tensor) -> Feedback:
    names = ("slope", "scatter", "weight", "seen")
    return replace(feedback, **{name: getattr(feedback, name)[order] for name in names})


def test_untrained_it_matches_colours(monkeypatch):
    """One round is one pass of colour matching, but for Gaussians that are hardly seen and the small part of structure."""
    lesson = small_lesson(monkeypatch)
    rasterizer = load_rasterizer("cpu")
    monkeypatch.setattr("recon.refining.ERROR", replace(refiner_trainer_error(), ssim_share=0.0, square_scale=0.5))
    updater = load_updater(random_seed=0)
    assert updater is not None
    refined, errors = refine(lesson.gaussians, lesson.targets, rasterizer, updater, rounds=1, progress=Progress())
    matched = recolor(lesson.gaussians, lesson.inputs, rasterizer, steps=1, progress=Progress())
    feedback = gather_feedback(lesson.gaussians, lesson.targets, rasterizer)
    clear = (feedback.weight > 40) & (feedback.slope[:, 10:13].abs().amax(1) < 0.06)  # larger steps are held back
    assert int(clear.sum()) > 100
    assert float((refined.sh - matched.sh)[clear].abs().max()) < 0.05 * float((matched.sh - lesson.gaussians.sh)[clear].abs().max())
    for name in ("means", "scales", "opacities"):
        assert torch.allclose(getattr(refined, name), getattr(lesson.gaussians, name), atol=1e-4), name
    assert len(errors) == 1


def refiner_trainer_error():
    from recon import refining

    return refining.ERROR


def test_the_order_of_gaussians_does_not_matter():
    gaussians, spacing, feedback = random_feedback(300)
    network, order = random_network(), torch.randperm(300, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        update, state = network(gaussians, spacing, feedback, None)
        again, moved = network(gaussians.select(order), spacing[order], picked(feedback, order), None)
    assert float(update.abs().max()) > 0.01
    assert torch.allclose(update[order], again, atol=1e-5)
    assert torch.allclose(state[order], moved, atol=1e-5)


def test_the_scale_of_the_world_does_not_matter():
    """Twice as large and as far away: the same updates; cells double with the world, and so does what neighbours share."""
    gaussians, spacing, feedback = random_feedback(300)
    network = random_network()
    large = replace(gaussians, means=2 * gaussians.means, scales=2 * gaussians.scales)
    with torch.no_grad():
        small, _ = network(gaussians, spacing, feedback, None)
        same, _ = network(large, 2 * spacing, feedback, None)
    assert torch.allclose(small, same, atol=1e-5)


def test_what_photos_do_not_see_stays():
    gaussians, spacing, feedback = random_feedback(50)
    blank = replace(feedback, slope=torch.zeros(50, 22), scatter=torch.zeros(50, 22), weight=torch.zeros(50), seen=torch.zeros(50))
    changed, _ = LearnedUpdater(random_network())(gaussians, spacing, blank, None)
    assert torch.allclose(changed.means, gaussians.means)
    assert torch.allclose(changed.sh, gaussians.sh)


def test_neighbours_share_their_weighted_mean():
    generator = torch.Generator().manual_seed(0)
    means, values = 3 * torch.rand(200, 3, generator=generator), torch.randn(200, 2, generator=generator)
    weight, spacing = torch.rand(200, generator=generator), torch.full((200,), 1 / 24)
    shared = near_mean(values, means, spacing, weight)
    cells = torch.floor(means).long()
    for i in range(0, 200, 17):
        here = (cells == cells[i]).all(1)
        share = (weight + 0.1)[here][:, None]
        assert torch.allclose(shared[i], (values[here] * share).sum(0) / share.sum(), atol=1e-5)


@pytest.mark.parametrize("sheen", [False, True])
def test_a_few_steps_on_one_scene_teach_it_that_scene(monkeypatch, sheen):
    """Its held-out views get better than colour matching makes them, which it starts as."""
    torch.manual_seed(0)
    lesson, rasterizer = small_lesson(monkeypatch), load_rasterizer("cpu")
    if sheen:
        lesson = replace(lesson, gaussians=with_degree(lesson.gaussians, 1))
    monkeypatch.setattr(refiner_trainer, "SHEEN", 0.0)
    network = RefinerNetwork(RefinerConfig(rounds=3))
    network.typical.copy_(refiner_trainer.measure_typical([lesson], rasterizer))
    average = RefinerNetwork(RefinerConfig(rounds=3))
    average.load_state_dict(network.state_dict())
    optimizer, rng = torch.optim.AdamW(network.parameters(), lr=3e-3), np.random.default_rng(0)

    def refined() -> float:
        done, _ = refine(lesson.gaussians, lesson.targets, rasterizer, LearnedUpdater(network), rounds=3, progress=Progress())
        network.train()
        return psnr_of(done, lesson, rasterizer)

    before = refined()
    for step in range(15):
        refiner_trainer.take_step(
            lesson, average, optimizer, step, 0.0, network=network, rasterizer=rasterizer, rounds=(3, 3), rng=rng
        )
    assert refined() > before + 0.1


def test_training_runs_resumes_and_its_weights_load(monkeypatch, tmp_path):
    monkeypatch.setattr(refiner_trainer, "SIZES", ((48, 64),))
    monkeypatch.setattr(refiner_trainer, "POOL", 4)
    config = RefinerTrainConfig(out=tmp_path, minutes=30, validation_worlds=1, max_steps=2, rounds=(2, 2), context=4)
    tools = (load_rasterizer("cpu"), None, LearnedSplatHead(HeadNetwork()))
    path = train_refiner(config, *tools)
    assert path == tmp_path / "refiner.safetensors"
    assert '"step": 2' in (tmp_path / "log.jsonl").read_text()
    train_refiner(replace(config, max_steps=3), *tools)
    assert '"step": 3' in (tmp_path / "log.jsonl").read_text()
    updater = load_updater(weights=path)
    assert updater is not None
    assert updater.rounds == 2
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no weights")
    with pytest.raises(UserError, match="Cannot read weights"):
        load_updater(weights=other)


def test_a_plan_foretells_its_steps(monkeypatch, tmp_path):
    """Twice the minutes hold about twice the steps; nothing is written."""
    monkeypatch.setattr(refiner_trainer, "SIZES", ((48, 64),))
    monkeypatch.setattr(refiner_trainer, "POOL", 4)
    config = RefinerTrainConfig(out=tmp_path / "none", minutes=5, rounds=(2, 2), context=4, validation_worlds=1)
    plan = plan_refiner(config, load_rasterizer("cpu"), None, LearnedSplatHead(HeadNetwork()), steps=2)
    assert plan.steps == pytest.approx((300 - plan.validations) / plan.step_s, rel=0.2)
    assert plan.photos >= plan.steps * (4 + refiner_trainer.TARGET_VIEWS)
    assert not config.out.exists()


@pytest.mark.skipif("refiner" not in shipped_weights(), reason="no refiner is shipped")
def test_the_shipped_refiner_makes_views_it_has_not_seen_better():
    """Worlds of generated textures alone, none of which it was trained on: better than colour matching on most and on average."""
    rasterizer, updater = load_rasterizer("cpu"), load_updater()
    assert updater is not None
    worlds, gains = worlds_of(31), []
    make = partial(make_lesson, worlds, load_predictor("mini"), load_splat_head())
    while len(gains) < 4:
        lesson = make()
        if lesson is None:
            continue
        matched = recolor(lesson.gaussians, lesson.inputs, rasterizer, steps=4, progress=Progress())
        done, errors = refine(lesson.gaussians, lesson.targets, rasterizer, updater, rounds=updater.rounds, progress=Progress())
        gains.append(psnr_of(done, lesson, rasterizer) - psnr_of(matched, lesson, rasterizer))
        assert errors[-1] < errors[0]
        assert len(done) == len(lesson.gaussians)
    assert np.mean(gains) > 0.2
    assert sum(gain > 0 for gain in gains) >= 3


def test_spacing_is_that_of_the_nearest_camera(monkeypatch):
    lesson = small_lesson(monkeypatch)
    spacing = pixel_spacing(lesson.gaussians, lesson.targets)
    cameras = lesson.inputs.cameras
    distances = (lesson.gaussians.means[:, None] - cameras.centers_world[None].float()).norm(dim=2)
    expected = (distances / cameras.K[:, 0, 0].float()).min(dim=1).values
    assert torch.allclose(spacing, expected, rtol=1e-4)
