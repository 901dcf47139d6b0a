"""
What a file, or what lies beside it, says of its preprocessing and its classes: a proposal, which
somebody takes or not. Everything is read as literals, nothing is evaluated.

    preprocessor_config.json   Hugging Face Transformers: image processors
    config.json                Transformers (`id2label`), timm (`pretrained_cfg`)
    metadata_props             Ultralytics (`task`, `names`, `imgsz`), ONNX (`Image.*`)

What cannot be said exactly by a record is not proposed.

Source: Transformers, Image Processor; timm, `create_transform` and the Hugging Face Hub's
`config.json`; Ultralytics, `export_onnx` and `classify_transforms`; ONNX, MetadataProps.
"""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.converter.signature import TensorSignature
from gateway.errors import PreprocessingInvalid
from gateway.preprocessing import described
from gateway.preprocessing.described import Described
from gateway.preprocessing.presets import laid_out
from gateway.preprocessing.record import RAW, Preprocessing, check_preprocessing

_Said = TypeVar("_Said")

_PROPOSED = "proposed"
_LITERALS = ("names", "imgsz")
_MOST_CHARACTERS = 1 << 20
_MOST_CLASSES = 50_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    What is proposed.

    Attributes:
        preprocessing: The record; None: none, or raw pixels.
        labels: The class names; None: none.
        sources: Where each comes from, for people.
    """

    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    sources: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object."""
        record = self.preprocessing
        return {
            "preprocessing": None if record is None else record.model_dump(mode="json"),
            "labels": None if self.labels is None else list(self.labels),
            "sources": list(self.sources),
        }


def takes_proposal(requested: str | None) -> bool:
    """Whether somebody asks for what is proposed, instead of a record of his own."""
    text = (requested or "").strip()
    if text.startswith("{"):
        try:
            return bool(json.loads(text) == {"preset": _PROPOSED})
        except (ValueError, RecursionError):
            return False
    return text == _PROPOSED


def propose(
    metadata: Mapping[str, str],
    sidecars: Sequence[str],
    wanted: TensorSignature,
    classes: int | None,
) -> Proposal | None:
    """
    Read what is said of a model.

    Args:
        metadata: The `metadata_props` of its file.
        sidecars: The texts of the JSON files beside it.
        wanted: Its input.
        classes: How many there are, if that is known.

    Returns:
        What fits the model; None if nothing does.
    """
    found = [*_beside(sidecars), *_inside(metadata)]
    record, record_source = _first(found, lambda each: _record(each, wanted))
    labels, labels_source = _first(found, lambda each: _labels(each, classes))
    if record is None and labels is None:
        return None
    sources = []
    if record is not None:
        sources.append(f"preprocessing: {record_source}")
    if labels is not None:
        sources.append(f"class names: {labels_source}")
    return Proposal(None if record == RAW else record, labels, tuple(sources))


def _first(
    found: Sequence[Described], read: Callable[[Described], _Said | None]
) -> tuple[_Said | None, str]:
    for each in found:
        value = read(each)
        if value is not None:
            return value, each.source
    return None, ""


def _record(found: Described, wanted: TensorSignature) -> Preprocessing | None:
    """Make a record for an input; None where there is none, or it does not fit."""
    if found.fields is None:
        return None
    layout, gray, fixed = laid_out(wanted)
    fields: dict[str, Any] = {"layout": layout} | ({"channel_order": "GRAY"} if gray else {})
    if fixed and "size" not in found.fields:
        fields |= {"size": fixed, "resize": "stretch"}
    try:
        record = Preprocessing.model_validate(fields | found.fields)
        check_preprocessing(record, wanted)
    except (ValidationError, PreprocessingInvalid):
        return None
    return record


def _labels(found: Described, classes: int | None) -> tuple[str, ...] | None:
    """Read class names numbered from 0, without a gap, as many as there are classes."""
    names = found.labels
    if names is None or len(names) > _MOST_CLASSES or classes not in {None, len(names)}:
        return None
    lines = tuple(" ".join(str(names.get(number, "")).split()) for number in range(len(names)))
    return lines if lines and all(line and line.isprintable() for line in lines) else None


def _beside(sidecars: Sequence[str]) -> list[Described]:
    found = []
    for text in sidecars:
        try:
            config = json.loads(text) if len(text) <= _MOST_CHARACTERS else None
        except (ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            found += described.by_json(config)
    return found


def _inside(metadata: Mapping[str, str]) -> list[Described]:
    read = {name: _literal(metadata.get(name, "")) for name in _LITERALS}
    return [
        *described.by_ultralytics(metadata, read),
        *described.by_onnx(metadata),
    ]


def _literal(text: str) -> object:
    """Read a Python literal; None for anything else."""
    if len(text) > _MOST_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
