"""One file per published network: its configuration, its forward pass, and the map from its published parameter names."""

from __future__ import annotations
