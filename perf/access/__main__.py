"""
What access costs and what it holds, one question at a time.

    python -m perf.access                names the scripts
    python -m perf.access cost           runs one, prints its numbers as JSON
"""

import perf.access as package
from perf.named_scripts import run_named

if __name__ == "__main__":
    run_named(package)
