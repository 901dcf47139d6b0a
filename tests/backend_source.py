"""The modules of our backend, which no package leads to."""

import importlib.util
from pathlib import Path
from types import ModuleType

from gateway.triton.embedded.layout import BACKEND_SOURCES


def load_backend_module(name: str) -> ModuleType:
    """Load one as Triton's stub does: from its file."""
    spec = importlib.util.spec_from_file_location(name, Path(BACKEND_SOURCES, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
