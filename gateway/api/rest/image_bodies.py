"""
The bodies of `run` beside the original `{"image": "<base64>"}`: an image as it is, a form, a list.

FastAPI reads a body as JSON or as bytes, and the bytes do not say which content type they had. So a
request of a route with images returns bytes that do, and `RunRequest` makes images of them.

Source: RFC 7578 (multipart/form-data).
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import PydanticCustomError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from gateway.api.rest.base64_image import decode_base64
from gateway.errors import ImageInvalid, RequestError, UploadInvalid

PART = b"image"
_GZIP = b"\x1f\x8b"
RAW = "application/octet-stream"
FORM = "multipart/form-data"

OTHER_BODIES = {
    "requestBody": {
        "content": {
            # A range (image/*) is what generators of clients do not read.
            RAW: {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": "An image file; its own content type, as image/png, is taken "
                    "as well.",
                }
            },
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "Image files; several parts of this name are a batch.",
                        }
                    },
                }
            },
        }
    }
}
"""What the OpenAPI page says of the bodies that are no JSON."""

Sent = bytes | RequestError
"""An image file's bytes, or why there are none."""


def is_raw(content_type: bytes) -> bool:
    """Whether a body of this content type (lower case) is an image as it is."""
    return content_type.startswith((b"image/", b"application/octet-stream"))


class RawBody(bytes):
    """A body that is an image file."""

    def __bool__(self) -> bool:
        """An empty image is a body too: it is refused as an image."""
        return True


class FormBody(bytes):
    """A body that is a multipart form."""

    boundary: bytes


class _AnyBody(Request):
    async def body(self) -> bytes:
        body = await super().body()
        content_type = self.headers.get("content-type", "").encode("latin-1").lower()
        if is_raw(content_type):
            return RawBody(body)
        if content_type.startswith(FORM.encode()):
            form = FormBody(body)
            _, options = parse_options_header(self.headers["content-type"])
            form.boundary = options.get(b"boundary", b"")
            return form
        if body.startswith(_GZIP):
            raise HTTPException(
                415,
                "The body is compressed by gzip. Send it as it is: images are compressed already.",
            )
        return body


class ImageBodies(APIRoute):
    """A route whose body may be any of these."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Have the body say what it is."""
        handle = super().get_route_handler()

        async def handle_any(request: Request) -> Response:
            return await handle(_AnyBody(request.scope, request.receive))

        return handle_any


def images_of(body: object) -> bytes | list[Sent] | None:
    """
    Read the image or the images of a body.

    Args:
        body: Bytes, or what the JSON says.

    Returns:
        One image; or a list, if the caller sent one or a form of several; None if the body is
        neither of these: it is for `RunRequest` to judge.

    Raises:
        UploadInvalid: The form cannot be read, or has no part `image`.
        PydanticCustomError: `images` is no list of strings, or is empty.
    """
    match body:
        case RawBody():
            return bytes(body)
        case FormBody():
            parts = _ImageForm(body.boundary).read(body)
            return parts[0] if len(parts) == 1 else [*parts]
        case dict() if "images" in body and "image" not in body:
            images = body["images"]
            if not isinstance(images, list) or not images:
                raise PydanticCustomError("images_type", "`images` should be a list of images")
            if not all(isinstance(image, str) for image in images):
                raise PydanticCustomError("images_type", "Every image should be a base64 string")
            return [_decoded(image) for image in images]
        case _:
            return None


def _decoded(text: str) -> Sent:
    try:
        return decode_base64(text)
    except RequestError as error:
        return error
    except ValueError as error:
        return ImageInvalid(f"Base64 decoding error: {error}")


class _ImageForm:
    """A form that has arrived whole; its parts `image` stay in memory."""

    def __init__(self, boundary: bytes) -> None:
        if not boundary:
            raise UploadInvalid("The multipart form has no boundary.")
        self._images: list[bytearray] = []
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._is_image = False
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": lambda data, a, b: self._header[0].extend(data[a:b]),
                "on_header_value": lambda data, a, b: self._header[1].extend(data[a:b]),
                "on_header_end": self._header_end,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def read(self, body: bytes) -> list[bytes]:
        """
        Find the images.

        Raises:
            UploadInvalid: It cannot be read, ends early, or holds none.
        """
        try:
            self._parser.write(body)
        except FormParserError as error:
            raise UploadInvalid("The multipart form cannot be read.") from error
        if not self._ended:
            raise UploadInvalid("The multipart form ends early.")
        if not self._images:
            raise UploadInvalid("The form holds no part `image`.")
        return [bytes(image) for image in self._images]

    def _part_begin(self) -> None:
        self._is_image = False

    def _header_end(self) -> None:
        name, value = bytes(self._header[0]).lower(), bytes(self._header[1])
        self._header = (bytearray(), bytearray())
        if name == b"content-disposition":
            _, options = parse_options_header(value)
            if options.get(b"name") == PART and not self._is_image:
                self._is_image = True
                self._images.append(bytearray())

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_image:
            self._images[-1] += memoryview(data)[start:end]

    def _end(self) -> None:
        self._ended = True
