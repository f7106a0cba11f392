"""Polishing a scene whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import polish_capture as capture
import pytest
import torch

from recon.polishing.cameras import rotate
from recon.polishing.choices import PolishConfig, PolishOptions
from recon.polishing.guard import guard_psnr
from recon.polishing.polish import begin, finish, optimise, random_part, run_until
from recon.polishing.schedule import Clock, ScheduleConfig, factor_at, wanted_count
from recon.polishing.targets import Targets, TilePicker, ViewPicker
from recon.posed import PosedViews
from recon.progress import Progress

FIXED = PolishConfig(options=PolishOptions(refine_cameras=False), schedule=capture.SMALL_STEPS)


@pytest.fixture(scope="module")
def truth():
    cameras = capture.cameras_on_arc(7)
    return capture.true_scene(), capture.posed_photos(capture.photos_of(capture.true_scene(), cameras), cameras)


def start(posed, config=FIXED, seconds=0.8, scene=None, **details):
    scene = scene or capture.worn(capture.true_scene())
    return begin(scene, posed, seconds, config, capture.rasterizer(), timer=capture.CountingTimer(), **details)


def test_a_worn_scene_gets_its_colours_and_places_back(truth):
    _, posed = truth
    job = start(posed, views=[0, 1, 2, 4, 5, 6])
    before = guard_psnr(job.parameters.gaussians(), posed, [3], capture.rasterizer())
    optimise(job, 1.0)
    after = guard_psnr(finish(job).gaussians, posed, [3], capture.rasterizer())
    assert after > before + 1.5, f"{before:.2f} -> {after:.2f} dB on a view it has not seen"


def test_it_grows_within_the_budget_and_not_beyond(truth):
    scene, posed = truth
    few = capture.worn(scene.select(torch.arange(0, 400, 4)))
    job = start(posed, replace(FIXED, max_gaussians=250), scene=few)
    optimise(job, 1.0)
    assert 150 <= len(job.parameters) <= 250
    assert max(h["gaussians"] for h in job.history) <= 250


def test_a_budget_below_the_scene_adds_nothing(truth):
    _, posed = truth
    job = start(posed, replace(FIXED, max_gaussians=10), seconds=0.5)
    optimise(job, 1.0)
    assert len(job.parameters) <= 400


def test_the_far_shell_is_still_known_afterwards(truth):
    _, posed = truth
    job = start(posed, seconds=0.3, far_count=40)
    optimise(job, 1.0)
    assert 0 < finish(job).far_count <= 40


def test_sh_is_raised_late_and_to_the_degree_asked_for(truth):
    _, posed = truth
    job = start(posed, replace(FIXED, options=PolishOptions(refine_cameras=False, polish_sh=2)), seconds=0.6)
    optimise(job, 0.3)
    assert job.parameters.sh_count == 1
    optimise(job, 1.0)
    assert job.parameters.sh_count == 9


def test_known_cameras_stay_exactly(truth):
    _, posed = truth
    job = start(posed, PolishConfig(), cameras_known=True, seconds=0.5)
    optimise(job, 1.0)
    assert torch.equal(finish(job).cameras.T_world_cam, posed.cameras.T_world_cam)
    assert torch.equal(finish(job).cameras.K, posed.cameras.K)
    assert finish(job).camera_changes == {}


def test_disturbed_cameras_turn_back(truth):
    scene, posed = truth
    generator = torch.Generator().manual_seed(3)
    axis = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=1)
    T = posed.cameras.T_world_cam.clone()
    T[:, :3, :3] = rotate(T[:, :3, :3], axis * torch.deg2rad(torch.tensor(0.5)))
    off = replace(posed, cameras=replace(posed.cameras, T_world_cam=T))
    still = ScheduleConfig(means_px=0, color=0, scales=0, quats=0, opacities=0, cameras_from=0, half_until=0, grow_until=0)
    calm = PolishOptions(match_exposure=False)
    job = start(off, PolishConfig(options=calm, schedule=still), scene=scene, seconds=0.9)
    before = guard_psnr(scene, off, range(7), capture.rasterizer())
    optimise(job, 1.0)
    after = guard_psnr(scene, posed, range(7), capture.rasterizer(), finish(job).cameras)
    assert after > before + 1, f"{before:.2f} -> {after:.2f} dB: cameras that may move must explain the photos better"
    assert finish(job).camera_changes["rotation_deg"] < 1.5


def test_exposure_of_one_photo_is_found_and_its_mean_kept(truth):
    scene, posed = truth
    images = torch.stack([posed.image(i) for i in range(7)])
    images[2] *= 0.7
    dark = capture.posed_photos(images, posed.cameras)
    job = start(dark, scene=scene, seconds=0.6)
    optimise(job, 1.0)
    job.exposure.center()
    gain = job.exposure.gain.mean(1)
    assert int(gain.argmin()) == 2
    assert float(gain[2]) < 0.97
    assert job.exposure.gain.mean(0) == pytest.approx(torch.ones(3), abs=1e-5)


def test_brightness_that_light_alone_explains_is_left_to_the_scene(truth):
    scene, posed = truth
    images = torch.stack([posed.image(i) for i in range(7)])
    images[2] *= 0.9
    job = start(capture.posed_photos(images, posed.cameras), scene=scene, seconds=0.6)
    optimise(job, 0.3)
    assert torch.equal(job.exposure.gain, torch.ones(7, 3))


def test_a_random_part_makes_up_for_what_it_leaves_out(truth):
    _, posed = truth
    job = start(posed)
    assert random_part(job, 0.0) is None
    kept = random_part(job, 0.25)
    assert kept is not None
    assert kept.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.15)


def test_stopping_keeps_what_there_is(truth):
    _, posed = truth
    progress = Progress()
    job = start(posed, progress=progress)
    stopped = run_until(job, 1.0, lambda j: progress.cancel() if j.steps == 20 else None)
    assert stopped
    assert job.steps == 32, "the request is heard at the next report of progress"
    assert torch.isfinite(finish(job, partial=stopped).gaussians.means).all()


def test_interruption_is_heard_too(truth):
    _, posed = truth

    def interrupt(job):
        raise KeyboardInterrupt

    assert run_until(start(posed), 1.0, interrupt)


def test_the_same_seed_takes_the_same_way(truth):
    _, posed = truth
    jobs = [start(posed, seconds=0.5) for _ in range(2)]
    for job in jobs:
        optimise(job, 1.0)
    assert torch.allclose(jobs[0].parameters.raw, jobs[1].parameters.raw, atol=1e-4)


def test_tiles_with_most_error_are_drawn(truth):
    _, posed = truth
    config = replace(FIXED, schedule=replace(capture.SMALL_STEPS, tile_share=0.4))
    job = start(posed, config)
    before = guard_psnr(job.parameters.gaussians(), posed, [3], capture.rasterizer())
    optimise(job, 1.0)
    assert guard_psnr(job.parameters.gaussians(), posed, [3], capture.rasterizer()) > before + 1
    picker = TilePicker(0.25, seed=0)
    target = Targets(posed).at(0, 1)
    wrong = target.image.clone()
    wrong[:16, :32] += 0.5
    assert picker.choose(0, target) is None
    picker.tell(0, wrong, target, None)
    tiles = picker.choose(0, target)
    assert tiles is not None
    assert tiles[0, 0, :2].all()
    assert int(tiles.sum()) == round(0.25 * tiles.numel())


def test_bad_views_come_round_more_often_and_all_come_round():
    picker = ViewPicker([0, 1, 2, 3])
    counts = [0] * 4
    for _ in range(100):
        view = picker.next()
        counts[view] += 1
        picker.tell(view, 0.09 if view == 2 else 0.01)
    assert counts[2] == max(counts)
    assert min(counts) >= 8


def test_schedule_runs_from_small_and_few_to_large_and_many():
    config = ScheduleConfig()
    assert [factor_at(s, config) for s in (0.0, config.half_until - 0.01, 0.99)] == [4, 2, 1]
    counts = [wanted_count(s / 20, 1000, 8000, config) for s in range(21)]
    assert counts[0] == 1000
    assert counts[-1] == 8000
    assert counts == sorted(counts)


def test_clock_forgives():
    timer = capture.CountingTimer()
    clock = Clock(1.0, timer)
    for _ in range(49):
        timer()
    before = clock.share
    clock.forgive(0.3)
    assert before == pytest.approx(0.5, abs=0.02)
    assert clock.share == pytest.approx(before - 0.29, abs=0.02)


def test_targets_average_and_ignore_invalid_pixels(truth):
    _, posed = truth
    valid = torch.ones(capture.HEIGHT, capture.WIDTH, dtype=torch.bool)
    valid[:, 40:] = False
    image = torch.where(valid[..., None], torch.tensor(0.5), torch.tensor(9.0)).expand(-1, -1, 3)
    half = PosedViews(names=posed.names, cameras=posed.cameras, read=lambda i: (image, valid))
    target = Targets(half).at(0, 4)
    assert target.weight.sum() == 10 * capture.HEIGHT // 4
    assert target.image[target.weight > 0] == pytest.approx(torch.full((120, 3), 0.5), abs=1e-5)
    assert float(target.image[target.weight == 0].abs().max()) == 0
