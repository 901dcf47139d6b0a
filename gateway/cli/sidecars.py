"""The JSON files beside a model, in which Transformers and timm describe what it takes."""

import json
from pathlib import Path

_NAMES = ("preprocessor_config.json", "config.json")
# What they may hold that is read; another program's config.json is none of the gateway's business.
_READ = frozenset({"do_resize", "image_mean", "image_processor_type", "id2label"})
_READ_OF_TIMM = frozenset({"pretrained_cfg", "label_names", "input_size"})
_MOST_BYTES = 1 << 20

Part = tuple[str, tuple[None, str]]


def sidecars_of(model: Path) -> list[Part]:
    """Read those beside `model` as parts of a form, without a file name."""
    parts: list[Part] = []
    for path in (model.with_name(name) for name in _NAMES):
        try:
            if path.stat().st_size > _MOST_BYTES:
                continue
            text = path.read_text(encoding="utf-8-sig")
            described = json.loads(text)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(described, dict) and (_READ | _READ_OF_TIMM) & described.keys():
            parts.append(("sidecar", (None, text)))
    return parts
