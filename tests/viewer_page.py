"""A page of the viewer without a browser: speaks viser's protocol, goes where it is sent, keeps what it is shown."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import viser
import zstandard
from PIL import Image
from viser import transforms
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Page:
    """One visitor.

    Args:
        port: of the viewer on this machine.
        width: of the canvas in pixels.
        height: likewise.
        hint_seen: what the page remembers of the first-time hint.
    """

    def __init__(self, port: int, width: int = 240, height: int = 180, *, hint_seen: bool = True) -> None:
        self.width, self.height = width, height
        self.position, self.look_at, self.up = np.array([0.0, 0.0, -10.0]), np.zeros(3), np.array([0.0, -1.0, 0.0])
        self.fov = 0.9
        self.pictures: list[bytes] = []
        self.nodes: dict[str, dict[str, Any]] = {}
        self.controls: dict[str, tuple[str, dict[str, Any]]] = {}
        self.commands: dict[str, str] = {}
        self.notes: list[str] = []
        self.modals: list[str] = []
        self.files: list[tuple[str, bytes]] = []
        self._sent = False
        self.storage = {"recon-viewer-hint": "seen"} if hint_seen else {}
        self.socket = connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=[f"viser-v{viser.__version__}"],  # pyright: ignore[reportArgumentType]
            max_size=None,
            compression=None,
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.tell_camera()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._thread.join(timeout=10)

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    @property
    def R_page_cam(self) -> np.ndarray:
        ahead = (self.look_at - self.position) / np.linalg.norm(self.look_at - self.position)
        right = np.cross(ahead, self.up)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(ahead, right), ahead], axis=1)

    def tell_camera(self) -> None:
        self.send(
            "ViewerCameraMessage",
            wxyz=transforms.SO3.from_matrix(self.R_page_cam).wxyz.tolist(),
            position=self.position.tolist(),
            fov=self.fov,
            near=0.01,
            far=1e4,
            image_height=self.height,
            image_width=self.width,
            look_at=self.look_at.tolist(),
            up_direction=self.up.tolist(),
        )

    def move(self, by: tuple[float, float, float]) -> None:
        """Shift the camera in the page."""
        self.position, self.look_at = self.position + np.array(by), self.look_at + np.array(by)
        self.tell_camera()

    def set(self, label: str, value: Any) -> None:
        """Use a control of the panel."""
        self.send("GuiUpdateMessage", uuid=self.control(label)[0], updates={"value": value})

    def press(self, label: str) -> None:
        self.set(label, True)

    def key(self, label: str) -> None:
        """Trigger a command, as its key does."""
        wait_until(lambda: label in self.commands)
        self.send("CommandTriggerMessage", uuid=self.commands[label])

    def control(self, label: str) -> tuple[str, dict[str, Any]]:
        wait_until(lambda: label in self.controls)
        return self.controls[label]

    def click(self, x: float, y: float) -> None:
        """Click on the canvas, pixels."""
        focal = self.height / (2 * math.tan(self.fov / 2))
        local = np.array([(x - self.width / 2) / focal, (y - self.height / 2) / focal, 1.0])
        ray = self.R_page_cam @ (local / np.linalg.norm(local))
        self.send(
            "ScenePointerMessage",
            event_type="click",
            ray_origin=self.position.tolist(),
            ray_direction=ray.tolist(),
            screen_pos=[[x / self.width, y / self.height]],
            modifier=None,
        )

    def picture(self, at: int = -1) -> np.ndarray:
        """A picture that was received, uint8 ``H W 3``."""
        return np.asarray(Image.open(io.BytesIO(self.pictures[at])).convert("RGB"))

    def settled(self, still_s: float = 0.8, timeout_s: float = 60.0) -> np.ndarray:
        """Wait until no picture has come for a while; the last one."""
        deadline = time.monotonic() + timeout_s
        count, since = len(self.pictures), time.monotonic()
        while time.monotonic() < deadline and (time.monotonic() - since < still_s or not self.pictures):
            if len(self.pictures) != count:
                count, since = len(self.pictures), time.monotonic()
            time.sleep(0.02)
        return self.picture()

    def _listen(self) -> None:
        try:
            while True:
                raw = self.socket.recv()
                assert isinstance(raw, bytes)
                size = int.from_bytes(raw[8:16], "little")
                plain = zstandard.ZstdDecompressor().decompress(raw[16 : 16 + size], max_output_size=2**28)
                content = msgspec.msgpack.decode(plain)
                for message in content["messages"]:
                    self._hear(message, content["binaryBufferLengths"])
                if self._sent:
                    self._sent = False
                    self.tell_camera()
        except ConnectionClosed:
            return

    def _hear(self, message: dict[str, Any], lengths: list[int]) -> None:
        kind = message["type"]
        if kind == "BackgroundImageMessage" and message["rgb_data"] is not None:
            self.pictures.append(message["rgb_data"])
        elif kind in CAMERA_PARTS:
            value = next(value for name, value in message.items() if name not in ("type", "owner"))
            is_angle = kind == "SetCameraFovMessage"
            setattr(self, CAMERA_PARTS[kind], float(value) if is_angle else np.asarray(value, np.float64))
            self._sent = True
        elif kind == "RemoveSceneNodeMessage":
            self.nodes.pop(message["name"], None)
        elif kind == "SetSceneNodeVisibilityMessage" and message["name"] in self.nodes:
            self.nodes[message["name"]]["visible"] = message["visible"]
        elif kind == "GuiUpdateMessage":
            for uuid, props in self.controls.values():
                if uuid == message["uuid"]:
                    props.update(message["updates"])
        elif kind == "RegisterCommandMessage":
            self.commands[message["props"]["label"]] = message["uuid"]
        elif kind == "NotificationShowMessage" or kind == "NotificationMessage":
            self.notes.append(f"{message['props']['title']}: {message['props']['body']}")
        elif kind == "GuiModalMessage":
            self.modals.append(message["title"])
        elif kind == "LocalStorageGetItemRequestMessage":
            value = self.storage.get(message["key"])
            self.send("LocalStorageGetItemResponseMessage", request_uuid=message["request_uuid"], value=value, error=None)
        elif kind == "LocalStorageSetItemMessage":
            self.storage[message["key"]] = message["value"]
        elif kind == "FileTransferStartDownload":
            self.files.append((message["filename"], b""))
        elif kind == "FileTransferPart":
            self.files[-1] = self.files[-1][0], self.files[-1][1] + message["content"]
        elif "name" in message and "props" in message:
            owner = message.get("owner", "")
            self.nodes[message["name"]] = {"owner": owner, "props": message["props"], "visible": True, "lengths": lengths}
        elif "uuid" in message and isinstance(message.get("props"), dict) and "label" in message["props"]:
            self.controls[message["props"]["label"]] = message["uuid"], {"value": message.get("value"), **message["props"]}

    def count(self, node: str) -> int:
        """Gaussians or points of a node; 0 when it is not there."""
        entry = self.nodes.get(node)
        if entry is None:
            return 0
        field = "buffer" if "buffer" in entry["props"] else "points"
        index = entry["props"][field]["__binary_index"]
        return entry["lengths"][index] // (32 if field == "buffer" else 12)


CAMERA_PARTS = {
    "SetCameraPositionMessage": "position",
    "SetCameraLookAtMessage": "look_at",
    "SetCameraUpDirectionMessage": "up",
    "SetCameraFovMessage": "fov",
}


def wait_until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for something, or fail."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
