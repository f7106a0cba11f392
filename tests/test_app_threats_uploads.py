"""The threat model of the server (app/server/THREATS.md), second part: what visitors send."""

from __future__ import annotations

import io
import re
import socket
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from app_server import Running, cookies_of, form, picture, running, tiny_page, until
from PIL import Image

from app.server.limits import GB, Limits
from app.server.settings import RunSettings


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("open"), make_page=tiny_page) as made:
        yield made


def test_a_list_does_not_read_this_machine(served: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(picture(5))
    text = f"{secret}\n/etc/passwd\n".encode()
    with served.visitor() as me:
        for name in ("list.txt", "list.lst", "x.list"):
            sent = [("files", (name, text, "text/plain")), *form("a.jpg", "b.jpg")]
            done = until(me, me.post("/api/jobs", files=sent).json()["id"], "done", "failed")
            assert done["photos"] == ["a.jpg", "b.jpg"]
        sent = [("files", ("list.jpg", text, "image/jpeg")), *form("a.jpg", "b.jpg")]
        assert until(me, me.post("/api/jobs", files=sent).json()["id"], "done")["photos"] == ["a.jpg", "b.jpg"]


def zipped(members: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name, target in (links or {}).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, target)
    return file.getvalue()


def send_zip(me: httpx.Client, data: bytes) -> dict:
    answer = me.post("/api/jobs", files={"files": ("all.zip", data, "application/zip")})
    return until(me, answer.json()["id"], "done", "failed")


def test_archives_cannot_climb_or_link(served: Running) -> None:
    members = {"../../up.jpg": picture(1), "/abs.jpg": picture(2), "c:\\x.jpg": picture(3), "..\\b.jpg": picture(4)}
    good = {"a.jpg": picture(5), "sub/b.jpg": picture(6), "c.svg": b"<svg onload=alert(1)>", "masks/m.png": picture(1, kind="PNG")}
    with served.visitor() as me:
        done = send_zip(me, zipped(members | good, links={"link.jpg": "/etc/passwd", "dir.jpg": ".."}))
        assert (done["state"], done["photos"]) == ("done", ["a.jpg", "sub_b.jpg"])
    assert not [path for path in served.service.out.parent.rglob("*") if path.name in ("up.jpg", "abs.jpg", "x.jpg")]
    assert not [path for path in served.service.out.rglob("*") if path.is_symlink()]


def test_zip_bombs_stop(tmp_path: Path) -> None:
    bomb = zipped({f"{index}.jpg": b"\0" * 30_000_000 for index in range(3)})
    assert len(bomb) < 200_000
    many = zipped({f"{index}.jpg": b"" for index in range(700)})
    flat = zipped({"a.jpg": picture(1) + bytes(40_000_000)[:1], "b.jpg": picture(2)})
    with running(tmp_path, limits=Limits(keep_free_gb=0.0, max_upload_gb=0.05, max_files=600)) as served, served.visitor() as me:
        started = time.monotonic()
        for data, words in ((bomb, "far more than a photo"), (many, "No photo could be read|600")):
            done = send_zip(me, data)
            assert done["state"] == "failed"
            assert re.search(words, done["reason"]), done["reason"]
        assert send_zip(me, flat)["state"] == "done"
        assert time.monotonic() - started < 120
        left = sum(path.stat().st_size for path in served.service.out.rglob("*") if path.is_file())
        assert left < 3_000_000


def png_of(width: int, height: int) -> bytes:
    """A picture of zeros that claims a size and is small as a file."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(min(width * height * 3, 50_000_000)), 9)
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    packed = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_image_bombs_stop(served: Running) -> None:
    sent = [
        ("files", ("huge.png", png_of(60_000, 60_000), "image/png")),
        ("files", ("thin.png", png_of(100_000, 20), "image/png")),
        ("files", ("lie.png", png_of(13_000, 13_000), "image/png")),
        ("files", ("half.jpg", picture(3, size=(640, 480))[:2000], "image/jpeg")),
        *form("a.jpg", "b.jpg"),
    ]
    with served.visitor() as me:
        done = until(me, me.post("/api/jobs", files=sent).json()["id"], "done", "failed")
        assert (done["state"], done["photos"]) == ("done", ["a.jpg", "b.jpg"])


def test_pages_in_disguise_are_no_photos(served: Running) -> None:
    page = b"<html><script>alert(1)</script></html>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    both = b"\xff\xd8\xff\xe0" + page
    names = {"a.jpg": page, "b.png": svg, "c.webp": b"RIFF\x00\x00\x00\x00WEBP" + page, "d.gif": b"GIF89a" + page, "e.jpeg": both}
    sent = [("files", (name, data, "image/png")) for name, data in names.items()]
    sent += [("files", ("f.svg", svg, "image/svg+xml")), ("files", ("g.html", page, "text/html")), *form("good1.jpg", "good2.jpg")]
    with served.visitor() as me:
        done = until(me, me.post("/api/jobs", files=sent).json()["id"], "done", "failed")
        assert done["photos"] == ["good1.jpg", "good2.jpg"]
        for path in me.post("/gradio_api/upload", files=sent).json():
            assert me.get(f"/gradio_api/file={path}").status_code == 404
    tail = picture(9) + page  # a real photo with a page behind it loses the page
    with served.visitor() as me:
        answer = me.post("/api/jobs", files=[("files", ("t.jpg", tail, "image/jpeg")), *form("a.jpg")])
        done = until(me, answer.json()["id"], "done")
        assert page not in me.get(f"/jobs/{done['id']}/files/photos/t.jpg").content


def test_hostile_names_become_harmless(served: Running) -> None:
    names = [
        "../../etc/cron.d/x.jpg", "<img src=x onerror=alert(1)>.jpg", "a\"b'c`d.jpg", "-rf.jpg", ".bashrc.jpg",
        "con.jpg", "x" * 300 + ".jpg",
        "ünï ✓.jpg", "a\u202egpj.exe.jpg", "$(id);|&.jpg", "100%.jpg", "a.jpg", "A.jpg", "..jpg", " .jpg",
    ]  # fmt: skip
    with served.visitor() as me:
        done = until(me, me.post("/api/jobs", files=form(*names)).json()["id"], "done", "failed")
        assert len(done["photos"]) == len(names)
        assert len({name.casefold() for name in done["photos"]}) == len(names)
        for name in done["photos"]:
            assert not set(name) & set("<>:\"/\\|?*&'`$%#;{}\u202e\0\n")
            assert name[0] not in ".- "
            assert len(name.encode()) < 120
            assert me.get(f"/jobs/{done['id']}/files/photos/{name}").status_code == 200
        assert "ünï ✓.jpg" in done["photos"]
        answer = me.post("/api/jobs", files=form("a.jpg", "b.jpg"), data={"name": "<b>\x00\n" + "n" * 500})
        assert len(answer.json()["name"]) <= 80
        assert answer.json()["name"].startswith("<b>nnn")


def exif_with_everything() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112], exif[0x013B] = "Maker", "Model", 6, "SECRET-ARTIST"
    exif[0x010E], exif[0x8298], exif[0x9C9D] = "SECRET-DESCRIPTION", "SECRET-COPYRIGHT", "SECRET".encode("utf-16-le")
    detail = exif.get_ifd(0x8769)
    detail[0x920A], detail[0xA405], detail[0xA431], detail[0x9286] = 4.25, 26, "SECRET-SERIAL", b"SECRET-COMMENT"
    detail[0xA430], detail[0x927C], detail[0x9003] = "SECRET-OWNER", b"SECRET-MAKERNOTE", "2024:01:01 10:00:00"
    position = exif.get_ifd(0x8825)
    position[1], position[2], position[3], position[4], position[29] = "N", (48.0, 51.0, 29.5), "E", (2.0, 17.0, 40.2), "2024:01:01"
    return exif


def secret_photos() -> dict[str, bytes]:
    """Photos of every kind that say where they were taken, by every way we know."""
    exif = exif_with_everything().tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" exif:GPSLatitude="48,51.SECRET"/>'
    jpeg = picture(1, exif=exif, comment=b"SECRET-COM")
    app1 = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:] + b"SECRET-TRAILER"
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SECRET-TEXT")
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return {
        "a.jpg": jpeg,
        "b.png": picture(2, kind="PNG", exif=exif, pnginfo=text),
        "c.webp": picture(3, kind="WEBP", exif=exif, xmp=xmp),
        "d.tiff": picture(4, kind="TIFF", exif=exif_with_everything(), description="SECRET-TIFF"),
        "e.avif": picture(5, kind="AVIF", exif=exif, xmp=xmp),
        "f.bmp": picture(6, kind="BMP") + b"SECRET-TRAILER",
    }


def test_positions_are_gone_from_everything(served: Running) -> None:
    photos = secret_photos()
    assert all(b"SECRET" in data for name, data in photos.items())
    with served.visitor() as me:
        sent = [("files", (name, data, "")) for name, data in photos.items()]
        raw = me.post("/gradio_api/upload", files=sent).json()
        owner = Path(raw[0]).relative_to(served.service.uploads.root).parts[0]
        seen = served.service.inspect(owner, [Path(path) for path in raw])
        view = served.service.submit(owner, [photo.path for photo in seen.photos], RunSettings())
        done = until(me, view.id, "done", "failed")
        assert done["photos"] == ["a.jpg", "b.png", "c.webp", "d.png", "e.jpg", "f.png"]
        for folder in (served.service.folder(view.id), served.service.uploads.root / owner):
            for path in folder.rglob("*"):
                data = path.read_bytes() if path.is_file() else b""
                assert b"SECRET" not in data, path
                assert b"S\0E\0C\0R\0E\0T" not in data, path
        for name in done["photos"]:
            with Image.open(served.service.folder(view.id) / "photos" / name) as photo:
                exif = photo.getexif()
                assert not exif.get_ifd(0x8825)
                assert set(exif) <= {0x010F, 0x0110, 0x0112, 0x8769}
                if name != "f.png":
                    assert exif[0x0110] == "Model"
                if name not in ("d.png", "f.png"):  # Pillow writes no such block into a TIFF
                    assert exif.get_ifd(0x8769)[0xA405] == 26
                    assert float(exif.get_ifd(0x8769)[0x920A]) == 4.25
        for name, source in (("a.jpg", "a.jpg"), ("b.png", "b.png"), ("c.webp", "c.webp")):
            with (
                Image.open(served.service.folder(view.id) / "photos" / name) as kept,
                Image.open(io.BytesIO(photos[source])) as given,
            ):
                assert kept.tobytes() == given.tobytes()  # not a bit of the picture has changed
                assert kept.getexif()[0x0112] == 6


def test_hostile_exif_is_not_kept(served: Running) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "<script>alert(1)</script>" * 50, "m\x1b[31m\u202e", 99
    exif.get_ifd(0x8769)[0xA434] = "x" * 50_000
    huge = picture(1, exif=exif.tobytes())
    broken = picture(2)
    block = b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 400
    broken = broken[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + broken[2:]
    with served.visitor() as me:
        sent = [("files", ("a.jpg", huge, "")), ("files", ("b.jpg", broken, ""))]
        done = until(me, me.post("/api/jobs", files=sent).json()["id"], "done", "failed")
        assert done["photos"] == ["a.jpg", "b.jpg"]
        for name in done["photos"]:
            with Image.open(served.service.folder(done["id"]) / "photos" / name) as photo:
                found = dict(photo.getexif())
                assert found[0x0112] == 1
                texts = [value for value in found.values() if isinstance(value, str)]
                assert all(len(text) <= 64 and text.isascii() and text.isprintable() for text in texts)
            assert (served.service.folder(done["id"]) / "photos" / name).stat().st_size < 5000


def test_uploads_stop_at_their_limits(tmp_path: Path) -> None:
    tight = Limits(max_file_mb=0.5, max_upload_gb=0.0012, max_files=5, keep_free_gb=0.0)
    with running(tmp_path, limits=tight) as served, served.visitor() as me:
        uploads = served.service.uploads

        def send(*sizes: int, headers: dict[str, str] | None = None) -> httpx.Response:
            files = [("files", (f"{i}.jpg", b"x" * size, "")) for i, size in enumerate(sizes)]
            return me.post("/gradio_api/upload", files=files, headers=headers)

        assert send(600_000).status_code == 413
        assert send(400_000, 400_000, 450_000).status_code == 413
        assert send(*[10] * 6).status_code == 413
        assert not list(uploads.root.glob("*/raw/*"))
        assert send(400_000).status_code == 200
        assert send(400_000).status_code == 200
        uploads._used.clear()
        assert send(450_000).status_code == 413
        port = int(served.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as raw:  # announces nothing and sends without end
            head = (
                f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies_of(me)}\r\nTransfer-Encoding: chunked\r\n"
            )
            raw.sendall((head + "Content-Type: multipart/form-data; boundary=b\r\n\r\n").encode())
            part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
            raw.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            raw.settimeout(20)
            try:
                for _ in range(400):
                    raw.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                answer = raw.recv(100)
            except OSError:
                answer = b""
        assert answer == b"" or b" 413 " in answer
        assert len(list(uploads.root.glob("*/raw/*"))) == 2
    with running(tmp_path / "full", limits=Limits(keep_free_gb=1e6)) as served, served.visitor() as me:
        assert me.post("/gradio_api/upload", files=form("a.jpg")).status_code == 507
    with running(tmp_path / "total", limits=Limits(keep_free_gb=0.0, max_total_gb=1000 / GB)) as served, served.visitor() as me:
        assert me.post("/api/jobs", files=form("a.jpg", "b.jpg")).status_code == 507


def test_broken_forms_leave_nothing(served: Running) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    bodies = (
        b"", b"no form", part + b"cut off", part, b"--b\r\n" + b"H: " + b"x" * 100_000, b"--b\r\n" + b"A: b\r\n" * 5000,
        b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"x" * 100_000 + b"\r\n--b--\r\n",
    )  # fmt: skip
    with served.visitor() as me:
        me.get("/")
        before = set(served.service.uploads.root.glob("*/raw/*"))
        for body in bodies:
            assert me.post("/api/jobs", content=body, headers=kind).status_code in (400, 413), body[:60]
        for wrong in ("", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "application/json"):
            assert me.post("/gradio_api/upload", content=b"x", headers={"Content-Type": wrong}).status_code in (400, 415)
        assert set(served.service.uploads.root.glob("*/raw/*")) == before
        assert me.get("/api/jobs").json() == []
