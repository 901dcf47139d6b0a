"""
What access costs and what it holds, one question at a time.

    python -m perf.access                names the scripts
    python -m perf.access cost           runs one, prints its numbers as JSON
"""

import importlib
import json
import pkgutil
import sys

import perf.access as package


def main() -> None:
    """Run the script that is named."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if found.name[0] != "_"]
    names.remove("clients")
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        for name in names:
            text = importlib.import_module(f"perf.access.{name}").__doc__ or ""
            print(f"{name:18} {text.strip().splitlines()[0]}")
        sys.exit(2 if len(sys.argv) > 1 else 0)
    module = importlib.import_module(f"perf.access.{sys.argv[1]}")
    print(json.dumps(module.measure(), indent=1))


if __name__ == "__main__":
    main()
