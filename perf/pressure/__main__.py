"""
What the gateway does under pressure, one fault at a time.

    python -m perf.pressure                     names the scripts
    python -m perf.pressure overload            runs one, prints its numbers as JSON

Run by the interpreter of another checkout (its `.venv/bin/python`), the same script measures the
gateway that is installed there.
"""

import importlib
import json
import pkgutil
import sys

import perf.pressure as package


def main() -> None:
    """Run the script that is named."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if found.name[0] != "_"]
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        for name in names:
            text = importlib.import_module(f"perf.pressure.{name}").__doc__ or ""
            print(f"{name:18} {text.strip().splitlines()[0]}")
        sys.exit(2 if len(sys.argv) > 1 else 0)
    module = importlib.import_module(f"perf.pressure.{sys.argv[1]}")
    print(json.dumps(module.measure(), indent=1))


if __name__ == "__main__":
    main()
