"""Taking in what visitors send: streamed to a folder of the owner, within limits, under names of our own.

Input: the body of a request, in pieces. Output: files under <out>/.uploads/<owner>/raw/<token>/. Does not: open what was sent.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .limits import GB, MB, Limits
from .names import stored_name
from .refusals import Refused
from .store import Store
from .worker import folder_bytes

LARGEST_FIELD = 64 << 10
"""Bytes that all fields of a form that are no files may take together."""
LARGEST_HEADER = 4 << 10
WRITTEN_AT = 1 << 20
"""Bytes that are gathered before they are written."""
USED_FOR_S = 5.0
"""Seconds for which a measurement of the disk is believed."""
ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}")


@dataclass
class Form:
    """What one request brought."""

    files: list[Path] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Tracked:
    """How far an upload is, for the page."""

    owner: str
    news: asyncio.Queue[tuple[str, int] | None] = field(default_factory=asyncio.Queue)


class Uploads:
    """Files that visitors have sent.

    Args:
        root: folder of all uploads.
        store: the jobs, for what they take.
    """

    def __init__(self, root: Path, store: Store, limits: Limits) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.limits, self._store = limits, store
        self._lock = threading.Lock()
        self._coming: dict[str, int] = {}
        self._used: dict[str, tuple[float, int]] = {}
        self.tracked: dict[str, Tracked] = {}

    def shelf(self, owner: str) -> Path:
        """Where an owner's clean photos are kept."""
        return self.root / owner / "clean"

    def owned(self, owner: str, given: Iterable[Path | str]) -> list[Path]:
        """Files of this owner, as real paths.

        Raises:
            Refused: one is not there, or not the owner's.
        """
        found = []
        for one in given:
            try:
                path = Path(one).resolve(strict=True)
            except (OSError, ValueError, RuntimeError):
                path = None
            if path is None or not path.is_file() or not path.is_relative_to(self.root / owner):
                raise Refused(
                    "A file is not there any more, or it was sent by another visitor.",
                    "Send the photos again; a program must send the same cookie or Authorization header each time.",
                )
            found.append(path)
        return found

    def check_room(self, owner: str, more: int = 0) -> None:
        """Refuse what would go beyond a limit.

        Args:
            more: bytes that are about to come.

        Raises:
            Refused: with the limit in words.
        """
        mine, total = self._bytes_of(self.root / owner) + more, self._bytes_of(self.root) + more
        total += sum(row.bytes for row in self._store.rows())
        with self._lock:  # held for a moment only: whoever receives files waits for it
            mine, total = mine + self._coming.get(owner, 0), total + sum(self._coming.values())
        if mine > self.limits.max_upload_gb * GB:
            raise Refused(f"More than {self.limits.max_upload_gb:g} GB were uploaded.", "Send fewer or smaller photos.", 413)
        if total > self.limits.max_total_gb * GB:
            raise Refused("The room for reconstructions is used up.", "Delete some in the gallery first.", 507)
        if shutil.disk_usage(self.root).free - more < self.limits.keep_free_gb * GB:
            raise Refused("The disk of the server is nearly full.", "Delete some reconstructions, or free some space.", 507)

    async def receive(
        self, owner: str, content_type: str, length: int | None, body: AsyncIterator[bytes], *, upload_id: str = ""
    ) -> Form:
        """Write the files of a form as they come; nothing is left of a form that is refused.

        Args:
            length: of the body as announced; None when it was not.
            upload_id: under which the page asks how far it is.

        Raises:
            Refused: the form is broken or goes beyond a limit.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused("Files come as a form (multipart/form-data).", "", 415)
        await asyncio.to_thread(self.check_room, owner, length or 0)
        folder = self.root / owner / "raw" / secrets.token_hex(16)
        news = self.tracked[upload_id].news if upload_id in self.tracked else None
        writer = _Writer(self, owner, folder, news)
        try:
            parser = MultipartParser(options[b"boundary"], writer.callbacks())
            folder.mkdir(parents=True)
            async for piece in body:
                parser.write(piece)
                if writer.gathered >= WRITTEN_AT:
                    await asyncio.to_thread(writer.flush)
            parser.finalize()
            await asyncio.to_thread(writer.flush)
            if not writer.ended:
                raise Refused("The form is cut off.", "Send it again.")
        except BaseException as error:
            writer.close()
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
            if isinstance(error, FormParserError):
                raise Refused("The form is broken.", "Send it again.") from error
            if isinstance(error, OSError):
                raise Refused(f"The file could not be stored ({error.strerror or error}).", "Free some space.", 507) from error
            raise
        finally:
            self._arrived(owner, writer.written)
            if news is not None:
                news.put_nowait(None)
        return writer.form

    def coming(self, owner: str, count: int) -> None:
        """Count bytes that are being written."""
        with self._lock:
            self._coming[owner] = self._coming.get(owner, 0) + count

    def _arrived(self, owner: str, count: int) -> None:
        with self._lock:
            left = self._coming.pop(owner, 0) - count
            if left > 0:
                self._coming[owner] = left
            self._used.clear()

    def purge(self) -> None:
        """Delete uploads nobody made use of for long."""
        oldest = time.time() - 3600.0 * self.limits.upload_hours
        for kind in ("raw", "clean"):
            for folder in self.root.glob(f"*/{kind}/*"):
                try:
                    if folder.stat().st_mtime < oldest:
                        shutil.rmtree(folder, ignore_errors=True)
                except FileNotFoundError:
                    continue

    def _bytes_of(self, folder: Path) -> int:
        """What a folder takes, measured a moment ago."""
        at, size = self._used.get(str(folder), (0.0, 0))
        if time.monotonic() - at > USED_FOR_S:
            size = folder_bytes(folder)
            self._used[str(folder)] = (time.monotonic(), size)
        return size


class _Writer:
    """Receives what the parser finds."""

    def __init__(self, uploads: Uploads, owner: str, folder: Path, news: asyncio.Queue | None) -> None:
        self.form, self.ended, self.gathered, self.written = Form(), False, 0, 0
        self._uploads, self._owner, self._folder, self._news = uploads, owner, folder, news
        self._header, self._value, self._headers = b"", b"", dict[bytes, bytes]()
        self._file: IO[bytes] | None = None
        self._field, self._size, self._field_bytes = "", 0, 0
        self._pending: list[tuple[IO[bytes], bytes]] = []
        self._finished: list[IO[bytes]] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin, "on_header_field": self._on_header, "on_header_value": self._on_value,
            "on_header_end": self._header_end, "on_headers_finished": self._open, "on_part_data": self._data,
            "on_part_end": self._part_end, "on_end": self._on_end,
        }  # fmt: skip

    def flush(self) -> None:
        """Write what was gathered."""
        pending, self._pending, self.gathered = self._pending, [], 0
        for file, piece in pending:
            file.write(piece)
        for file in self._finished:
            file.close()
        self._finished = []
        if self.written:
            self._uploads.check_room(self._owner)

    def close(self) -> None:
        """Close what is open, without writing."""
        self._pending = []
        for file in (*self._finished, *([self._file] if self._file else [])):
            file.close()

    def _begin(self) -> None:
        self._headers, self._header, self._value, self._field = {}, b"", b"", ""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > LARGEST_HEADER or len(self._headers) > 16:
            raise Refused("The form is broken.", "Send it again.")

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"filename")
        if name is None:
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
            self.form.fields.setdefault(self._field, "")
            return
        if len(self.form.files) >= self._uploads.limits.max_files:
            raise Refused(f"More than {self._uploads.limits.max_files} files were sent.", "Send fewer: 20 to 300 do.", 413)
        text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        ending = Path(text).suffix if ENDING.fullmatch(Path(text).suffix) else ""
        path = self._folder / f"{len(self.form.files):04d}" / (stored_name(text) + ending)
        path.parent.mkdir(parents=True)
        self._file, self._size = path.open("xb"), 0
        self.form.files.append(path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._file is None:
            self._field_bytes += len(piece)
            if self._field_bytes > LARGEST_FIELD:
                raise Refused("A field of the form is too long.", "", 413)
            self.form.fields[self._field] += piece.decode("utf-8", "replace")
            return
        self._size += len(piece)
        most = self._uploads.limits.max_file_mb
        if self._size > most * MB:
            raise Refused(f"A file is larger than {most:g} MB.", "Send smaller files.", 413)
        self._pending.append((self._file, piece))
        self.gathered += len(piece)
        self.written += len(piece)
        self._uploads.coming(self._owner, len(piece))
        if self._news is not None:
            self._news.put_nowait((self.form.files[-1].name, len(piece)))

    def _part_end(self) -> None:
        if self._file is not None:
            self._finished.append(self._file)
            self._file = None

    def _on_end(self) -> None:
        self.ended = True
