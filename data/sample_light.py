"""A small path tracer on the CPU: two area lights, sun through a window, bumps, gloss, three surfaces a path.

Input: a ``World`` and a pinhole camera. Output: linear radiance and z-depth per pixel.
Does not: model lenses, spectra or glass.

Sources: bump mapping: Blinn, 1978; sample points: additive recurrences of square roots; light is smoothed
across the pixels of a surface as in Dammertz et al., "Edge-avoiding A-Trous wavelet transform", 2010.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from .sample_tracer import EPSILON, FAR, World, trace

DIMENSIONS = 12
ALPHAS = np.sqrt(np.array([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0, 31.0, 37.0])) % 1.0
LCG_A, LCG_C, SHIFT = np.uint64(6364136223846793005), np.uint64(1442695040888963407), np.uint64(40)
LINEAR = (np.arange(256) / 255.0) ** 2.2
"""Stored byte to linear light."""


@njit(cache=True, inline="always")
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, inline="always")
def cross(a, b):
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@njit(cache=True, inline="always")
def plus(a, b, s):
    """a + s b."""
    return (a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2])


@njit(cache=True, inline="always")
def times(a, b):
    """Product of two colours."""
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


@njit(cache=True, inline="always")
def unit(a):
    s = 1.0 / math.sqrt(dot(a, a))
    return (a[0] * s, a[1] * s, a[2] * s)


@njit(cache=True, inline="always")
def vector(a):
    return (a[0], a[1], a[2])


@njit(cache=True)
def random(state):
    """Next uniform number in [0, 1) of a linear congruential generator."""
    state[0] = state[0] * LCG_A + LCG_C
    return np.float64(state[0] >> SHIFT) / 16777216.0


@njit(cache=True)
def seed_state(state, a, b):
    """Start a generator from two integers, well mixed."""
    state[0] = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F) + LCG_C
    for _ in range(4):
        random(state)
        state[0] ^= state[0] >> np.uint64(29)


@njit(cache=True)
def sample_texture(world, index, u, v):
    """Read a repeating texture bilinearly as linear light."""
    size = world.pixels.shape[1]
    x, y = (u - math.floor(u)) * size - 0.5, (v - math.floor(v)) * size - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    x1, y1 = (x0 + 1) % size, (y0 + 1) % size
    x0, y0 = x0 % size, y0 % size
    a, b, c, d = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    p = world.pixels[index]
    red = a * LINEAR[p[y0, x0, 0]] + b * LINEAR[p[y0, x1, 0]] + c * LINEAR[p[y1, x0, 0]] + d * LINEAR[p[y1, x1, 0]]
    green = a * LINEAR[p[y0, x0, 1]] + b * LINEAR[p[y0, x1, 1]] + c * LINEAR[p[y1, x0, 1]] + d * LINEAR[p[y1, x1, 1]]
    blue = a * LINEAR[p[y0, x0, 2]] + b * LINEAR[p[y0, x1, 2]] + c * LINEAR[p[y1, x0, 2]] + d * LINEAR[p[y1, x1, 2]]
    return red, green, blue


@njit(cache=True)
def surface_at(world, triangle, u, v, d):
    """Material, colour, and bumped unit normal towards the viewer at a hit."""
    material = world.material[triangle]
    w = 1.0 - u - v
    uv, normals, corners = world.uv[triangle], world.normals[triangle], world.corners[triangle]
    tex_u, tex_v = w * uv[0, 0] + u * uv[1, 0] + v * uv[2, 0], w * uv[0, 1] + u * uv[1, 1] + v * uv[2, 1]
    texture = world.texture[material]
    albedo = sample_texture(world, texture, tex_u, tex_v)
    start = vector(corners[0])
    e, f = plus(vector(corners[1]), start, -1.0), plus(vector(corners[2]), start, -1.0)
    flat = unit(cross(e, f))
    normal = plus(plus((w * normals[0, 0], w * normals[0, 1], w * normals[0, 2]), normals[1], u), normals[2], v)
    bump = world.surface[material, 2]
    if bump > 0.0:
        step = 0.7 / world.pixels.shape[1]
        here = math.sqrt(dot(albedo, (1.0, 1.0, 1.0)))
        du = bump * (math.sqrt(dot(sample_texture(world, texture, tex_u + step, tex_v), (1.0, 1.0, 1.0))) - here) / step
        dv = bump * (math.sqrt(dot(sample_texture(world, texture, tex_u, tex_v + step), (1.0, 1.0, 1.0))) - here) / step
        a0, a1, b0, b1 = uv[1, 0] - uv[0, 0], uv[1, 1] - uv[0, 1], uv[2, 0] - uv[0, 0], uv[2, 1] - uv[0, 1]
        det = a0 * b1 - a1 * b0
        if abs(det) > 1e-12:
            along_u = plus((e[0] * b1 / det, e[1] * b1 / det, e[2] * b1 / det), f, -a1 / det)
            along_v = plus((f[0] * a0 / det, f[1] * a0 / det, f[2] * a0 / det), e, -b0 / det)
            normal = plus(plus(normal, along_u, -du / dot(along_u, along_u)), along_v, -dv / dot(along_v, along_v))
    if dot(flat, d) > 0.0:
        flat = (-flat[0], -flat[1], -flat[2])
    if dot(normal, flat) < 0.0:
        normal = (-normal[0], -normal[1], -normal[2])
    normal = unit(normal)
    return material, albedo, unit(plus(normal, flat, max(0.0, 0.05 - dot(normal, flat))))


@njit(cache=True)
def about(axis, cosine, angle):
    """Unit vector at a given cosine and azimuth about a unit axis."""
    helper = (0.0, 0.0, 1.0) if abs(axis[2]) < 0.9 else (1.0, 0.0, 0.0)
    x = unit(cross(helper, axis))
    y = cross(axis, x)
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    s, c = sine * math.sin(angle), sine * math.cos(angle)
    return (c * x[0] + s * y[0] + cosine * axis[0], c * x[1] + s * y[1] + cosine * axis[1], c * x[2] + s * y[2] + cosine * axis[2])


@njit(cache=True)
def light_from(world, stack, which, point, normal, a, b):
    """Irradiance that light ``which`` (the last one is the sun) sends to a point through one sampled direction."""
    if which < world.lights.shape[0]:
        light = world.lights[which]
        way = plus(plus(plus(vector(light[0]), light[1], a), light[2], b), point, -1.0)
        distance = math.sqrt(dot(way, way))
        way = unit(way)
        cosine = dot(normal, way)
        if cosine > 0.0:
            solid = min(abs(dot(cross(light[1], light[2]), way)) / (distance * distance), 2.0)  # tames points beside the light
            if trace(world, stack, point, way, distance * (1 - 1e-4) - EPSILON, True)[1] < 0:
                s = cosine * solid
                return (s * light[3, 0], s * light[3, 1], s * light[3, 2])
        return (0.0, 0.0, 0.0)
    way = about(vector(world.sun[0]), 1.0 - a * (1.0 - math.cos(world.sun[2, 0])), 2 * math.pi * b)
    cosine = dot(normal, way)
    corner, side, up = vector(world.lights[0, 0]), vector(world.lights[0, 1]), vector(world.lights[0, 2])
    facing = cross(side, up)
    slope = dot(facing, way)
    if cosine > 0.0 and abs(slope) > 1e-9:
        t = dot(facing, plus(corner, point, -1.0)) / slope
        at = plus(plus(point, way, t), corner, -1.0)
        inside = 0 < dot(at, side) < dot(side, side) and 0 < dot(at, up) < dot(up, up)
        if t > 0 and inside and trace(world, stack, point, way, t * (1 - 1e-4) - EPSILON, True)[1] < 0:
            return (cosine * world.sun[1, 0], cosine * world.sun[1, 1], cosine * world.sun[1, 2])
    return (0.0, 0.0, 0.0)


@njit(cache=True)
def mirrored(world, stack, o, d, normal, roughness, a, b, state):
    """Radiance that a glossy surface sees in a direction about the mirrored ray; one light and ``ambient`` light what it sees."""
    mirror = unit(plus(d, normal, -2 * dot(normal, d)))
    exponent = 2.0 / max(roughness, 1e-3) ** 4
    way = about(mirror, max(a, 1e-6) ** (1.0 / (exponent + 1.0)), 2 * math.pi * b)
    if dot(way, normal) <= 0.0:
        return (0.0, 0.0, 0.0)
    t, triangle, u, v = trace(world, stack, o, way, FAR, False)
    if triangle < 0:
        return (0.0, 0.0, 0.0)
    material, albedo, turned = surface_at(world, triangle, u, v, way)
    if world.surface[material, 3] > 0.0:
        return plus((0.0, 0.0, 0.0), albedo, world.surface[material, 3])
    point = plus(plus(o, way, t), turned, 2 * EPSILON)
    lights = world.lights.shape[0] + 1
    which = min(int(random(state) * lights), lights - 1)
    light = light_from(world, stack, which, point, turned, random(state), random(state))
    return times(albedo, plus(vector(world.ambient), light, lights / math.pi))


@njit(cache=True)
def light_later(world, stack, o, d, state):
    """Radiance that comes from other surfaces: each of two is lit by one random light, ``ambient`` stands for the rest."""
    out, weight = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    lights = world.lights.shape[0] + 1
    for bounce in range(2):
        t, triangle, u, v = trace(world, stack, o, d, FAR, False)
        if triangle < 0:
            break
        material, albedo, normal = surface_at(world, triangle, u, v, d)
        if world.surface[material, 3] > 0.0:  # lights were asked directly
            break
        point = plus(plus(o, d, t), normal, 2 * EPSILON)
        weight = times(weight, albedo)
        which = min(int(random(state) * lights), lights - 1)
        light = light_from(world, stack, which, point, normal, random(state), random(state))
        out = plus(out, times(weight, light), lights / math.pi)
        if bounce == 1:
            out = plus(out, times(weight, vector(world.ambient)), 1.0)
        o, d = point, about(normal, math.sqrt(1.0 - random(state)), 2 * math.pi * random(state))
    return out


@njit(cache=True)
def follow(world, stack, o, d, points, state, lit):
    """Look along one ray from the camera.

    Returns:
        (emission, colour of the surface, its light from lamps and sun, its light from other surfaces, its mirror image);
        the last three only if ``lit``.
    """
    none = (0.0, 0.0, 0.0)
    t, triangle, u, v = trace(world, stack, o, d, FAR, False)
    if triangle < 0:
        return none, none, none, none, none
    material, tint, normal = surface_at(world, triangle, u, v, d)
    reflect, roughness, _, emission = world.surface[material]
    if emission > 0.0:
        return plus(none, tint, emission), none, none, none, none
    if not lit:
        return none, tint, none, none, none
    point = plus(plus(o, d, t), normal, 2 * EPSILON)
    lamps, image = none, none
    if reflect > 0.0:
        fresnel = reflect + (1 - reflect) * (1 - min(max(-dot(normal, d), 0.0), 1.0)) ** 5 * (1 - roughness)
        image = mirrored(world, stack, point, d, normal, roughness, points[7], points[8], state)
        image = plus(none, times(image, tint) if reflect > 0.3 else image, fresnel)  # metal tints what it mirrors
    for which in range(world.lights.shape[0] + 1):
        light = light_from(world, stack, which, point, normal, points[2 * which], points[2 * which + 1])
        lamps = plus(lamps, light, 1.0 / math.pi)
    way = about(normal, math.sqrt(1.0 - points[9]), 2 * math.pi * points[10])
    return none, tint, lamps, light_later(world, stack, point, way, state), image


@njit(cache=True, inline="always")
def add_to(buffer, row, column, value, weight, limit):
    for k in range(3):
        buffer[row, column, k] += min(value[k], limit) * weight


@njit(cache=True, parallel=True)
def render_paths(world, K, T_world_cam, width, height, rays, lit_every, seed):
    """Average ``rays`` per pixel, of which every ``lit_every``-th asks for light.

    Returns:
        emission, tint, lamps, later and image ``H W 3`` as in ``follow``, z-depth ``H W`` and normals of the pixel centres.
    """
    emission, tint, lamps = np.zeros((height, width, 3)), np.zeros((height, width, 3)), np.zeros((height, width, 3))
    later, image = np.zeros((height, width, 3)), np.zeros((height, width, 3))
    depth, facing = np.zeros((height, width)), np.zeros((height, width, 3))
    center = (T_world_cam[0, 3], T_world_cam[1, 3], T_world_cam[2, 3])
    R = np.ascontiguousarray(T_world_cam[:3, :3].T)  # rows are the camera's axes in the world
    share = 1.0 / ((rays + lit_every - 1) // lit_every)
    for row in prange(height):
        state, stack = np.zeros(1, np.uint64), np.empty(64, np.int32)
        points, offset = np.empty(DIMENSIONS), np.empty(DIMENSIONS + 1)
        for column in range(width):
            seed_state(state, seed * height + row, column)
            for k in range(DIMENSIONS + 1):
                offset[k] = random(state)
            for s in range(-1, rays):
                for k in range(DIMENSIONS):
                    points[k] = (offset[k] + (s + 1) * ALPHAS[k]) % 1.0
                x, y = column + 0.5, row + 0.5
                if s >= 0:  # a Gaussian pixel filter of 0.45 px
                    r = 0.45 * math.sqrt(-2 * math.log(max(points[11], 1e-4)))
                    angle = 2 * math.pi * (offset[12] + (s + 0.5) / rays)
                    x, y = x + r * math.cos(angle), y + r * math.sin(angle)
                x, y = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
                ray = unit(plus(plus((0.0, 0.0, 0.0), R[0], x), plus(vector(R[2]), R[1], y), 1.0))
                if s < 0:
                    t, triangle, u, v = trace(world, stack, center, ray, FAR, False)
                    depth[row, column] = t / math.sqrt(x * x + y * y + 1.0)
                    add_to(facing, row, column, surface_at(world, triangle, u, v, ray)[2], 1.0, 1.0)
                    continue
                a, b, c, d, e = follow(world, stack, center, ray, points, state, s % lit_every == 0)
                add_to(emission, row, column, a, 1.0 / rays, 1.2)
                add_to(tint, row, column, b, 1.0 / rays, 1.0)
                add_to(lamps, row, column, c, share, 4.0)
                add_to(later, row, column, d, share, 1.5)
                add_to(image, row, column, e, share, 2.0)
    return emission, tint, lamps, later, image, depth, facing


@njit(cache=True, parallel=True)
def smooth(light, depth, facing, step):
    """Average ``light`` over 25 pixels that lie ``step`` apart, where depth and normal say that the surface is the same."""
    height, width, _ = light.shape
    out = np.zeros_like(light)
    kernel = (0.375, 0.25, 0.0625)
    for row in prange(height):
        for column in range(width):
            total = 0.0
            here = vector(facing[row, column])
            for i in range(-2, 3):
                for j in range(-2, 3):
                    y, x = row + i * step, column + j * step
                    if 0 <= y < height and 0 <= x < width:
                        away = abs(depth[y, x] - depth[row, column]) / (depth[row, column] * (0.01 + 0.004 * step))
                        weight = kernel[abs(i)] * kernel[abs(j)] * max(dot(here, facing[y, x]), 0.0) ** 8 * math.exp(-away * away)
                        total += weight
                        for k in range(3):
                            out[row, column, k] += weight * light[y, x, k]
            for k in range(3):
                out[row, column, k] /= total
    return out


def render_pixels(
    world: World, K: np.ndarray, T_world_cam: np.ndarray, size: tuple[int, int], *, rays: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render one picture: many rays for sharp edges and textures, every fourth for light, which is smoothed on each surface.

    Args:
        K: 3 3, pixels, corner of the image at (0, 0).
        T_world_cam: 4 4, OpenCV camera to world, metres.
        size: width and height, pixels.
        rays: rays per pixel.

    Returns:
        (linear radiance ``H W 3``, z-depth ``H W`` through the pixel centres, metres).
    """
    emission, tint, lamps, later, image, depth, facing = render_paths(world, K, T_world_cam, *size, rays, 4, seed)
    lamps = smooth(lamps, depth, facing, 1)
    for step in (1, 2):
        image = smooth(image, depth, facing, step)
    for step in (1, 2, 4):
        later = smooth(later, depth, facing, step)
    return emission + tint * (lamps + later) + image, depth
