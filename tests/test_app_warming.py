"""`recon doctor --warm` compiles what a first run would wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.warming import HEIGHT, VIEWS, wall, warm_up

ROOT = Path(__file__).resolve().parent.parent
WARM = "from app.warming import warm_up; print(warm_up())"


def test_the_wall_is_one_wall_seen_from_three_places():
    posed = wall()
    first, second = posed.image(0), posed.image(1)
    shift = 3
    assert len(posed) == VIEWS
    assert first.shape[0] == HEIGHT
    assert (first[:, shift:] == second[:, :-shift]).all()


def test_warming_runs_every_stage():
    assert 0 < warm_up() < 120


@pytest.mark.slow
def test_warmed_kernels_are_not_compiled_again(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def seconds() -> float:
        run = subprocess.run([sys.executable, "-c", WARM], env=environment, capture_output=True, text=True, check=True)
        return float(run.stdout)

    cold = seconds()
    kept = sorted(path.name for path in tmp_path.rglob("*.nbc"))
    assert seconds() < cold / 3
    assert sorted(path.name for path in tmp_path.rglob("*.nbc")) == kept
    for kernel in (
        "correlation._forward",
        "kernels.compare",
        "kernels.count_cells",
        "kernels.leave_out",
        "refining._add_slopes",
        "forward.draw",
    ):
        assert any(name.startswith(kernel) for name in kept), kernel
