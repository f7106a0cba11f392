"""Photos set apart: what they see, what they decide, and that a stage which harms is undone."""

from __future__ import annotations

from dataclasses import replace

import polish_capture as capture
import pytest
import torch

from recon.fuse import Fused
from recon.polishing.choices import LONG_S, PolishConfig, PolishOptions, for_refined
from recon.polishing.guard import as_fused, choose_guards, gentle, polish_guarded
from recon.polishing.stage import zoom_others, zoomed
from recon.progress import Progress
from recon.records import Cameras

CONFIG = PolishConfig(options=PolishOptions(refine_cameras=False, polish_sh=0), schedule=capture.SMALL_STEPS)


def capture_of(count: int):
    cameras = capture.cameras_on_arc(count)
    return capture.posed_photos(capture.photos_of(capture.true_scene(), cameras), cameras)


def guarded(posed, start, seconds=0.4, **details):
    return polish_guarded(
        start,
        posed,
        seconds,
        CONFIG,
        capture.rasterizer(),
        Progress(),
        timer=capture.CountingTimer(),
        cameras_known=True,
        **details,
    )


def test_one_in_eight_guards_from_eight_on():
    assert choose_guards(7) == []
    assert choose_guards(8) == [4]
    assert choose_guards(30) == [4, 12, 20, 28]


def test_a_stage_that_helps_is_kept_and_guards_come_in_late():
    posed = capture_of(9)
    asked: list[list[int]] = []
    seen: list[tuple[float, set[int]]] = []

    def start(indices):
        asked.append(list(indices))
        return Fused(gaussians=capture.worn(capture.true_scene()), shell_count=0)

    result = guarded(posed, start, observe=lambda job: seen.append((job.clock.share, set(job.views))))
    (verdict,) = result.verdicts
    assert verdict.kept, verdict.note
    assert verdict.psnr_after > verdict.psnr_before
    assert asked == [[0, 1, 2, 3, 5, 6, 7, 8]], "the scene to begin with is made without the guard photo"
    assert verdict.guards == ("photo_4.png",)
    assert all(4 not in views for share, views in seen if share < 0.29)
    assert 4 in seen[-1][1]


def test_a_stage_that_harms_is_undone_and_says_so():
    posed = capture_of(9)
    noise = torch.rand(9, capture.HEIGHT, capture.WIDTH, 3, generator=torch.Generator().manual_seed(0))
    images = torch.stack([posed.image(i) if i == 4 else noise[i] for i in range(9)])
    given = Fused(gaussians=capture.true_scene(), shell_count=0)
    result = guarded(capture.posed_photos(images, posed.cameras), lambda indices: given)
    (verdict,) = result.verdicts
    assert not verdict.kept
    assert result.polished is None
    assert torch.equal(result.fused.gaussians.means, given.gaussians.means)
    assert torch.equal(result.fused.gaussians.sh, given.gaussians.sh)
    assert "undone" in verdict.note
    assert verdict.psnr_after < verdict.psnr_before


def test_a_finished_scene_may_forget_a_little_on_the_way_and_is_judged_at_the_end():
    posed = capture_of(9)
    given = Fused(gaussians=capture.worn(capture.true_scene()), shell_count=0)
    result = guarded(posed, lambda indices: given, finished=True)
    (verdict,) = result.verdicts
    assert verdict.kept, verdict.note
    assert verdict.psnr_after >= verdict.psnr_before
    assert "joined the others and reached" in verdict.note
    assert f"{verdict.psnr_after:.2f}" in verdict.note


def test_a_finished_scene_that_ends_worse_is_given_back():
    posed = capture_of(9)
    noise = torch.rand(9, capture.HEIGHT, capture.WIDTH, 3, generator=torch.Generator().manual_seed(0))
    images = torch.stack([posed.image(i) if i == 4 else noise[i] for i in range(9)])
    given = Fused(gaussians=capture.true_scene(), shell_count=0)
    result = guarded(capture.posed_photos(images, posed.cameras), lambda indices: given, finished=True)
    (verdict,) = result.verdicts
    assert not verdict.kept
    assert result.polished is None
    assert torch.equal(result.fused.gaussians.means, given.gaussians.means)


def test_below_eight_photos_halves_judge_each_other():
    posed = capture_of(5)
    asked: list[list[int]] = []

    def start(indices):
        asked.append(list(indices))
        return Fused(gaussians=capture.worn(capture.true_scene()), shell_count=0)

    result = guarded(posed, start, seconds=1.2)
    assert asked[:2] == [[0, 2, 4], [1, 3]]
    assert asked[-1] == [0, 1, 2, 3, 4], "the winning setting runs on all photos"
    assert result.verdicts[0].kept, result.verdicts[0].note
    assert "judged each other" in result.verdicts[0].note


def test_stopping_in_the_first_probe_gives_the_scene_back():
    posed = capture_of(4)
    progress = Progress()
    progress.cancel()
    given = Fused(gaussians=capture.true_scene(), shell_count=3)
    result = polish_guarded(lambda i: given, posed, 60.0, CONFIG, capture.rasterizer(), progress, timer=capture.CountingTimer())
    assert result.partial
    assert result.fused is given


