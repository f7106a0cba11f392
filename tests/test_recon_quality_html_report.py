"""The report page, picture measures and camera alignment."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import polish_capture as capture
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from recon.errors import UserError
from recon.polishing.cameras import rotate
from recon.polishing.guard import guard_psnr
from recon.progress import Progress
from recon.quality.align import AlignConfig, align_cameras
from recon.quality.charts import bars, curve
from recon.quality.html_report import build_html, error_maps
from recon.quality.metrics import Lpips, gradient_similarity, ms_ssim

REPORT = {
    "counts": {"photos": 9, "gaussians": 12345},
    "versions": {"python": "3.11", "torch": "2.13"},
    "seconds": {"depth": 3.2, "polish": 20.0},
    "peak_memory_bytes": {"process": 1_500_000_000},
    "warnings": ["2 of 9 photos could not be placed: <b>.jpg.", "Polish: it fell: polishing was undone."],
    "choices": {
        "polish": {
            "guard": [
                {
                    "stage": "polish", "psnr_before": 17.0, "psnr_after": 21.5, "kept": True, "guards": ["a"],
                    "note": "it rose & stayed",
                },
            ],
            "history": [
                {"seconds": 1.0, "train_psnr": 18.0, "gaussians": 100},
                {"seconds": 2.0, "train_psnr": 20.0, "gaussians": 200},
            ],
        }
    },
    "quality_before_polish": {"n_scored": 1, "psnr_mean": 16.9, "ssim_mean": 0.5, "coverage": 0.9, "per_view": []},
    "quality": {
        "n_scored": 1, "psnr_mean": 21.25, "ssim_mean": 0.71, "coverage": 0.95, "per_view": [{"name": "x&y.jpg", "psnr": 21.25}],
    },
}  # fmt: skip


class Balanced(HTMLParser):
    """Counts tags that were opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "path", "rect", "circle", "line", "polyline", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    cameras = capture.cameras_on_arc(3)
    posed = capture.posed_photos(capture.photos_of(capture.true_scene(), cameras), cameras)
    maps = error_maps(capture.worn(capture.true_scene()), posed, capture.rasterizer(), most=2)
    return build_html(REPORT, cameras, maps, title="A <scene>"), maps


def test_page_says_what_happened_and_is_well_formed(page):
    text, _ = page
    for words in (
        "21.25",
        "16.90",
        "12,345",
        "kept",
        "it rose &amp; stayed",
        "A &lt;scene&gt;",
        "&lt;b&gt;.jpg",
        "x&amp;y.jpg",
        "20.0 s",
        "1.50 GB",
    ):
        assert words in text, words
    assert "The scene before polishing was kept" not in text
    assert "the scene before polishing was kept" in text, "a warning comes with what helps"
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []


def test_page_asks_nothing_of_the_network(page):
    text, _ = page
    assert not re.search(r"(src|href)\s*=\s*['\"](?!data:)", text)
    assert "<script" not in text
    assert "url(" not in text
    assert "http" not in text


def test_error_maps_show_photo_rendering_and_error(page):
    _, maps = page
    assert [m.name for m in maps] == ["photo_0.png", "photo_2.png"]
    assert Image.open(io.BytesIO(maps[0].png)).size == (3 * capture.WIDTH, capture.HEIGHT)
    assert 5 < maps[0].psnr < 40


def test_page_of_an_empty_report_stands():
    assert "No photo was held out" in build_html({}, None, [])


def test_charts_take_one_value_and_no_value():
    assert "NaN" not in curve([1.0], [2.0], "s", "dB")
    assert bars([]) == ""


def pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = capture.photos_of(capture.true_scene(), capture.cameras_on_arc(1))[0]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return image, noise, torch.ones(image.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("measure", [ms_ssim, gradient_similarity])
def test_measures_are_one_for_equal_pictures_and_fall_with_noise(measure):
    image, noise, valid = pictures()
    assert measure(image, image, valid) == pytest.approx(1.0, abs=1e-6)
    a, b = (measure((image + s * noise).clamp(0, 1), image, valid) for s in (0.05, 0.2))
    assert 1 > a > b > 0


def test_gradient_similarity_ignores_brightness_and_sees_blur():
    image, _, valid = pictures()
    darker = image * 0.9
    blurred = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], 5, 1, 2)[0].permute(1, 2, 0)
    assert gradient_similarity(darker, image, valid) > gradient_similarity(blurred, image, valid)


def test_pixels_that_do_not_count_change_nothing():
    image, _, valid = pictures()
    valid = valid.clone()
    valid[:, 40:] = False
    other = image.clone()
    other[:, 40:] = 0.3
    assert ms_ssim(other, image, valid) == pytest.approx(1.0, abs=1e-6)
    assert gradient_similarity(other, image, valid) == pytest.approx(1.0, abs=1e-6)


def test_lpips_needs_a_file_of_its_network(tmp_path):
    (tmp_path / "lpips.pt").write_bytes(b"not a module")
    with pytest.raises(UserError, match="does not load"):
        Lpips(tmp_path / "lpips.pt")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="another network"):
        Lpips(tmp_path / "other.safetensors")


def test_lpips_is_zero_for_equal_pictures_and_grows_with_noise(tmp_path):
    g = torch.Generator().manual_seed(0)
    state, channels = {}, (3, 64, 192, 384, 256, 256)
    for i, (layer, side) in enumerate(((0, 11), (3, 5), (6, 3), (8, 3), (10, 3))):
        shape = (channels[i + 1], channels[i], side, side)
        state[f"net.slice{i + 1}.{layer}.weight"] = torch.randn(shape, generator=g) / (channels[i] * side * side) ** 0.5
        state[f"net.slice{i + 1}.{layer}.bias"] = torch.zeros(channels[i + 1])
        state[f"lin{i}.model.1.weight"] = torch.rand(1, channels[i + 1], 1, 1, generator=g)
    save_file(state, tmp_path / "alex.safetensors")
    distance = Lpips(tmp_path / "alex.safetensors")
    image = torch.rand(80, 96, 3, generator=g)
    noise, valid = torch.randn(80, 96, 3, generator=g), torch.ones(80, 96, dtype=torch.bool)
    assert distance(image, image, valid) == 0
    assert (
        0 < distance((image + 0.05 * noise).clamp(0, 1), image, valid) < distance((image + 0.3 * noise).clamp(0, 1), image, valid)
    )


def test_aligned_cameras_come_back_and_the_scene_stays():
    cameras = capture.cameras_on_arc(2)
    scene = capture.true_scene()
    posed = capture.posed_photos(capture.photos_of(scene, cameras), cameras)
    turn = torch.deg2rad(torch.tensor([[0.0, 1.2, 0.5], [0.8, 0.0, -1.0]]))
    T = cameras.T_world_cam.clone()
    T[:, :3, :3] = rotate(T[:, :3, :3], turn)
    off = replace(posed, cameras=replace(cameras, T_world_cam=T))
    before = guard_psnr(scene, off, [0, 1], capture.rasterizer())
    aligned = align_cameras(scene, off, capture.rasterizer(), AlignConfig(), Progress())
    after = guard_psnr(scene, off, [0, 1], capture.rasterizer(), aligned)
    assert after > before + 6, f"{before:.2f} -> {after:.2f} dB"
