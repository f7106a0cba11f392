"""Published feed-forward networks in one implementation: shared layers, one file per network, and the doors to our records.

Input: photos or posed photos, and a checkpoint file the user has or pulled. Output: ``recon.records.Prediction``.
Does not: download (``models.checkpoints``) or run any code found in a checkpoint.
"""

from __future__ import annotations
