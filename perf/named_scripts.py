"""Run one of a package's scripts by its name, or say which there are."""

import importlib
import json
import pkgutil
import sys
from types import ModuleType


def run_named(package: ModuleType) -> None:
    """
    Run the module of `package` that the command line names, and print what its `measure` returns,
    as JSON; without a name, list the scripts with their first lines. A module whose name begins
    with an underscore is no script.
    """
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if found.name[0] != "_"]
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        for name in names:
            text = importlib.import_module(f"{package.__name__}.{name}").__doc__ or ""
            print(f"{name:18} {text.strip().splitlines()[0]}")
        sys.exit(2 if len(sys.argv) > 1 else 0)
    module = importlib.import_module(f"{package.__name__}.{sys.argv[1]}")
    print(json.dumps(module.measure(), indent=1))
