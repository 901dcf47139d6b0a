"""
Does an image's file end early? Asked only of files that could not be decoded.

A decoder that reads a stream asks for bytes behind the end. One that is given the whole file (WebP,
compressed TIFF) does not; there the file itself says how far it reaches.

Source: Pillow, ImageFile.load; WebP container, RIFF header; TIFF 6.0, StripOffsets and TileOffsets.
"""

import io
import sys
from collections.abc import Mapping
from typing import Any

from PIL import ImageFile, TiffImagePlugin

_BEGINNINGS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF",
    b"BM",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
)
# Pillow asks every format's reader with so much of the file, whether there is as much or not.
_PREFIX_BYTES = 16
# (offsets, sizes) of what a TIFF's pixels are cut into.
_TIFF_PARTS = ((273, 279), (324, 325))


Tags = Mapping[int, Any]
"""A TIFF's tags, as Pillow reads them."""


class WatchedFile(io.BytesIO):
    """
    An image's file that notices what its decoder asks for.

    Attributes:
        overrun: The decoder asked for bytes behind the end.
    """

    def __init__(self, encoded: bytes) -> None:
        super().__init__(encoded)
        self._size_bytes = len(encoded)
        self.overrun = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file; what is missing is noticed."""
        at = self.tell()
        data = super().read(size)
        if size is not None and len(data) < size:
            # Large pieces are read as they come, and the last one is shorter.
            whole = size >= ImageFile.MAXBLOCK or (at == 0 and size == _PREFIX_BYTES)
            self.overrun |= not data or not whole
        return data


def ends_early(encoded: bytes, read: WatchedFile, tags: Tags | None) -> bool:
    """
    Tell whether a file that could not be decoded ends early.

    Args:
        encoded: The file's bytes.
        read: The file as its decoder read it.
        tags: Of a TIFF whose directory could be read.
    """
    if not encoded.startswith(_BEGINNINGS):
        return False
    if encoded.startswith(b"RIFF"):
        return len(encoded) < 12 or int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
    return read.overrun or (tags is not None and _tiff_end(tags) > len(encoded))


def _tiff_end(tags: Tags) -> int:
    """Return the least size of the file by its directory."""
    ends = [0]
    for offsets_tag, sizes_tag in _TIFF_PARTS:
        offsets, sizes = _numbers(tags.get(offsets_tag)), _numbers(tags.get(sizes_tag))
        ends += [offset + size for offset, size in zip(offsets, sizes, strict=False)]
    return max(ends)


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [each for each in values if isinstance(each, int) and 0 <= each <= sys.maxsize]


def tags_of(image: object) -> Tags | None:
    """Return a TIFF's tags; None for an image of another format."""
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None
