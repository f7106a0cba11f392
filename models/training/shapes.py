"""Shapes that rays meet: unit shapes in their own frame, where they are hit and how they face.

Input: a primitive's row and a ray in its frame. Output: the ray's parameter at the first hit, and normals.
Does not: cast rays through worlds; ``raycast`` does. Numba's cache of its kernels looks at that file alone: after an edit here run
with ``NUMBA_CACHE_DIR`` set to an empty folder.

Rays need no unit length: their parameter is whatever the caller's is; everything is float64. Boxes, ellipsoids, cylinders and cones
are convex, so that a ray is inside them for one span, and a hole takes the span of a quadric away (the boolean cuts of Xie et al.,
"LRM-Zero", 2024).
"""

from __future__ import annotations

import math

import numba as nb

from .both_targets import greater, lesser, sign
from .relief import height_gradient, height_hit, height_slope

__all__ = [
    "BOX",
    "CARD",
    "CONE",
    "CUT",
    "CYLINDER",
    "ELLIPSOID",
    "FIELDS",
    "NO_HIT",
    "PARAMETERS",
    "RELIEF",
    "ROOM",
    "SUPERQUADRIC",
    "TORUS",
    "local_normal",
    "true_normal",
    "unit_hit",
]

ROOM, BOX, ELLIPSOID, CYLINDER, CONE, CARD, TORUS, SUPERQUADRIC, RELIEF = range(9)
"""A box seen from inside, a box, an ellipsoid, a capped cylinder along z, a capped cone with its tip at z = 1, a card at z = 0,
a torus around z, a superquadric (Barr, "Superquadrics and angle-preserving transformations", 1981), a surface z = height(x, y)."""

FIELDS = 34
"""Float32 columns of a primitive: shape 0, centre 1-3, R_local_world 4-12, half sizes 13-15, texture 16, texture widths per
unit 17, colour gain 18-20, colour offset 21-23, gloss 24, bounding radius 25, two numbers of the shape 26-27 (torus: radius of the
tube; superquadric: exponents across and along z, from 1 on; relief: which one), hole 28-33 (centre, and one over its radii, of an
ellipsoid in the primitive's frame; a radius without end makes a cylinder, all three make no hole)."""

PARAMETERS, CUT = 26, 28
"""First columns of the shape's own numbers and of the hole."""
NO_HIT = 1e30
NEAR = 1e-4
"""Least parameter of a hit."""


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def _slab(o, d):
    """Enter and exit of the unit slab along one axis."""
    safe = d if abs(d) > 1e-9 else 1e-9
    a, b = (-1.0 - o) / safe, (1.0 - o) / safe
    return lesser(a, b), greater(a, b)


@nb.njit(fastmath=True, error_model="numpy")
def _cone_span(ox, oy, oz, dx, dy, dz):
    """Where a ray is inside the cone whose radius falls from 1 at z = -1 to 0 at z = 1."""
    z0, z1 = _slab(oz, dz)
    w, dw = (1.0 - oz) / 2, -dz / 2
    a, b, c = dx * dx + dy * dy - dw * dw, ox * dx + oy * dy - w * dw, ox * ox + oy * oy - w * w
    if abs(a) < 1e-9 * (dx * dx + dy * dy + dw * dw):
        a = 1e-9 * (dx * dx + dy * dy + dw * dw)
    root = b * b - a * c
    if root <= 0:
        return NO_HIT, -NO_HIT
    q = -(b + math.copysign(math.sqrt(root), b))
    first, second = q / a, (c / q if abs(q) > 1e-30 else 0.0)
    low, high = lesser(first, second), greater(first, second)
    if a > 0:
        return greater(low, z0), lesser(high, z1)
    if dz > 0:
        return z0, lesser(low, z1)
    return greater(high, z0), z1


@nb.njit(fastmath=True, error_model="numpy")
def _box_span(ox, oy, oz, dx, dy, dz):
    """Parameters between which a ray is inside the unit box; the first is the larger one where it never is."""
    x0, x1 = _slab(ox, dx)
    y0, y1 = _slab(oy, dy)
    z0, z1 = _slab(oz, dz)
    return greater(x0, greater(y0, z0)), lesser(x1, lesser(y1, z1))


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def _span(shape, ox, oy, oz, dx, dy, dz):
    """Parameters between which a ray is inside a convex shape; the first is the larger one where it never is."""
    if shape <= BOX:
        return _box_span(ox, oy, oz, dx, dy, dz)
    if shape == ELLIPSOID:
        a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1.0
        root = b * b - a * c
        if root <= 0:
            return NO_HIT, -NO_HIT
        root = math.sqrt(root)
        return (-b - root) / a, (-b + root) / a
    if shape == CYLINDER:
        a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1.0
        root = b * b - a * c
        if root <= 0 or a < 1e-12:
            return NO_HIT, -NO_HIT
        root = math.sqrt(root)
        z0, z1 = _slab(oz, dz)
        return greater((-b - root) / a, z0), lesser((-b + root) / a, z1)
    return _cone_span(ox, oy, oz, dx, dy, dz)


