"""Compiled: which texel shows which point of a surface, and what a photo shows of many points.

Input and output: numpy arrays. Does not: choose photos or exposures (``texture`` does).
"""

from __future__ import annotations

import math

from ..polishing.workers import kernel

OCCLUSION = 0.02
"""A point is hidden when the mesh lies closer by more than this share of its depth."""
BORDER = 0.06
"""Share of the photo's width over which its weight fades in."""


@kernel
def add_photo(begin, end, points, normals, image, depth, K, R_world_cam, eye, gain, total, weight):
    """Add ``weight * gain * colour`` and ``weight`` of points [begin, end).

    The weight is the fourth power of the cosine under which the photo sees the surface, times the square of its pixels per
    world unit, and falls to 0 at the photo's border. A point counts as seen when the mesh is nowhere closer in the four depth
    pixels around it, so that a silhouette does not print itself on what stands behind.

    Args:
        image: H W 3 uint8.
        depth: z-depth of the mesh, a picture of any size of the same view.
        gain: factor of each colour, 1 / 255 included.
    """
    height, width = image.shape[:2]
    rows, columns = depth.shape
    for i in range(begin, end):
        dx, dy, dz = points[i, 0] - eye[0], points[i, 1] - eye[1], points[i, 2] - eye[2]
        z = dx * R_world_cam[0, 2] + dy * R_world_cam[1, 2] + dz * R_world_cam[2, 2]
        facing = -(dx * normals[i, 0] + dy * normals[i, 1] + dz * normals[i, 2])
        if z <= 1e-6 or facing <= 0.0:
            continue
        x = (dx * R_world_cam[0, 0] + dy * R_world_cam[1, 0] + dz * R_world_cam[2, 0]) / z * K[0, 0] + K[0, 2]
        y = (dx * R_world_cam[0, 1] + dy * R_world_cam[1, 1] + dz * R_world_cam[2, 1]) / z * K[1, 1] + K[1, 2]
        margin = min(min(x, width - x), min(y, height - y))
        if not margin > 0.0:
            continue
        u, v = x * columns / width - 0.5, y * rows / height - 0.5
        c0, r0 = min(max(int(u), 0), columns - 1), min(max(int(v), 0), rows - 1)
        c1, r1 = min(c0 + 1, columns - 1), min(r0 + 1, rows - 1)
        if min(min(depth[r0, c0], depth[r0, c1]), min(depth[r1, c0], depth[r1, c1])) <= z * (1.0 - OCCLUSION):
            continue
        square = dx * dx + dy * dy + dz * dz
        cosine = facing / square**0.5
        share = cosine**4 * K[0, 0] ** 2 / square * min(margin / (BORDER * width), 1.0)
        u, v = min(max(x - 0.5, 0.0), width - 1.0), min(max(y - 0.5, 0.0), height - 1.0)
        c0, r0 = int(u), int(v)
        c1, r1 = min(c0 + 1, width - 1), min(r0 + 1, height - 1)
        a, b = u - c0, v - r0
        weight[i] += share
        for channel in range(3):
            above = (1.0 - a) * image[r0, c0, channel] + a * image[r0, c1, channel]
            below = (1.0 - a) * image[r1, c0, channel] + a * image[r1, c1, channel]
            total[i, channel] += share * gain[channel] * ((1.0 - b) * above + b * below)


@kernel
def cover(corners, face, weights):
    """Write into every texel the triangle that covers its centre, and its barycentric weights; the first triangle keeps it.

    Args:
        corners: M 3 2, in texels, row 0 on top.
        face: H W, -1 where nothing is yet.
        weights: H W 3.
    """
    rows, columns = face.shape
    for i in range(len(corners)):
        ax, ay, bx, by, cx, cy = (
            corners[i, 0, 0], corners[i, 0, 1], corners[i, 1, 0], corners[i, 1, 1], corners[i, 2, 0], corners[i, 2, 1],
        )  # fmt: skip
        whole = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(whole) < 1e-12:
            continue
        top, bottom = max(math.floor(min(ay, by, cy) - 0.5), 0), min(math.ceil(max(ay, by, cy) + 0.5), rows)
        left, right = max(math.floor(min(ax, bx, cx) - 0.5), 0), min(math.ceil(max(ax, bx, cx) + 0.5), columns)
        for row in range(top, bottom):
            for column in range(left, right):
                x, y = column + 0.5, row + 0.5
                u = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / whole
                v = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / whole
                w = 1.0 - u - v
                if face[row, column] < 0 and u > -1e-3 and v > -1e-3 and w > -1e-3:
                    face[row, column] = i
                    weights[row, column, 0] = min(max(u, 0.0), 1.0)
                    weights[row, column, 1] = min(max(v, 0.0), 1.0)
                    weights[row, column, 2] = min(max(w, 0.0), 1.0)


@kernel
def grow(texture, filled):
    """Give empty texels the mean colour of the filled ones beside them; returns both, one texel larger."""
    rows, columns = filled.shape
    grown, now = texture.copy(), filled.copy()
    for row in range(rows):
        for column in range(columns):
            if filled[row, column]:
                continue
            count, red, green, blue = 0, 0.0, 0.0, 0.0
            for side in range(4):
                r, c = row + (side == 0) - (side == 1), column + (side == 2) - (side == 3)
                if 0 <= r < rows and 0 <= c < columns and filled[r, c]:
                    count += 1
                    red += texture[r, c, 0]
                    green += texture[r, c, 1]
                    blue += texture[r, c, 2]
            if count > 0:
                grown[row, column, 0], grown[row, column, 1], grown[row, column, 2] = red / count, green / count, blue / count
                now[row, column] = True
    return grown, now
