"""DA3-BASE against the official code's numbers: outputs and intermediates, with and without known cameras.

About 20 s and 1.3 GB on two cores.
"""

from __future__ import annotations

import pytest
from da3_parity import build, compare_case
from parity import fixture_folder

from models.published.networks.da3 import DA3_BASE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    return build(fixture_folder("da3-base"), DA3_BASE)


@pytest.mark.parametrize("case", ["v1", "v2", "v3", "v3cam", "v3first", "v3mid"])
def test_matches_official_numbers(network, case: str) -> None:
    compare_case(network, fixture_folder("da3-base"), case).finish()
