"""
What the gateway does under pressure, one fault at a time.

    python -m perf.pressure                     names the scripts
    python -m perf.pressure overload            runs one, prints its numbers as JSON

Run by the interpreter of another checkout (its `.venv/bin/python`), the same script measures the
gateway that is installed there.
"""

import perf.pressure as package
from perf.named_scripts import run_named

if __name__ == "__main__":
    run_named(package)
