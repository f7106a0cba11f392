"""A shelf of weights in a folder of the test, with a tiny network on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_networks import TINY

from models import checkpoints
from models.published import zoo
from models.published.zoo import NETWORKS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENTRY = checkpoints.Checkpoint(
    name="tiny",
    network="tiny",
    title="Tiny",
    task="tests",
    repository="someone/tiny",
    revision=COMMIT,
    file="model.safetensors",
    size_bytes=1_000_000,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    commercial=True,
    gated=False,
    memory_gib=0.1,
)


@pytest.fixture(autouse=True)
def own_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep weights in a folder of the test, and know a tiny network."""
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    monkeypatch.setattr(zoo, "NETWORKS", {"tiny": TINY, **NETWORKS})
    known = dict(checkpoints.all_checkpoints())
    monkeypatch.setattr(checkpoints, "all_checkpoints", lambda: {**known, "tiny": ENTRY})


def shelf(tmp_path: Path) -> list[str]:
    """List what is installed or left over."""
    root = tmp_path / "shelf"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) if root.exists() else []