@nb.njit(fastmath=True, error_model="numpy")
def _past_hole(p, enter, leave, ox, oy, oz, dx, dy, dz):
    """First hit of a convex shape with a hole: its own surface, or the hole's from inside."""
    ex, ey, ez = (ox - p[28]) * p[31], (oy - p[29]) * p[32], (oz - p[30]) * p[33]
    fx, fy, fz = dx * p[31], dy * p[32], dz * p[33]
    a, b, c = fx * fx + fy * fy + fz * fz, ex * fx + ey * fy + ez * fz, ex * ex + ey * ey + ez * ez - 1.0
    root = b * b - a * c
    into, out = NO_HIT, -NO_HIT
    if a < 1e-12:
        if c < 0:
            into, out = -NO_HIT, NO_HIT
    elif root > 0:
        root = math.sqrt(root)
        into, out = (-b - root) / a, (-b + root) / a
    if enter > NEAR and (enter < into or enter > out):
        return enter
    inside_solid = enter <= NEAR and (into > NEAR or out < NEAR)
    return out if not inside_solid and NEAR < out < leave else NO_HIT


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def _quartic(s, c3, c2, c1, c0):
    return (((s + c3) * s + c2) * s + c1) * s + c0


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def _slope(s, c3, c2, c1):
    return ((4.0 * s + 3.0 * c3) * s + 2.0 * c2) * s + c1


@nb.njit(fastmath=True, error_model="numpy")
def _torus_hit(tube, ox, oy, oz, dx, dy, dz):
    """First hit of the torus with a tube of radius ``tube`` whose outer radius is 1.

    The quartic along the ray is monotone between the roots of its slope, which lie between those of its bend: each is bracketed and
    bisected, so that no case is lost.
    """
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx / length, dy / length, dz / length
    b = ox * dx + oy * dy + oz * dz
    root = b * b - (ox * ox + oy * oy + oz * oz - 1.001)
    if root <= 0:
        return NO_HIT
    root = math.sqrt(root)
    z0, z1 = _slab(oz / (1.001 * tube), dz / (1.001 * tube))
    start, end = greater(greater(-b - root, z0), 0.0), lesser(-b + root, z1)
    if end <= start:
        return NO_HIT
    ox, oy, oz = ox + start * dx, oy + start * dy, oz + start * dz
    end -= start
    ring = 1.0 - tube
    beta, gamma = ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz + ring * ring - tube * tube
    four = 4.0 * ring * ring
    c3 = 4.0 * beta
    c2 = 4.0 * beta * beta + 2.0 * gamma - four * (dx * dx + dy * dy)
    c1 = 4.0 * beta * gamma - 2.0 * four * (ox * dx + oy * dy)
    c0 = gamma * gamma - four * (ox * ox + oy * oy)
    bends = 9.0 * c3 * c3 - 24.0 * c2
    first = second = 0.0
    if bends > 0:
        bends = math.sqrt(bends)
        first, second = lesser(greater((-3.0 * c3 - bends) / 12.0, 0.0), end), lesser(greater((-3.0 * c3 + bends) / 12.0, 0.0), end)
    value, low = c0, 0.0
    for piece in range(6):
        # Ends of monotone pieces in order: a root of the slope in each third between the bends, then the bend itself.
        if piece % 2 == 0:
            high = first if piece == 0 else second if piece == 2 else end
            a, z = low, high
            rising = _slope(a, c3, c2, c1)
            if rising * _slope(z, c3, c2, c1) < 0:
                for _ in range(40):
                    middle = 0.5 * (a + z)
                    if rising * _slope(middle, c3, c2, c1) > 0:
                        a = middle
                    else:
                        z = middle
                stop = 0.5 * (a + z)
            else:
                stop = high
        else:
            stop = first if piece == 1 else second if piece == 3 else end
        there = _quartic(stop, c3, c2, c1, c0)
        if value > 0 and there <= 0:
            a, z = low, stop
            for _ in range(40):
                middle = 0.5 * (a + z)
                if _quartic(middle, c3, c2, c1, c0) > 0:
                    a = middle
                else:
                    z = middle
            found = (start + z) / length
            return found if found > NEAR else NO_HIT
        value, low = there, stop
    return NO_HIT


