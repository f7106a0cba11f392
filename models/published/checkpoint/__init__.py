"""Reading published checkpoints: files without running their code, names without guessing."""

from __future__ import annotations
