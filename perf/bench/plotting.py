"""The plot, drawn by matplotlib in a virtual environment of its own: the product needs none."""

import subprocess
from pathlib import Path

from perf.bench import servers


def plot(result: Path) -> None:
    """Draw RESULT.svg beside RESULT.json."""
    python = servers.make_venv("plot")
    script = Path(__file__).with_name("draw.py")
    subprocess.run([str(python), str(script), str(result)], check=True)
