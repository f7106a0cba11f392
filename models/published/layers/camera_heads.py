"""Heads that read cameras off tokens, and the codes they speak.

Input: tokens. Output: pose codes or camera matrices, in the direction the network was trained with; each says which.
Does not: convert to our records (``models.published.doors`` does).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recon.geometry import quats_to_rotations, rotations_to_quats

from .transformer import Block, BlockConfig, Mlp


def quaternion_to_matrix(q_xyzw: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3 3"]:
    """Turn quaternions of any length, scalar last, into rotations."""
    return quats_to_rotations(q_xyzw.roll(1, -1))


def matrix_to_quaternion(R: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """Turn rotations into unit quaternions, scalar last and not negative."""
    return rotations_to_quats(R).roll(-1, -1)


def invert_rigid(T: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 4 4"]:
    """Invert rigid transforms in closed form."""
    R = T[..., :3, :3].transpose(-1, -2)
    return rigid(R, -(R @ T[..., :3, 3:]).squeeze(-1))


def rigid(R: Float[Tensor, "*B 3 3"], t: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4 4"]:
    """Stack rotations and translations into 4x4 matrices."""
    top = torch.cat((R, t[..., None]), dim=-1)
    bottom = t.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*t.shape[:-1], 1, 4)
    return torch.cat((top, bottom), dim=-2)


def decode_pose(
    code: Float[Tensor, "*B 9"], height: int, width: int, *, tangent_offset: float = 0.0, tangent_floor: float = 0.0
) -> tuple[Float[Tensor, "*B 4 4"], Float[Tensor, "*B 3 3"]]:
    """Turn codes [translation, quaternion xyzw, vertical and horizontal field of view in radians] into matrices.

    Args:
        height: of the image in pixels; the principal point is its centre.
        tangent_offset: added to the tangents of the half angles (AnySplat).
        tangent_floor: least tangent (DA3).

    Returns:
        The rigid transform in the network's own direction, and K in pixels.
    """
    tangents = (code[..., 7:9] / 2).tan() + tangent_offset
    if tangent_floor:
        tangents = tangents.clamp_min(tangent_floor)
    fy, fx = (height / 2) / tangents[..., 0], (width / 2) / tangents[..., 1]
    K = code.new_zeros(*code.shape[:-1], 3, 3)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = fx, fy, width / 2, height / 2, 1.0
    return rigid(quaternion_to_matrix(code[..., 3:7]), code[..., :3]), K


class IterativeCameraHead(nn.Module):
    """Refine the pose codes of all views four times, from the views' camera tokens (VGGT, AnySplat).

    Each round embeds the code so far, modulates the tokens with it, lets the views attend to each other and adds a change.
    The code is world to camera.
    """

    ROUNDS = 4

    def __init__(self, dim: int) -> None:
        super().__init__()
        config = BlockConfig(dim=dim, heads=16, norm_eps=1e-5)
        self.trunk = nn.ModuleList(Block(config) for _ in range(4))
        self.token_norm = nn.LayerNorm(dim)
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.empty(1, 1, 9))
        self.embed_pose = nn.Linear(9, dim)
        self.modulation = nn.Linear(dim, 3 * dim)
        self.pose_branch = Mlp(dim, dim // 2, 9)

    def forward(self, camera_tokens: Float[Tensor, "V C"]) -> Float[Tensor, "I V 9"]:
        """Return the activated code after each round; the last is the answer."""
        tokens = self.token_norm(camera_tokens)[None]
        plain = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        raw, rounds = self.empty_pose_tokens.expand(1, tokens.shape[1], -1), []
        for index in range(self.ROUNDS):
            shift, scale, gate = self.modulation(F.silu(self.embed_pose(raw))).chunk(3, dim=-1)
            x = gate * (plain * (1 + scale) + shift) + tokens
            for block in self.trunk:
                x = block(x)
            change = self.pose_branch(self.trunk_norm(x))
            raw = change if index == 0 else raw + change
            rounds.append(torch.cat((raw[..., :7], raw[..., 7:].relu()), dim=-1)[0])
        return torch.stack(rounds)


class DirectCameraHead(nn.Module):
    """Two linear layers and three outputs per view: translation, quaternion xyzw, fields of view (DA3). Camera to world."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_qvec = nn.Linear(dim, 4)
        self.fc_fov = nn.Linear(dim, 2)

    def forward(self, camera_tokens: Float[Tensor, "V C"]) -> Float[Tensor, "V 9"]:
        x = self.backbone(camera_tokens)
        return torch.cat((self.fc_t(x), self.fc_qvec(x), self.fc_fov(x).relu()), dim=-1)


