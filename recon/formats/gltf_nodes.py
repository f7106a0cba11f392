"""The node tree of a glTF document: which primitives there are, and where each stands.

Input: the parsed JSON of a glTF file. Output: primitives with the similarity from their own frame to the file's world.
Does not: read buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .conventions import Similarity
from .reading import BadFile, number_list


def placed_primitives(document: dict[str, Any], extension: str) -> list[tuple[dict[str, Any], Similarity]]:
    """Find every primitive with ``extension`` in the default scene (all nodes when there is no scene).

    Raises:
        BadFile: the tree has a loop, points outside itself, or squeezes a scene unevenly.
    """
    nodes, meshes = _objects(document, "nodes"), _objects(document, "meshes")
    found: list[tuple[dict[str, Any], Similarity]] = []
    stack = [(root, Similarity()) for root in _roots(document, len(nodes))]
    visited: set[int] = set()
    while stack:
        index, parent = stack.pop()
        if index in visited or not 0 <= index < len(nodes):
            raise BadFile("its node tree reaches a node twice, or points to one that is not there.")
        visited.add(index)
        node = nodes[index]
        mesh = node.get("mesh")
        children = _integers(node.get("children", []))
        if mesh is None and not children:
            continue
        place = parent.after(_local(node))
        if mesh is not None:
            if type(mesh) is not int or not 0 <= mesh < len(meshes):
                raise BadFile("a node points to a mesh that is not there.")
            found += [(primitive, place) for primitive in _objects(meshes[mesh], "primitives") if _carries(primitive, extension)]
        stack += [(child, place) for child in reversed(children)]
    return found


def _carries(primitive: dict[str, Any], extension: str) -> bool:
    extensions = primitive.get("extensions")
    return isinstance(extensions, dict) and extension in extensions


def _objects(container: dict[str, Any], key: str) -> list[dict[str, Any]]:
    content = container.get(key, [])
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise BadFile(f"its {key!r} is not a list of objects.")
    return content


def _integers(content: Any) -> list[int]:
    if not isinstance(content, list) or not all(type(item) is int for item in content):
        raise BadFile("its node tree holds something that is not a node number.")
    return content


def _roots(document: dict[str, Any], count: int) -> list[int]:
    scenes, scene = _objects(document, "scenes"), document.get("scene", 0)
    if not scenes:
        inner = {child for node in _objects(document, "nodes") for child in _integers(node.get("children", []))}
        return [index for index in range(count) if index not in inner]
    if type(scene) is not int or not 0 <= scene < len(scenes):
        raise BadFile("its default scene is not there.")
    return _integers(scenes[scene].get("nodes", []))


def _local(node: dict[str, Any]) -> Similarity:
    """The node's own transform, which must be a similarity: Gaussians cannot be sheared."""
    if "matrix" in node:
        M = number_list(node, "matrix", "a node", 16).reshape(4, 4).T.astype(np.float64)
        lengths = np.linalg.norm(M[:3, :3], axis=0)
        R, shift = M[:3, :3] / np.maximum(lengths, 1e-12), M[:3, 3]
    else:
        lengths = number_list({"scale": [1, 1, 1]} | node, "scale", "a node", 3).astype(np.float64)
        shift = number_list({"translation": [0, 0, 0]} | node, "translation", "a node", 3)
        x, y, z, w = number_list({"rotation": [0, 0, 0, 1]} | node, "rotation", "a node", 4).astype(np.float64)
        norm = max(np.sqrt(x * x + y * y + z * z + w * w), 1e-12)
        x, y, z, w = x / norm, y / norm, z / norm, w / norm
        R = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
    scale = float(lengths.mean())
    if (
        scale <= 0
        or np.abs(lengths - scale).max() > 1e-3 * scale
        or np.abs(R @ R.T - np.eye(3)).max() > 1e-3
        or np.linalg.det(R) < 0
    ):
        raise BadFile("a node squeezes, mirrors or shears its splats, which is not supported.")
    return Similarity(
        R_new_old=torch.tensor(R, dtype=torch.float32), scale=scale, shift=torch.tensor(np.array(shift), dtype=torch.float32)
    )