def test_stopping_with_guards_keeps_what_is_better():
    posed = capture_of(9)
    progress = Progress()
    given = Fused(gaussians=capture.worn(capture.true_scene()), shell_count=0)
    result = polish_guarded(
        lambda i: given, posed, 3.0, CONFIG, capture.rasterizer(), progress, timer=capture.CountingTimer(),
        observe=lambda job: progress.cancel() if job.steps == 30 else None,
    )  # fmt: skip
    assert result.partial
    assert result.polished is not None
    assert result.polished.partial
    assert len(as_fused(result.polished).gaussians) > 0


def test_gentle_moves_less():
    calm = gentle(CONFIG)
    assert calm.schedule.means_px < CONFIG.schedule.means_px
    assert calm.depth_prior > CONFIG.depth_prior


def test_corrected_focal_length_bends_the_lens_the_same_way():
    """A point on one ray lands on one pixel offset when k1 and f describe the same curve."""
    cameras = Cameras(
        T_world_cam=torch.eye(4)[None].double(), K=torch.tensor([[[100.0, 0, 50], [0, 100.0, 40], [0, 0, 1]]]).double(),
        width=100, height=80, distortion=torch.tensor([[-0.1, 0.02, 0.001, -0.002]]).double(),
    )  # fmt: skip
    z = 1.05
    changed = zoomed(cameras, [0], torch.tensor([z]), cameras.T_world_cam)
    assert float(changed.K[0, 0, 0]) == pytest.approx(105.0)

    def pixel(camera, x, y):
        k1, k2, p1, p2 = camera.distortion[0].tolist()
        r2 = x * x + y * y
        bend = 1 + k1 * r2 + k2 * r2 * r2
        dx = x * bend + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        return dx * float(camera.K[0, 0, 0]) + 50

    before = pixel(cameras, 0.3, 0.2)
    assert pixel(changed, 0.3 / z, 0.2 / z) == pytest.approx(before, abs=1e-5)


def test_held_out_photos_share_the_focal_length_only_when_all_do():
    cameras = capture.cameras_on_arc(2)
    assert float(zoom_others(cameras, torch.tensor([1.02, 1.02])).K[0, 0, 0]) == pytest.approx(53.0 * 1.02)
    assert torch.equal(zoom_others(cameras, torch.tensor([1.02, 1.0])).K, cameras.K)


def test_a_refined_scene_is_not_pulled_back_to_older_depth_and_a_longer_polish_leaves_out_more():
    config = PolishConfig()
    short, long, longer = (for_refined(config, seconds) for seconds in (10.0, LONG_S, 10 * LONG_S))
    assert config.depth_prior > 0
    assert config.opacity_prior > 0
    assert short.depth_prior == long.depth_prior == 0
    assert short.drop == pytest.approx(config.drop * 10.0 / LONG_S)
    assert long.drop == longer.drop == config.drop
    assert short.schedule.means_px < config.schedule.means_px
    assert short.options == config.options
    assert short.opacity_prior == 0, "surfaces stay opaque"
    assert short.start_again
    assert not long.start_again


def test_a_short_polish_starts_again_with_the_scene_of_all_photos_once_guards_have_judged():
    posed = capture_of(9)
    asked: list[list[int]] = []
    seen: list[set[int]] = []

    def start(indices):
        asked.append(list(indices))
        return Fused(gaussians=capture.worn(capture.true_scene()), shell_count=0)

    shown: list[float] = []
    progress = Progress(lambda event: shown.append(event.fraction))
    result = polish_guarded(
        start, posed, 2.0, replace(CONFIG, start_again=True), capture.rasterizer(), progress,
        timer=capture.CountingTimer(), cameras_known=True, observe=lambda job: seen.append(set(job.views)),
    )  # fmt: skip
    assert len(shown) > 2
    assert shown == sorted(shown), "progress never goes back"
    (verdict,) = result.verdicts
    assert verdict.kept, verdict.note
    assert verdict.psnr_after > verdict.psnr_before
    assert asked == [[0, 1, 2, 3, 5, 6, 7, 8], list(range(9))]
    assert 4 not in seen[0]
    assert seen[-1] == set(range(9))
    assert result.polished is not None


def test_a_short_polish_that_harms_is_undone_and_keeps_the_scene_of_all_photos():
    posed = capture_of(9)
    noise = torch.rand(9, capture.HEIGHT, capture.WIDTH, 3, generator=torch.Generator().manual_seed(0))
    images = torch.stack([posed.image(i) if i == 4 else noise[i] for i in range(9)])
    given = Fused(gaussians=capture.true_scene(), shell_count=0)
    result = polish_guarded(
        lambda indices: given, capture.posed_photos(images, posed.cameras), 0.4, replace(CONFIG, start_again=True),
        capture.rasterizer(), Progress(), timer=capture.CountingTimer(), cameras_known=True,
    )  # fmt: skip
    assert not result.verdicts[0].kept
    assert torch.equal(result.fused.gaussians.means, given.gaussians.means)
