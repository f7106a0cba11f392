"""The sample scene drawn by Cycles, the path tracer of Blender, as a library (``pip install bpy==5.0.1``, Python 3.11).

Input: parts, materials, textures and lights of ``sample_scene``, a camera. Output: linear radiance per pixel.
Does not: run anywhere but in ``make_sample``; nothing of the product imports it, and no file made elsewhere is read.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]
import numpy as np
from mathutils import Matrix, Vector  # pyright: ignore[reportMissingImports]

from . import sample_scene as scene
from .sample_shapes import Mesh

SENSOR_MM = 36.0
BOUNCES = 4


def build(painted: dict[str, np.ndarray], *, rays: int, threads: int) -> None:
    """Make the scene in Blender's memory."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    images = {name: load_image(name, pixels) for name, pixels in painted.items()}
    materials = {name: make_material(name, material, images[material.texture]) for name, material in scene.MATERIALS.items()}
    for name, mesh in scene.parts():
        thing = add_mesh(name, mesh, materials[name])
        thing.visible_shadow = name not in ("garden", "bulb")  # the sun shines through the picture of the garden
    for light in scene.LIGHTS:
        add_light(light)
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle, sun.color = scene.SUN_WATTS_M2, scene.SUN_RAD, scene.SUN_COLOR
    aim(bpy.data.objects.new("sun", sun), (0, 0, 0), scene.SUN_TOWARDS)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    link(camera)
    here = bpy.context.scene
    here.camera = camera
    here.render.engine = "CYCLES"
    here.render.threads_mode, here.render.threads = ("FIXED", threads) if threads else ("AUTO", 1)
    here.render.image_settings.file_format, here.render.image_settings.color_depth = "OPEN_EXR", "32"
    here.cycles.device = "CPU"
    here.cycles.samples, here.cycles.use_adaptive_sampling, here.cycles.adaptive_threshold = rays, True, 0.03
    here.cycles.max_bounces, here.cycles.diffuse_bounces = BOUNCES, 3
    here.cycles.sample_clamp_indirect = 4.0
    here.cycles.use_denoising, here.cycles.denoiser = True, "OPENIMAGEDENOISE"
    here.cycles.denoising_prefilter = "FAST"


def link(thing: bpy.types.Object) -> None:
    bpy.context.scene.collection.objects.link(thing)


def aim(thing: bpy.types.Object, center: tuple[float, ...], towards: tuple[float, ...]) -> None:
    """Place a light so that it shines along ``towards``."""
    thing.location = center
    thing.rotation_euler = Vector(towards).to_track_quat("-Z", "Y").to_euler()
    link(thing)


def add_light(light: scene.Light) -> None:
    lamp = bpy.data.lights.new("rectangle", "AREA")
    lamp.shape, lamp.size, lamp.size_y = "RECTANGLE", light.size[0], light.size[1]
    lamp.energy, lamp.color = light.watts, light.color
    thing = bpy.data.objects.new("rectangle", lamp)
    aim(thing, light.center, light.towards)
    thing.visible_camera = False


def load_image(name: str, pixels: np.ndarray) -> bpy.types.Image:
    """Hand over a texture; Blender counts rows from below."""
    height, width, _ = pixels.shape
    image = bpy.data.images.new(name, width, height)
    values = np.ones((height, width, 4), np.float32)
    values[..., :3] = pixels[::-1] / 255.0
    image.pixels.foreach_set(values.ravel())
    image.update()
    image.pack()
    return image


def make_material(name: str, material: scene.Material, image: bpy.types.Image) -> bpy.types.Material:
    """Translate a material into Blender's principled surface, mixed with a translucent one where light shines through."""
    made = bpy.data.materials.new(name)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    surface, output = nodes["Principled BSDF"], nodes["Material Output"]
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = image
    color = texture.outputs["Color"]
    if material.emission:
        surface.inputs["Base Color"].default_value = (0, 0, 0, 1)
        surface.inputs["Specular IOR Level"].default_value = 0.0
        surface.inputs["Emission Strength"].default_value = material.emission
        links.new(color, surface.inputs["Emission Color"])
        return made
    links.new(color, surface.inputs["Base Color"])
    surface.inputs["Roughness"].default_value = material.roughness
    metal = material.gloss > 0.3
    surface.inputs["Metallic"].default_value = float(metal)
    surface.inputs["Specular IOR Level"].default_value = 0.5 if metal else material.gloss / 0.08
    if material.bump_m:
        bump = nodes.new("ShaderNodeBump")
        bump.inputs["Distance"].default_value = material.bump_m
        links.new(color, bump.inputs["Height"])
        links.new(bump.outputs["Normal"], surface.inputs["Normal"])
    if material.shines_through:
        through, blend = nodes.new("ShaderNodeBsdfTranslucent"), nodes.new("ShaderNodeMixShader")
        links.new(color, through.inputs["Color"])
        blend.inputs["Fac"].default_value = material.shines_through
        links.new(surface.outputs[0], blend.inputs[1])
        links.new(through.outputs[0], blend.inputs[2])
        links.new(blend.outputs[0], output.inputs["Surface"])
    return made


def add_mesh(name: str, mesh: Mesh, material: bpy.types.Material) -> bpy.types.Object:
    """Hand over triangles with their own normals, which are turned to the side the triangles face."""
    made = bpy.data.meshes.new(name)
    corners = mesh.corners.reshape(-1, 3)
    made.from_pydata(corners.tolist(), [], np.arange(len(corners)).reshape(-1, 3).tolist())
    uv = mesh.uv.reshape(-1, 2) * [1, -1] + [0, 1]
    made.uv_layers.new().data.foreach_set("uv", uv.astype(np.float32).ravel())
    faces = np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0])
    side = np.where((mesh.normals * faces[:, None]).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    made.normals_split_custom_set((mesh.normals * side).reshape(-1, 3).tolist())
    made.materials.append(material)
    thing = bpy.data.objects.new(name, made)
    link(thing)
    return thing


def render(T_world_cam: np.ndarray, focal_px: float, size: tuple[int, int], seed: int) -> np.ndarray:
    """Draw one picture, ``H W 3`` linear; the camera looks along its z axis, y down."""
    here, (width, height) = bpy.context.scene, size
    camera = here.camera
    camera.data.sensor_fit, camera.data.sensor_width = "HORIZONTAL", SENSOR_MM
    camera.data.lens = focal_px / width * SENSOR_MM
    camera.data.clip_start = 0.01
    camera.matrix_world = Matrix((T_world_cam * [1, -1, -1, 1]).tolist())
    here.cycles.seed = seed
    here.render.resolution_x, here.render.resolution_y, here.render.resolution_percentage = width, height, 100
    with tempfile.TemporaryDirectory() as folder:
        here.render.filepath = str(Path(folder) / "radiance.exr")
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(here.render.filepath)
        image.colorspace_settings.name = "Non-Color"
        values = np.empty(height * width * 4, np.float32)
        image.pixels.foreach_get(values)
        bpy.data.images.remove(image)
    return values.reshape(height, width, 4)[::-1, :, :3].astype(np.float64)
