"""
Rollouts with a known truth: how often are they wrong, and how many requests do they take?

Thousands of rollouts run side by side, judged every ten seconds (later, whenever 1 % more time has
passed) by the functions of `gateway.rollouts.statistics.evidence`; beside them Flagger's plain
thresholds in the same worlds.
What is drawn are the counts that arrive between two checks, not single requests, which is the same
in distribution. A cheap upper bound of the evidence (the likelihood ratio at its best bet) decides
which rollouts need the exact evaluation; a bound below the threshold proves that there is no
decision, so the result is exact.

    nice -n 19 python -m perf.rollout_simulation [--runs 2000] [--only rollouts,callers] [--docs
    docs/versioning-statistics.md]

writes perf/results/rollout_simulation.json and, between the markers, the tables of the document.
With `--only` the other tables stay as they are.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from perf.rollout_simulation.callers import simulate_callers
from perf.rollout_simulation.flagger import flagger
from perf.rollout_simulation.planning import sample_sizes
from perf.rollout_simulation.rollouts import PLANS, simulate
from perf.rollout_simulation.tables import tables, write_into
from perf.rollout_simulation.worlds import (
    BETTER,
    BETTER_5,
    BETTER_10,
    CHURNED,
    DAY_S,
    EDGE,
    EQUAL,
    FAILING,
    FLIPPED,
    INCIDENTS,
    LOSES,
    OUTAGE,
    QUIET,
    SAME,
    SLOW,
    SLOW_30,
    SLOW_90,
    SLOW_190,
    WORLDS,
    WORSE,
    WORSE_2,
    World,
)

_RESULTS = Path(__file__).parents[1] / "results" / "rollout_simulation.json"
HELD = (("half", SAME), ("half", INCIDENTS), ("chain", EDGE), ("half", EDGE))
FLAGGER_WORLDS = (SAME, INCIDENTS, QUIET, BETTER, WORSE, SLOW, FAILING, FLIPPED)


def _labels(world: World, text: str, **changes: Any) -> World:
    return replace(world, name=f"{world.name}; {text}", **changes)


HOUR = {"expected": True, "delay_s": 3600.0, "check_s": 30.0, "days": 2.0}
DAY = {"expected": True, "delay_s": DAY_S, "check_s": 300.0, "days": 4.0}
LABELS = (
    _labels(SAME, "no labels", feedback=0.0),
    _labels(FLIPPED, "no labels", feedback=0.0),
    CHURNED,
    BETTER_5,
    BETTER_10,
    _labels(WORSE, "5 % labelled", feedback=0.05),
    _labels(WORSE_2, "5 % labelled", feedback=0.05),
    WORSE_2,
    _labels(WORSE, "labels an hour late", **HOUR),
    _labels(BETTER, "labels an hour late", **HOUR),
    _labels(WORSE, "labels a day late", **DAY),
    _labels(BETTER, "labels a day late", **DAY),
    _labels(WORSE, "half of the complaints", expected=True, complaints=True, feedback=0.5),
    LOSES,
)
TRAFFIC = (
    SLOW_30,
    SLOW_90,
    SLOW_190,
    replace(OUTAGE, feedback=0.0),
    replace(INCIDENTS, feedback=0.0),
)
CALLERS = (30, 300, 3000)
TABLES = ("rollouts", "held_for_a_day", "flagger", "callers")


def run(runs: int, processes: int, only: Sequence[str]) -> dict[str, Any]:
    """The tables that are asked for."""
    began_s = time.monotonic()
    chain = (*WORLDS, *LABELS, *TRAFFIC)
    canary = (_labels(SAME, "no labels", feedback=0.0), SLOW, FAILING, WORSE, QUIET)
    works = {
        "rollouts": [
            *(partial(simulate, w, PLANS["chain"], seed=10 + i) for i, w in enumerate(chain)),
            *(partial(simulate, w, PLANS["canary"], seed=40 + i) for i, w in enumerate(canary)),
            *(
                partial(simulate, w, PLANS["ab"], seed=50 + i)
                for i, w in enumerate((EQUAL, BETTER, WORSE))
            ),
        ],
        "held_for_a_day": [
            partial(simulate, replace(w, requests_per_s=2.0), PLANS[plan], seed=60 + i, held=True)
            for i, (plan, w) in enumerate(HELD)
        ],
        "callers": [
            partial(simulate_callers, number, seed=70 + number, each_counts=each)
            for number in CALLERS
            for each in (False, True)
        ],
        "flagger": [
            *(
                partial(flagger, w, seed=80, relative=relative, threshold=threshold, held=False)
                for w in FLAGGER_WORLDS
                for relative in (False, True)
                for threshold in (1, 5)
            ),
            *(
                partial(flagger, w, seed=90, relative=relative, threshold=5, held=True)
                for w in (SAME, INCIDENTS)
                for relative in (False, True)
            ),
        ],
    }
    with ProcessPoolExecutor(processes) as pool:
        pending = {name: [pool.submit(work, runs=runs) for work in works[name]] for name in only}
        found = {name: [each.result() for each in parts] for name, parts in pending.items()}
    return {
        "runs": runs,
        "seconds": {",".join(only): round(time.monotonic() - began_s, 1)},
        "sample_sizes": sample_sizes(),
        **found,
    }


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default=",".join(TABLES))
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--json", type=Path, default=_RESULTS)
    arguments = parser.parse_args()
    result = run(arguments.runs, arguments.processes, arguments.only.split(","))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    if arguments.json.exists():
        result = json.loads(arguments.json.read_text(encoding="utf-8")) | result
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    parts = tables(result)
    print("\n\n".join(parts.values()), f"\n\n{result['seconds']}")
    if arguments.docs:
        write_into(arguments.docs, parts)


if __name__ == "__main__":
    main()
