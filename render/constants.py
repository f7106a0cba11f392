"""The constants of the drawing itself, shared by every implementation (gsplat 1.5.3).

Does not: hold anything a caller may change; that is ``recon.records.RasterOptions``.
"""

from __future__ import annotations

import math

ALPHA_CAP = 0.999
"""No Gaussian hides more than this."""
ALPHA_MIN = 1.0 / 255.0
"""Contributions below this are skipped."""
TRANSMITTANCE_STOP = 1e-4
"""A pixel is finished before the Gaussian that would take its transmittance to this or below."""
BLUR_PX2 = 0.3
"""Variance added to both axes of the projected covariance."""
JACOBIAN_MARGIN = 0.3
"""Share of the half field of view by which the Jacobian's ray may leave the image before it is clamped."""
TILE = 16
"""Side of a tile in pixels."""

# The extent of gsplat, min(3.33, sqrt(2 ln(255 opacity))) sigma, is at most sqrt(2 ln 255) = 3.329 for opacity <= 1, so the
# 3.33 never acts: a Gaussian is drawn exactly where its alpha reaches ALPHA_MIN.
EXTENT_MAX_SIGMA = math.sqrt(2.0 * math.log(1.0 / ALPHA_MIN))
"""Radius at which a Gaussian of opacity 1 falls below ALPHA_MIN."""

LOG2_E = math.log2(math.e)
"""Kernels work in powers of two."""
