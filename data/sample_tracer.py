"""Where rays meet triangles: a tree of boxes over the sample scene, and the true depth of its photos, for tests.

Input: triangles. Output: nearest hits, depth maps.
Does not: know about light (``sample_cycles`` does).

Sources: binned surface-area heuristic: Wald, "On fast construction of SAH-based bounding volume hierarchies", 2007;
triangle test: Moller and Trumbore, 1997.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from .sample_room import Parts

EPSILON = 1e-5
"""Rays start and shadow rays end this far (metres) from surfaces."""
FAR = 1e30
"""Farther than anything, metres."""
BINS = 16
LEAF = 4


class World(NamedTuple):
    """Everything a ray can meet."""

    boxes: np.ndarray
    """Nodes 6: lower and upper corner."""
    link: np.ndarray
    """Nodes: first triangle of a leaf, or the right child (the left one follows its parent)."""
    held: np.ndarray
    """Nodes: triangles of a leaf, 0 for an inner node."""
    corners: np.ndarray
    """F 3 3, in tree order."""


@njit(cache=True)
def build_tree(low, high):
    """Split triangles by the surface-area heuristic; returns boxes, link, held and the triangle order."""
    total = low.shape[0]
    order = np.arange(total)
    middle = 0.5 * (low + high)
    box_min, box_max = np.empty((2 * total, 3)), np.empty((2 * total, 3))
    link, held = np.zeros(2 * total, np.int32), np.zeros(2 * total, np.int32)
    stack = np.empty((128, 3), np.int64)
    stack[0] = (0, total, -1)
    depth, nodes = 1, 0
    while depth > 0:
        depth -= 1
        first, last, parent = stack[depth]
        node, nodes = nodes, nodes + 1
        if parent >= 0:
            link[parent] = node
        center_low, center_high = np.full(3, np.inf), np.full(3, -np.inf)
        box_min[node], box_max[node] = np.inf, -np.inf
        for k in range(first, last):
            for a in range(3):
                box_min[node, a] = min(box_min[node, a], low[order[k], a])
                box_max[node, a] = max(box_max[node, a], high[order[k], a])
                center_low[a] = min(center_low[a], middle[order[k], a])
                center_high[a] = max(center_high[a], middle[order[k], a])
        axis = np.argmax(center_high - center_low)
        extent = center_high[axis] - center_low[axis]
        if last - first <= LEAF or extent <= 0.0:
            link[node], held[node] = first, last - first
            continue
        tally = np.zeros(BINS)
        bin_low, bin_high = np.full((BINS, 3), np.inf), np.full((BINS, 3), -np.inf)
        for k in range(first, last):
            b = min(int((middle[order[k], axis] - center_low[axis]) / extent * BINS), BINS - 1)
            tally[b] += 1
            for a in range(3):
                bin_low[b, a] = min(bin_low[b, a], low[order[k], a])
                bin_high[b, a] = max(bin_high[b, a], high[order[k], a])
        best, split = np.inf, 0
        for s in range(1, BINS):
            cost = 0.0
            for start, stop in ((0, s), (s, BINS)):
                size, n = np.zeros(3), 0.0
                for a in range(3):
                    size[a] = max(bin_high[start:stop, a].max() - bin_low[start:stop, a].min(), 0.0)
                n = tally[start:stop].sum()
                cost += n * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0]) if n > 0 else np.inf
            if cost < best:
                best, split = cost, s
        left, right = first, last - 1
        while left <= right:
            if min(int((middle[order[left], axis] - center_low[axis]) / extent * BINS), BINS - 1) < split:
                left += 1
            else:
                order[left], order[right] = order[right], order[left]
                right -= 1
        stack[depth] = (left, last, node)
        stack[depth + 1] = (first, left, -1)
        depth += 2
    return np.concatenate((box_min[:nodes], box_max[:nodes]), axis=1), link[:nodes], held[:nodes], order


@njit(cache=True, inline="always")
def enter_box(boxes, node, o, inverse, limit):
    """Distance at which a ray enters a box; FAR when it misses."""
    x0, x1 = (boxes[node, 0] - o[0]) * inverse[0], (boxes[node, 3] - o[0]) * inverse[0]
    y0, y1 = (boxes[node, 1] - o[1]) * inverse[1], (boxes[node, 4] - o[1]) * inverse[1]
    z0, z1 = (boxes[node, 2] - o[2]) * inverse[2], (boxes[node, 5] - o[2]) * inverse[2]
    near = max(max(min(x0, x1), min(y0, y1)), max(min(z0, z1), 0.0))
    far = min(min(max(x0, x1), max(y0, y1)), min(max(z0, z1), limit))
    return near if near <= far * 1.0000001 else FAR


@njit(cache=True)
def trace(world, stack, o, d, limit, any_hit):
    """Find the nearest triangle along ``o + t d`` with t < ``limit`` (or any one, for shadows).

    Args:
        stack: scratch memory, 64 int32.
        o, d: origin and unit direction, tuples.

    Returns:
        (t, triangle or -1, barycentric u, v).
    """
    inverse = (
        1.0 / d[0] if abs(d[0]) > 1e-12 else 1e12,
        1.0 / d[1] if abs(d[1]) > 1e-12 else 1e12,
        1.0 / d[2] if abs(d[2]) > 1e-12 else 1e12,
    )
    found, best_u, best_v, depth = -1, 0.0, 0.0, 0
    boxes, link, held, corners = world.boxes, world.link, world.held, world.corners
    node = 0 if enter_box(boxes, 0, o, inverse, limit) < FAR else -1
    while node >= 0:
        if held[node] == 0:
            left, right = node + 1, link[node]
            a, b = enter_box(boxes, left, o, inverse, limit), enter_box(boxes, right, o, inverse, limit)
            if a > b:
                left, right, a, b = right, left, b, a
            if b < FAR:
                stack[depth] = right
                depth += 1
            if a < FAR:
                node = left
                continue
        else:
            for k in range(link[node], link[node] + held[node]):
                cx, cy, cz = corners[k, 0, 0], corners[k, 0, 1], corners[k, 0, 2]
                e0, e1, e2 = corners[k, 1, 0] - cx, corners[k, 1, 1] - cy, corners[k, 1, 2] - cz
                f0, f1, f2 = corners[k, 2, 0] - cx, corners[k, 2, 1] - cy, corners[k, 2, 2] - cz
                p0, p1, p2 = d[1] * f2 - d[2] * f1, d[2] * f0 - d[0] * f2, d[0] * f1 - d[1] * f0
                det = e0 * p0 + e1 * p1 + e2 * p2
                if abs(det) < 1e-18:
                    continue
                s0, s1, s2 = o[0] - cx, o[1] - cy, o[2] - cz
                u = (s0 * p0 + s1 * p1 + s2 * p2) / det
                if u < 0.0 or u > 1.0:
                    continue
                q0, q1, q2 = s1 * e2 - s2 * e1, s2 * e0 - s0 * e2, s0 * e1 - s1 * e0
                v = (d[0] * q0 + d[1] * q1 + d[2] * q2) / det
                if v < 0.0 or u + v > 1.0:
                    continue
                t = (f0 * q0 + f1 * q1 + f2 * q2) / det
                if EPSILON < t < limit:
                    limit, found, best_u, best_v = t, k, u, v
                    if any_hit:
                        return limit, found, best_u, best_v
        if depth == 0:
            break
        depth -= 1
        node = stack[depth]
    return limit, found, best_u, best_v


def build_world(parts: Parts) -> World:
    """Put all parts into one tree."""
    corners = np.concatenate([mesh.corners for _, mesh in parts])
    boxes, link, held, order = build_tree(corners.min(axis=1), corners.max(axis=1))
    return World(boxes, link, held, np.ascontiguousarray(corners[order]))


@njit(cache=True)
def _depths(world, center, rays_world, depth):
    stack = np.empty(64, np.int32)
    o = (center[0], center[1], center[2])
    for row in range(rays_world.shape[0]):
        for column in range(rays_world.shape[1]):
            x, y, z = rays_world[row, column]
            length = np.sqrt(x * x + y * y + z * z)
            t, triangle, _, _ = trace(world, stack, o, (x / length, y / length, z / length), FAR, False)
            depth[row, column] = t / length if triangle >= 0 else 0.0


def depth_map(world: World, K: np.ndarray, T_world_cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """True z-depth ``H W`` in metres at pixel centres; 0 where nothing is. ``size`` is width, height."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1)
    depth = np.empty(x.shape)
    _depths(world, T_world_cam[:3, 3], np.ascontiguousarray(rays @ T_world_cam[:3, :3].T), depth)
    return depth
