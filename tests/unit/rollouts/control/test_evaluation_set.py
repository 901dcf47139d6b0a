"""Evaluation sets: what is taken, and what is refused with its line."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import EvaluationSetInvalid
from gateway.rollouts.control.evaluation_set import images, path_of, read_set, store_file

_CLASSES = 10


def _zip(
    labels: str, files: dict[str, bytes] | None = None, *, kind: int = zipfile.ZIP_STORED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in (files or {"a.png": b"A" * 50, "b.png": b"B" * 50}).items():
            archive.writestr(name, content)
        archive.writestr("labels.csv", labels)
    return buffer.getvalue()


def _encrypted(content: bytes, name: str) -> bytes:
    """Set the bit of encryption for one entry, in its header and in the directory."""
    changed = bytearray(content)
    for signature, flags, named in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        at = content.find(signature)
        while content[at + named : at + named + len(name)] != name.encode():
            at = content.index(signature, at + 1)
        changed[at + flags] |= 1
    return bytes(changed)


def _damaged(content: bytes) -> bytes:
    return content.replace(b"B" * 50, b"B" * 49 + b"C")


def test_a_set_is_stored_and_read(tmp_path: Path) -> None:
    """A heading, blank lines, a BOM and blanks are read over; images come in the order of lines."""
    content = _zip("\ufefffile,category\n\nb.png, 3\na.png,07\n", kind=zipfile.ZIP_DEFLATED)
    digest, found = store_file(tmp_path, content, classes=_CLASSES)
    path = path_of(tmp_path, digest)
    assert found == read_set(path)
    assert (found.files, found.labels, found.classes) == (("b.png", "a.png"), (3, 7), 8)
    assert list(images(path, found)) == [b"B" * 50, b"A" * 50]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


_GOOD = "a.png,1\nb.png,2\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: b"no zip", "cannot be read"),
        (lambda: _zip(_GOOD)[:-30], "cannot be read"),
        (lambda: _zip("a.png,1\nb.png,7000\n"), r"line 2: category 7000 of b.png is no class"),
        (lambda: _zip("a.png,10\n"), r"line 1: category 10 .* 0 to 9"),
        (lambda: _zip(f"a.png,{'9' * 5000}\n"), r"line 1: category 9+ of a.png"),
        (lambda: _zip("a.png,1\na.png,-1\n"), r"line 2: not `file,category`"),
        (lambda: _zip("a.png,1\nc.png,1\n"), r"line 2: c.png is not in the zip"),
        (lambda: _zip("a.png,1\n\na.png,1\n"), r"line 3: a.png stands in line 1"),
        (lambda: _zip("\n"), "names no image"),
        (lambda: _zip("a.png,1\n").replace(b"labels.csv", b"label5.csv"), "no labels.csv"),
        (lambda: _encrypted(_zip(_GOOD), "b.png"), r"line 2: b.png is encrypted"),
        (lambda: _encrypted(_zip(_GOOD), "labels.csv"), r"labels.csv is encrypted"),
        (lambda: _damaged(_zip(_GOOD)), r"line 2: b.png cannot be unpacked"),
        (
            lambda: _zip("z,1\n", {"z": bytes(65 << 20)}, kind=zipfile.ZIP_DEFLATED),
            r"line 1: z is larger",
        ),
    ],
)
def test_what_is_no_set_is_refused_with_its_line(
    content: Callable[[], bytes], told: str, tmp_path: Path
) -> None:
    """One refusal that says where; nothing of it stays on the disk."""
    with pytest.raises(EvaluationSetInvalid, match=told):
        store_file(tmp_path, content(), classes=_CLASSES)
    assert list(tmp_path.iterdir()) == []