class CameraEncoder(nn.Module):
    """Turn known cameras into one token per view (DA3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        config = BlockConfig(dim=dim, heads=16, norm_eps=1e-5)
        self.pose_branch = Mlp(9, dim // 2, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(Block(config) for _ in range(4))
        self.trunk_norm = nn.LayerNorm(dim)

    def forward(
        self, T_cam_world: Float[Tensor, "V 4 4"], K: Float[Tensor, "V 3 3"], height: int, width: int
    ) -> Float[Tensor, "V C"]:
        """Encode cameras whose world is already view 0 and whose translations are already scaled."""
        T_world_cam = invert_rigid(T_cam_world)
        fields = torch.stack((2 * torch.atan(height / 2 / K[:, 1, 1]), 2 * torch.atan(width / 2 / K[:, 0, 0])), dim=-1)
        code = torch.cat((T_world_cam[:, :3, 3], matrix_to_quaternion(T_world_cam[:, :3, :3]), fields), dim=-1)
        x = self.token_norm(self.pose_branch(code))[None]
        for block in self.trunk:
            x = block(x)
        return self.trunk_norm(x)[0]


class ResidualMlp(nn.Module):
    """Three linear layers with ReLU around a skip."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        y = x
        for layer in self.layers:
            y = layer(y).relu()
        return x + y


class PooledCameraHead(nn.Module):
    """Average a view's patch tokens and read off a translation and a rotation by SVD (Pi3, YoNoSplat). Camera to world."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.residual = nn.ModuleList(ResidualMlp(dim) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_rot = nn.Linear(dim, 9)

    def forward(self, patch_tokens: Float[Tensor, "V P C"]) -> Float[Tensor, "V 4 4"]:
        x = patch_tokens
        for block in self.residual:
            x = block(x)
        x = self.mlp(x.mean(dim=1))
        return rigid(nearest_rotation(self.fc_rot(x).unflatten(-1, (3, 3))), self.fc_t(x))


class PooledQuaternionHead(nn.Module):
    """Mix a view's patches one by one, average them and read off a translation and a quaternion (MapAnything). Camera to world."""

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim_in, dim, 1)
        self.residual = nn.ModuleList(nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in range(3)) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_rot = nn.Linear(dim, 4)

    def forward(
        self, patch_tokens: Float[Tensor, "V P C"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "V 4 4"], Float[Tensor, "V 4"]]:
        """Return the rigid transforms and their unit quaternions, scalar last."""
        x = self.proj(patch_tokens.transpose(1, 2).unflatten(2, grid))
        for block in self.residual:
            y = x
            for layer in cast(nn.ModuleList, block):
                y = layer(y).relu()
            x = x + y
        x = self.mlp(x.mean(dim=(2, 3)))
        quaternion = F.normalize(self.fc_rot(x), dim=-1)
        return rigid(quaternion_to_matrix(quaternion), self.fc_t(x)), quaternion


def nearest_rotation(M: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3 3"]:
    """Find the rotation nearest to a matrix whose rows are first scaled to unit length."""
    U, _, Vt = torch.linalg.svd(F.normalize(M, dim=-1).transpose(-1, -2))
    V, Ut = Vt.transpose(-1, -2), U.transpose(-1, -2)
    flip = torch.ones_like(M[..., 0])
    flip[..., 2] = torch.linalg.det(V @ Ut)
    return (V * flip[..., None, :]) @ Ut
