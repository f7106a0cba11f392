"""The whole path on real photos with a published network filled by rule: files are written, memory is sane.

The pictures mean nothing, because the weights are made up. About 3 minutes and 2 GB on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from da3_parity import build
from parity import fixture_folder
from safetensors.torch import save_file
from tiny_networks import published_tensors

from app.run import build_tools
from models import checkpoints
from models.published.networks.da3 import DA3_SMALL
from recon.config import PipelineConfig
from recon.pipeline import run_pipeline
from recon.progress import Progress

pytestmark = pytest.mark.slow
PHOTOS = 6


def test_photos_become_files_with_a_published_network(
    dataset: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    save_file(published_tensors(build(fixture_folder("da3-small"), DA3_SMALL)), tmp_path / "made_up.safetensors")
    checkpoints.pull("da3-small", accept_licence=True, file=tmp_path / "made_up.safetensors")
    photos = sorted(path for path in dataset("fox").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:PHOTOS]

    def load(name: str, *, device: str, weights: Path | None = None, random_seed: int | None = None):
        return checkpoints.load_installed(name, device, weights)

    tools = replace(build_tools(), load_predictor=load)
    config = PipelineConfig(model="da3-small", long_side=400, video=False)
    result = run_pipeline(photos, tmp_path / "out", config, tools, Progress())
    assert (tmp_path / "out" / "scene.ply").stat().st_size > 10_000
    assert len(result.scene.gaussians) > 500
    assert torch.isfinite(result.scene.gaussians.means).all()
    assert result.report["peak_memory_bytes"] is None or max(result.report["peak_memory_bytes"].values()) < 4 << 30
