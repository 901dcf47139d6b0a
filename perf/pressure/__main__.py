"""
What the gateway does under pressure, one fault at a time.

    python -m perf.pressure                     names them
    python -m perf.pressure overload            runs one, prints its numbers as JSON

Run by the interpreter of another checkout (its `.venv/bin/python`), the same script measures the
gateway that is installed there.
"""

import importlib
import json
import sys

SCRIPTS = {
    "smuggling": "bytes of a body behind an offer to upgrade: are they a request?",
    "headers": "one header line of 80 MB: what others wait meanwhile",
    "silence": "connections that say nothing, half a head, half a body: when are they closed?",
    "memory": "64 unfinished bodies of 31 MB, and clients that send and do not read",
    "draining": "requests sent after SIGTERM: answered, refused or reset?",
    "stalled_log": "nobody reads what the gateway prints: does it go on?",
    "overload": "goodput and waiting at 2, 10 and more times the load that it can take (wrk)",
}


def main() -> None:
    """Run the script that is named."""
    if len(sys.argv) != 2 or sys.argv[1] not in SCRIPTS:
        for name, purpose in SCRIPTS.items():
            print(f"{name:12} {purpose}")
        sys.exit(2 if len(sys.argv) > 1 else 0)
    module = importlib.import_module(f"perf.pressure.{sys.argv[1]}")
    print(json.dumps(module.measure(), indent=1))


if __name__ == "__main__":
    main()
