"""The names of `--model`: published networks beside our own, and which one 'auto' means."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_networks import TINY, write_tiny

from models import checkpoints, registry
from models.published import planner, zoo
from models.published.doors import PublishedPredictor
from models.published.zoo import NETWORKS
from models.registry import depth_models, load_camera_predictor, load_predictor, shipped_path
from recon.errors import UserError


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep weights in a folder of the test; 'da3-small' and 'da3-base' are tiny there."""
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    monkeypatch.setattr(zoo, "NETWORKS", {**NETWORKS, "da3-small": TINY, "da3-base": TINY})
    write_tiny(tmp_path / "tiny.safetensors")
    return tmp_path / "shelf"


def install(name: str, tmp_path: Path) -> None:
    checkpoints.pull(name, accept_licence=True, file=tmp_path / "tiny.safetensors")


def test_every_name_of_the_command_line_is_known() -> None:
    assert {"auto", "mini", "da3-small", "da3-base", "vggt", "anysplat", "pi3", "yonosplat", "plane-sweep"} <= set(depth_models())
    assert set(registry.PREFERRED) <= set(checkpoints.all_checkpoints())
    assert all(checkpoints.find_checkpoint(name).commercial for name in registry.PREFERRED)


def test_auto_takes_the_best_that_is_here_and_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_predictor("auto").name == "mini"
    install("da3-small", tmp_path)
    assert load_predictor("auto").name == "da3-small"
    install("da3-base", tmp_path)
    best = load_predictor("auto")
    assert isinstance(best, PublishedPredictor)
    assert best.name == "da3-base"
    assert load_camera_predictor("network").name == "da3-base"
    monkeypatch.setattr(planner, "free_bytes", lambda _device: 1 << 20)
    assert load_predictor("auto").name == "mini"
    with pytest.raises(UserError, match="recon weights pull"):
        load_camera_predictor("network")


def test_a_given_file_decides_what_auto_means(tmp_path: Path) -> None:
    assert load_predictor("auto", weights=tmp_path / "tiny.safetensors").name == "da3-small"
    assert load_predictor("auto", weights=shipped_path("mini")).name == "mini"
    assert load_predictor("da3-base", weights=tmp_path / "tiny.safetensors").name == "da3-base"


def test_names_that_cannot_be_had_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model called 'vgt'.*Did you mean 'vggt'\?"):
        load_predictor("vgt")
    with pytest.raises(UserError, match="recon weights pull anysplat"):
        load_predictor("anysplat")
    with pytest.raises(UserError, match="no model called 'mini'"):
        load_camera_predictor("mini")
    with pytest.raises(UserError, match="Random weights are made for 'mini'"):
        load_predictor("da3-small", weights=tmp_path / "tiny.safetensors", random_seed=1)
    with pytest.raises(UserError, match="Fetch one: recon weights pull"):
        load_camera_predictor("network")
