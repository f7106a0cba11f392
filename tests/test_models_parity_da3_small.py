"""DA3-SMALL against the official code's numbers: outputs and intermediates, with and without known cameras."""

from __future__ import annotations

import pytest
from da3_parity import build, compare_case
from parity import fixture_folder

from models.published.networks.da3 import DA3_SMALL


@pytest.fixture(scope="module")
def network():
    return build(fixture_folder("da3-small"), DA3_SMALL)


@pytest.mark.parametrize("case", ["v1", "v2", "v3", "v3cam", "v3first", "v3mid"])
def test_matches_official_numbers(network, case: str) -> None:
    compare_case(network, fixture_folder("da3-small"), case).finish()
