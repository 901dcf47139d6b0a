"""
Print the files of the tests that failed last time, for `make test-failed`: whole files, because the
tests of a file may share a gateway and what happened to it before.
"""

import json
import sys
from pathlib import Path

_CACHE = Path(".pytest_cache/v/cache/lastfailed")


def main() -> None:
    """Print them on one line; exit code 1 if nothing failed, because then something else did."""
    failed = json.loads(_CACHE.read_text(encoding="utf-8")) if _CACHE.exists() else {}
    files = sorted({node.partition("::")[0] for node in failed})
    if not files:
        sys.exit("No test is known to have failed.")
    sys.stdout.write(" ".join(files))


if __name__ == "__main__":
    main()
