"""Where things lie in the flat arrays the kernels share.

A splat is one visible Gaussian seen by one camera: sixteen float32, one cache line. With dx, dy the offset of a pixel centre
from the mean, S the blurred 2-D covariance and log2 the logarithm the kernels work in:

    log2 alpha = LOG2_OPACITY - (SLOPE_X dx + SLOPE_Y dy)^2 - CURVE_Y dy^2

This is the conic with its square completed: both terms are squares, so long needles do not cancel in float32.

    SLOPE_X = sqrt(log2(e) / (2 (Sxx - Sxy^2 / Syy)))     SLOPE_Y = -SLOPE_X Sxy / Syy     CURVE_Y = log2(e) / (2 Syy)
"""

from __future__ import annotations

SPLAT = 16
MEAN_X, MEAN_Y = 0, 1
SLOPE_X, SLOPE_Y, CURVE_Y, LOG2_OPACITY = 2, 3, 4, 5
RED, GREEN, BLUE, DEPTH = 6, 7, 8, 9
# The ellipse where alpha = 1/255, for tile tests: |dy| <= EXTENT_Y, and at a given dy
# dx = SKEW dy +- sqrt(WIDTH2 - NARROW dy^2); the largest dx is reached at dy = TIP_Y.
EXTENT_Y, SKEW, TIP_Y, WIDTH2, NARROW = 10, 11, 12, 13, 14

CAMERA = 24
"""float64 per camera: R_cam_world (9, row major), t_cam_world (3), center_world (3), fx, fy, cx, cy, near, far, width, height."""
ROTATION, TRANSLATION, CENTER, FOCAL_X, FOCAL_Y, PRINCIPAL_X, PRINCIPAL_Y, NEAR, FAR, WIDTH, HEIGHT = (
    0,
    9,
    12,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
    22,
)

CAMERA_GRADIENT = 19
"""float64 per camera: the gradients of the first nineteen entries of a camera."""

# Sums over the pixels of one tile for one splat, with v = alpha dL/dalpha, u = SLOPE_X dx + SLOPE_Y dy and w the blending weight.
HIT_GRADIENT = 16
SUM_V, SUM_U, SUM_UU, SUM_UY, SUM_Y, SUM_YY, SUM_RED, SUM_GREEN, SUM_BLUE, SUM_DEPTH = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