@nb.njit(fastmath=True, error_model="numpy")
def _gauge(across, along, x, y, z):
    """How many times a point is farther out than the surface of a superquadric, and the gradient of that: a norm, so convex."""
    x1, y1, z1 = greater(abs(x), 1e-12), greater(abs(y), 1e-12), greater(abs(z), 1e-12)
    px, py = x1**across, y1**across
    around = (px + py) ** (1.0 / across)
    pr, pz = around**along, z1**along
    value = (pr + pz) ** (1.0 / along)
    outer = value / (pr + pz)
    inner = outer * pr / (px + py)
    return value, math.copysign(inner * px / x1, x), math.copysign(inner * py / y1, y), math.copysign(outer * pz / z1, z)


@nb.njit(fastmath=True, error_model="numpy")
def _superquadric_hit(across, along, ox, oy, oz, dx, dy, dz):
    """First hit of a convex superquadric by Newton's steps from outside, which never pass the root of a convex function."""
    enter, leave = _box_span(ox, oy, oz, dx, dy, dz)
    t = greater(enter, NEAR)
    for step in range(60):
        if t >= leave:
            return NO_HIT
        value, gx, gy, gz = _gauge(across, along, ox + t * dx, oy + t * dy, oz + t * dz)
        if value <= 1.0 + 1e-7:
            return t if step > 0 or enter > NEAR else NO_HIT
        slope = gx * dx + gy * dy + gz * dz
        if slope >= 0:
            return NO_HIT
        t -= (value - 1.0) / slope
    return t


@nb.njit(inline="always", fastmath=True, error_model="numpy")
def unit_hit(p, heights, ox, oy, oz, dx, dy, dz):
    """Nearest positive parameter at which a ray in a primitive's frame meets it, or NO_HIT."""
    shape = int(p[0])
    if shape <= CONE:
        enter, leave = _span(shape, ox, oy, oz, dx, dy, dz)
        if shape == ROOM:
            return leave if leave > NEAR else NO_HIT
        if enter >= leave or leave < NEAR:
            return NO_HIT
        if p[31] + p[32] + p[33] > 0:
            return _past_hole(p, enter, leave, ox, oy, oz, dx, dy, dz)
        return enter if enter > NEAR else NO_HIT
    if shape == CARD:
        t = -oz / dz if abs(dz) > 1e-9 else NO_HIT
        return t if t > NEAR and abs(ox + t * dx) <= 1 and abs(oy + t * dy) <= 1 else NO_HIT
    if shape == TORUS:
        return _torus_hit(float(p[26]), ox, oy, oz, dx, dy, dz)
    if shape == SUPERQUADRIC:
        return _superquadric_hit(float(p[26]), float(p[27]), ox, oy, oz, dx, dy, dz)
    enter, leave = _box_span(ox, oy, 0.999 * oz, dx, dy, 0.999 * dz)  # a little higher, so that what lies flat at -1 is inside
    enter = greater(enter, NEAR)
    return height_hit(heights, int(p[26]), enter, leave, ox, oy, oz, dx, dy, dz) if enter < leave else NO_HIT


@nb.njit(fastmath=True, error_model="numpy")
def local_normal(p, heights, x, y, z):
    """Outward direction, of any length, of the unit shape at a hit; relief is smoothed, for shading."""
    shape = int(p[0])
    if shape <= CONE and p[31] + p[32] + p[33] > 0:
        ex, ey, ez = (x - p[28]) * p[31], (y - p[29]) * p[32], (z - p[30]) * p[33]
        if abs(ex * ex + ey * ey + ez * ez - 1.0) < 2e-3:
            return -ex * p[31], -ey * p[32], -ez * p[33]
    if shape == ELLIPSOID:
        return x, y, z
    if shape == CYLINDER and abs(z) < 0.999:
        return x, y, 0.0
    if shape == CONE and z > -0.999:
        return x, y, 0.25 * (1.0 - z)
    if shape <= BOX:
        ax, ay, az = abs(x), abs(y), abs(z)
        if ax >= ay and ax >= az:
            return sign(x), 0.0, 0.0
        if ay >= az:
            return 0.0, sign(y), 0.0
        return 0.0, 0.0, sign(z)
    if shape == TORUS:
        around = math.sqrt(x * x + y * y) + 1e-12
        out = (around - (1.0 - p[26])) / around
        return x * out, y * out, z
    if shape == SUPERQUADRIC:
        _, gx, gy, gz = _gauge(float(p[26]), float(p[27]), x, y, z)
        return gx, gy, gz
    if shape == RELIEF:
        slope_x, slope_y = height_slope(heights, int(p[26]), x, y)
        return -slope_x, -slope_y, 1.0
    return 0.0, 0.0, 1.0


@nb.njit(fastmath=True, error_model="numpy")
def true_normal(p, heights, x, y, z):
    """As ``local_normal``, but of the very surface that rays meet: relief in the facets between its heights."""
    if int(p[0]) == RELIEF:
        slope_x, slope_y = height_gradient(heights, int(p[26]), x, y)
        return -slope_x, -slope_y, 1.0
    return local_normal(p, heights, x, y, z)
