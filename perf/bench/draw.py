"""Requests a second over concurrent clients, a panel for each workload: draw.py RESULT.json."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "bench"
import matplotlib.pyplot as plt  # noqa: E402 - after the backend


def main() -> None:
    """Draw medians, with the range over the rounds as whiskers."""
    path = Path(sys.argv[1])
    result = json.loads(path.read_text())
    workloads = result["workloads"]
    figure, panels = plt.subplots(
        1, len(workloads), figsize=(4.6 * len(workloads), 4), squeeze=False
    )
    for panel, (name, what) in zip(panels[0], workloads.items(), strict=True):
        for server in result["peers"]:
            rows = [
                row
                for row in result["rows"]
                if row["workload"] == name and row["server"] == server and not row["errors"]
            ]
            rates = [row["rate"] for row in rows]
            below = [row["rate"] - row["rate_range"][0] for row in rows]
            above = [row["rate_range"][1] - row["rate"] for row in rows]
            panel.errorbar(
                [row["concurrency"] for row in rows],
                rates,
                yerr=[below, above],
                marker="o",
                capsize=3,
                label=server,
                linewidth=2.5 if server == "gateway" else 1.2,
            )
        panel.set_xscale("log", base=2)
        steps = sorted({row["concurrency"] for row in result["rows"]})
        panel.set_xticks(steps, [str(step) for step in steps])
        panel.set_ylim(bottom=0)
        panel.set(title=f"{name}: {what}", xlabel="clients", ylabel="requests/s")
        panel.grid(alpha=0.3)
    lines, names = panels[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="lower center", ncols=len(names))
    machine = result["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores", fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
