"""
Rollouts with a known truth: how often are they wrong, and how many requests do they take?

Thousands of rollouts run side by side, judged every ten seconds by the functions of
`gateway.rollouts.statistics.evidence`; beside them Flagger's plain thresholds in the same worlds.
What is drawn are the counts that arrive between two checks, not single requests, which is the same
in distribution. A cheap upper bound of the evidence (the likelihood ratio at its best bet) decides
which rollouts need the exact evaluation; a bound below the threshold proves that there is no
decision, so the result is exact.

    nice -n 19 python -m perf.rollout_simulation [--runs 2000] [--docs
    docs/versioning-statistics.md]

writes perf/results/rollout_simulation.json and, between the markers, the tables of the document.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from perf.rollout_simulation.flagger import flagger
from perf.rollout_simulation.planning import sample_sizes
from perf.rollout_simulation.rollouts import PLANS, simulate
from perf.rollout_simulation.tables import tables, write_into
from perf.rollout_simulation.worlds import (
    BETTER,
    EDGE,
    EQUAL,
    FAILING,
    FLIPPED,
    INCIDENTS,
    QUIET,
    SAME,
    SLOW,
    WORLDS,
    WORSE,
)

_RESULTS = Path(__file__).parents[1] / "results" / "rollout_simulation.json"
HELD = (("half", SAME), ("half", INCIDENTS), ("chain", EDGE), ("half", EDGE))
FLAGGER_WORLDS = (SAME, INCIDENTS, QUIET, BETTER, WORSE, SLOW, FAILING, FLIPPED)


def run(runs: int) -> dict[str, Any]:
    """Every table."""
    started = time.process_time()
    rollouts = [
        simulate(world, PLANS["chain"], runs=runs, seed=10 + i) for i, world in enumerate(WORLDS)
    ]
    bad = (WORSE, SLOW, FAILING, FLIPPED)
    rollouts += [
        simulate(world, PLANS["canary"], runs=runs, seed=30 + i) for i, world in enumerate(bad)
    ]
    tested = (EQUAL, BETTER, WORSE)
    rollouts += [
        simulate(world, PLANS["ab"], runs=runs, seed=40 + i) for i, world in enumerate(tested)
    ]
    rollouts.append(simulate(QUIET, PLANS["canary"], runs=runs, seed=50))
    held = [
        simulate(replace(world, requests_per_s=2.0), PLANS[plan], runs=runs, seed=60 + i, held=True)
        for i, (plan, world) in enumerate(HELD)
    ]
    plain = [
        flagger(world, runs=runs, seed=80, relative=relative, threshold=threshold, held=False)
        for world in FLAGGER_WORLDS
        for relative in (False, True)
        for threshold in (1, 5)
    ]
    plain += [
        flagger(world, runs=runs, seed=90, relative=relative, threshold=5, held=True)
        for world in (SAME, INCIDENTS)
        for relative in (False, True)
    ]
    return {
        "runs": runs,
        "cpu_seconds": round(time.process_time() - started, 1),
        "sample_sizes": sample_sizes(),
        "rollouts": rollouts,
        "held_for_a_day": held,
        "flagger": plain,
    }


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--docs", type=Path)
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(__file__).parents[1] / "results" / "rollout_simulation.json",
    )
    arguments = parser.parse_args()
    result = run(arguments.runs)
    parts = tables(result)
    print("\n\n".join(parts.values()), f"\n\n{result['cpu_seconds']} s of CPU")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.docs:
        write_into(arguments.docs, parts)


if __name__ == "__main__":
    main()
