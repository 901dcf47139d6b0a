"""What a file is that is no ONNX model, by its first bytes, and what cures it."""

from collections.abc import Callable
from pathlib import Path

from gateway.converter.errors import ModelInvalid

_HEAD_BYTES = 4096
_EXPORT = "Export it: torch.onnx.export(model, image, 'model.onnx')."
_TF2ONNX = "Convert it: python -m tf2onnx.convert, with --tflite, --keras or --saved-model."

_Test = Callable[[bytes], bool]


def _begins(*starts: bytes) -> _Test:
    return lambda head: head.startswith(starts)


def _zip_with(*names: bytes) -> _Test:
    return lambda head: head.startswith(b"PK\x03\x04") and any(name in head for name in names)


_KINDS: tuple[tuple[_Test, str], ...] = (
    (
        _begins(b"version https://git-lfs"),
        "a pointer of Git LFS, not the file itself. Fetch it: git lfs pull.",
    ),
    (
        _begins(b"/annex/objects/"),
        "a pointer of git-annex, not the file itself. Fetch it: git annex get.",
    ),
    (
        lambda head: head.lstrip().lower().startswith((b"<!doctype html", b"<html")),
        "an HTML page: the download gave a web page. Download the file itself.",
    ),
    (_begins(b"\x1f\x8b"), "a gzip archive. Unpack it: gunzip."),
    (_begins(b"\x28\xb5\x2f\xfd"), "a zstandard archive. Unpack it: unzstd."),
    (_begins(b"\xfd7zXZ\x00"), "an xz archive. Unpack it: unxz."),
    (
        lambda head: head[257:262] == b"ustar",
        "a tar archive. Unpack it and send the .onnx file in it.",
    ),
    (_zip_with(b"data.pkl", b"/version"), f"a PyTorch checkpoint, without a graph. {_EXPORT}"),
    (_zip_with(b".npy"), "a NumPy archive (npz): arrays, not a model."),
    (_zip_with(b"metadata.json", b"config.json"), f"a Keras model. {_TF2ONNX}"),
    (_begins(b"PK\x03\x04"), "a zip archive. Unpack it and send the .onnx file in it."),
    (
        lambda head: head[4:8] == b"ORTM",
        "a model in ORT format, for one build of onnxruntime. Send the .onnx it was made from.",
    ),
    (lambda head: head[4:8] == b"TFL3", f"a TensorFlow Lite model. {_TF2ONNX}"),
    (_begins(b"\x89HDF\r\n"), f"an HDF5 file, as Keras writes. {_TF2ONNX}"),
    (
        lambda head: head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30,
        f"a safetensors file: weights without a graph. {_EXPORT}",
    ),
    (
        lambda head: len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5,
        f"a Python pickle, as older releases of torch.save write. {_EXPORT}",
    ),
    (lambda head: head[:3] == b"\x08\x01\x12", f"a TensorFlow SavedModel. {_TF2ONNX}"),
    (
        lambda head: head[:1] == b"\x0a" and (b"Placeholder" in head or b"Const" in head),
        f"a TensorFlow graph. {_TF2ONNX}",
    ),
    (_begins(b"GGUF"), "a GGUF file, which holds a language model. Images are classified here."),
    (_begins(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF"), "an image, not a model."),
    (_begins(b"<?xml"), "an XML file; an OpenVINO model is served as the ONNX it was made from."),
    (lambda head: head.lstrip()[:1] in {b"{", b"["}, "JSON, not a model."),
)


def not_onnx(path: Path, fallback: str) -> ModelInvalid:
    """Make the refusal of a file: what it is, where its first bytes tell, else the fallback."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    kind = next((kind for test, kind in _KINDS if test(head)), None)
    return ModelInvalid(fallback if kind is None else f"Not an ONNX model but {kind}")
