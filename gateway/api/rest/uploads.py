"""
Receive a model: raw bytes or a multipart form, streamed to a file and never held in memory.

The bytes are counted and digested as they arrive. What is over the limit is refused while it
arrives, at once where the request says its length; the caller's connection is closed, because
nobody reads the rest.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from gateway.errors import BodyTooLarge, UploadInvalid
from gateway.registry.upload import Upload
from gateway.system.full_disk import storage_full

FORM_OVERHEAD_BYTES = 4 << 20
"""What a form may hold beside the model: boundaries and text fields."""

_FILE_FIELDS = frozenset({"file", "model"})
_SIDECAR_FIELD = "sidecar"
_MAX_TEXT_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20


@dataclass(slots=True)
class Received:
    """A model that arrived, and the text fields that came with it."""

    upload: Upload
    fields: dict[str, str] = field(default_factory=dict)


class _ModelFile:
    """The file that arrives: counts, digests, and writes in large pieces off the event loop."""

    def __init__(self, file: BinaryIO, limit_bytes: int) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = file
        self._limit_bytes = limit_bytes
        self._pending = bytearray()

    def take(self, data: bytes) -> None:
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        self._pending += data

    async def write(self, *, at_least: int = _WRITE_BYTES) -> None:
        if self._pending and len(self._pending) >= at_least:
            data, self._pending = self._pending, bytearray()
            await asyncio.to_thread(self._write, data)

    def _write(self, data: bytearray) -> None:
        self._digest.update(data)
        with storage_full():
            self._file.write(data)

    async def finish(self) -> str:
        await self.write(at_least=1)
        with storage_full():
            await asyncio.to_thread(self._file.flush)
        return f"sha256:{self._digest.hexdigest()}"


class _ModelForm:
    """A multipart form as it is parsed: one part is the model, the others are text."""

    def __init__(self, boundary: bytes, model: _ModelFile) -> None:
        self.fields: dict[str, str] = {}
        self.sidecars: list[str] = []
        self.has_model = False
        self.ended = False
        self._model = model
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._is_model = False
        self._text = bytearray()
        self._text_bytes = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._into(lambda: self._header[0]),
                "on_header_value": self._into(lambda: self._header[1]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def write(self, data: bytes) -> None:
        """Parse the next piece of the body."""
        self._parser.write(data)

    @staticmethod
    def _into(target: Callable[[], bytearray]) -> Callable[[bytes, int, int], None]:
        def take(data: bytes, start: int, end: int) -> None:
            target().extend(data[start:end])

        return take

    def _begin(self) -> None:
        self._name, self._is_model = "", False
        self._text = bytearray()

    def _header_end(self) -> None:
        name, value = bytes(self._header[0]).lower(), bytes(self._header[1])
        self._header = (bytearray(), bytearray())
        if name == b"content-disposition":
            _, options = parse_options_header(value)
            self._name = options.get(b"name", b"").decode(errors="replace")

    def _headers_finished(self) -> None:
        self._is_model = self._name in _FILE_FIELDS
        if self._is_model and self.has_model:
            raise UploadInvalid("The form holds more than one model.")
        self.has_model |= self._is_model

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_model:
            self._model.take(data[start:end])
            return
        self._text_bytes += end - start
        if self._text_bytes > _MAX_TEXT_BYTES:
            raise BodyTooLarge(f"The form's text fields are larger than {_MAX_TEXT_BYTES} bytes.")
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._name and not self._is_model:
            try:
                text = self._text.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise UploadInvalid(f"The field {self._name[:40]!r} is not UTF-8.") from error
            if self._name == _SIDECAR_FIELD:
                self.sidecars.append(text)
            else:
                self.fields[self._name] = text

    def _end(self) -> None:
        self.ended = True


async def receive(
    request: Request, folder: Path, *, limit_bytes: int, idle_timeout_s: float
) -> Received:
    """
    Stream a request's body into a file of `folder`.

    Raises:
        BodyTooLarge: The model is larger than `limit_bytes`.
        UploadInvalid: The form holds no model, or the body ends early or stands still.
        StorageFull: The disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    is_form = kind == b"multipart/form-data"
    declared = request.headers.get("content-length", "")
    allowed_bytes = limit_bytes + (FORM_OVERHEAD_BYTES if is_form else 0)
    if declared.isdecimal() and int(declared) > allowed_bytes:
        raise too_large(limit_bytes)
    path = folder / "model.onnx"
    with storage_full(), path.open("xb") as file:
        model = _ModelFile(file, limit_bytes)
        fields: dict[str, str] = {}
        sidecars: tuple[str, ...] = ()
        try:
            if is_form:
                fields, sidecars = await _receive_form(request, options, model, idle_timeout_s)
            else:
                async for data in _body(request, idle_timeout_s):
                    model.take(data)
                    await model.write()
        except ClientDisconnect as error:
            raise UploadInvalid(
                "The connection was closed before the model had arrived."
            ) from error
        digest = await model.finish()
    return Received(Upload(path, folder, digest, model.size_bytes, sidecars), fields)


def too_large(limit_bytes: int) -> BodyTooLarge:
    """Make the error for a model over the limit."""
    return BodyTooLarge(f"The model is larger than {limit_bytes} bytes (MAX_MODEL_BYTES).")


async def _receive_form(
    request: Request, options: dict[bytes, bytes], model: _ModelFile, idle_timeout_s: float
) -> tuple[dict[str, str], tuple[str, ...]]:
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise UploadInvalid("The multipart form has no boundary.")
    try:
        form = _ModelForm(boundary, model)
        async for data in _body(request, idle_timeout_s):
            form.write(data)
            await model.write()
    except FormParserError as error:
        raise UploadInvalid("The multipart form cannot be read.") from error
    if not form.ended:
        raise UploadInvalid("The multipart form ends early.")
    if not form.has_model:
        raise UploadInvalid("The form holds no part `file` with the model.")
    return form.fields, tuple(form.sidecars)


async def _body(request: Request, idle_timeout_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_timeout_s):
                data = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UploadInvalid(f"No byte of the model arrived for {idle_timeout_s:g} s.") from None
        if data:
            yield data
