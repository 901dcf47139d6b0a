"""What rollouts decide about versions whose truth is known, and how many callers saw it."""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perf.rollout_calls import load_version
from perf.rollout_cases import CASES, VERSIONS, Case, Files
from testbed.gateway_process import GatewayProcess
from testbed.rollout_load import Answered, Load, latest

_ENDED = ("Succeeded", "Failed")
_PLAN = {"interval_s": 2, "gate": False}
# Caches and connections are warm before anything is compared.
_WARM_S = 2.0
# The loser's last answers are waited for.
_AFTER_S = 1.5
_DUE_AFTER_S = 20.0


def decisions(gateway: GatewayProcess, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """
    Run the chosen cases so many times, in turns, as long as there is time; yield a row for each
    rollout.
    """
    chosen = [CASES[title] for title in options.only or CASES]
    known = dict[tuple[str, str], str]()
    until_s = time.monotonic() + options.for_s
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        for number in range(options.times):
            for case in chosen:
                if time.monotonic() > until_s:
                    return
                pair = (case.champion, case.challenger)
                if pair not in known:
                    known[pair] = f"model-{len(known)}"
                    for version in pair:
                        gateway.register(
                            known[pair],
                            files.of(version).read_bytes(),
                            **(
                                {"preprocessing": record}
                                if (record := VERSIONS[version].record)
                                else {}
                            ),
                        )
                row = decide(gateway, known[pair], case, within_s=options.within_s)
                yield {"case": case.title, "run": number + 1, **row}


def decide(gateway: GatewayProcess, name: str, case: Case, *, within_s: float) -> dict[str, Any]:
    """
    Run one rollout under load, to its end or for `within_s`.

    Returns:
        How it ended, after how many seconds and requests; what callers got; when it says that it
        would have ended, if it did not; the last numbers of its metrics.
    """
    aliased = gateway.client.put(f"/api/v1/models/{name}/aliases/champion", json={"version": 1})
    assert aliased.status_code == 200, aliased.text
    load_version(gateway, name)
    traffic = case.traffic
    load = Load(
        gateway.url,
        name,
        case.pictures,
        clients=traffic.clients,
        rate_per_s=traffic.rate_per_s,
        feedback=case.feedback,
    )
    with load:
        threading.Event().wait(_WARM_S)
        began_s = time.time()
        created = gateway.client.post(
            f"/api/v1/models/{name}/rollouts", json={"version": 2, **_PLAN, **case.plan}
        )
        assert created.status_code == 200, created.text
        ended, due_s = _end_of(gateway, created.json()["id"], within_s)
        threading.Event().wait(_AFTER_S if ended["phase"] in _ENDED else 0.0)
    decided_s = time.time()
    if ended["finished_at"] is not None:
        decided_s = datetime.fromisoformat(ended["finished_at"]).timestamp()
    else:
        path = f"/api/v1/rollouts/{ended['id']}/rollback"
        answer = gateway.client.post(path)
        assert answer.status_code == 200, (answer.text, ended)
    during = [answer for answer in load.answers if began_s <= answer.ended_s <= decided_s]
    shown = sum(answer.version == "2" for answer in during)
    numbers = ended["verdicts"][-1]["metrics"] if ended["verdicts"] else []
    return {
        "right": case.right,
        "phase": ended["phase"],
        "ended_in": f"{ended['strategy']} {ended['step']}",
        "reason": ended["reason"],
        "seconds": round(decided_s - began_s, 1),
        "requests": len(during),
        "share_that_saw_it": round(shown / max(1, len(during)), 4),
        "statuses": dict(load.statuses),
        "transport_errors": len(load.errors),
        "verdict_to_last_answer_ms": _still_ms(load.answers, ended, decided_s),
        "due_s": due_s,
        "notice": ended["notice"],
        "numbers": {
            metric["metric"]: [
                metric["champion"],
                metric["challenger"],
                metric["challenger_samples"],
                metric["outcome"],
            ]
            for metric in numbers
        },
    }


def _still_ms(answers: Sequence[Answered], ended: Mapping[str, Any], end_s: float) -> float | None:
    """How long after the verdict the loser's last answer came; 0 if before; None if undecided."""
    if ended["finished_at"] is None:
        return None
    loser = "1" if ended["phase"] == "Succeeded" else "2"
    last_s = latest(answers, loser)
    return 0.0 if last_s is None else round(max(0.0, 1000 * (last_s - end_s)), 1)


def _end_of(
    gateway: GatewayProcess, rollout: str, within_s: float
) -> tuple[dict[str, Any], float | None]:
    """
    Wait for the end of a rollout, for so long at most.

    Returns:
        Its last state, and after how many seconds in all it said, early on, that its step would be
        decided.
    """
    began_s, tick = time.monotonic(), threading.Event()
    due_s: float | None = None
    while True:
        answer = gateway.client.get(f"/api/v1/rollouts/{rollout}")
        if answer.status_code == 503:  # a full machine may keep the database waiting
            tick.wait(1.0)
            continue
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        took_s = time.monotonic() - began_s
        if due_s is None and took_s > _DUE_AFTER_S and state["due_at"] is not None:
            until = datetime.fromisoformat(state["due_at"]) - datetime.now(UTC)
            due_s = round(took_s + until.total_seconds(), 1)
        if state["phase"] in _ENDED or took_s > within_s:
            return state, due_s
        tick.wait(0.25)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows that were measured so far, one JSON line each."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write a Markdown table of all rows, one line for each case."""
    by_case: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    heads = (
        "challenger, traffic, strategy",
        "right",
        "others",
        "seconds",
        "requests",
        "share that saw the challenger",
        "failed requests",
    )
    titles = [*CASES, *(by_case.keys() - CASES.keys())]
    lines = [_line(title, by_case[title]) for title in titles if title in by_case]
    return "\n".join(["| " + " | ".join(heads) + " |", "|---|--:|---|--:|--:|--:|--:|", *lines])


def _line(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    right = [row for row in rows if row["phase"] == row["right"]]
    others = Counter(
        f"{row['phase']} in {row['ended_in']}" for row in rows if row["phase"] != row["right"]
    )
    failed = sum(
        row["transport_errors"]
        + sum(count for status, count in row["statuses"].items() if int(status) != 200)
        for row in rows
    )
    shares = [row["share_that_saw_it"] for row in rows]
    cells = (
        f"{rows[0]['right']}: {title}",
        f"{len(right)} of {len(rows)}",
        ", ".join(f"{count} {what}" for what, count in others.items()) or "–",
        _span([row["seconds"] for row in rows], "g"),
        _span([row["requests"] for row in rows], ",.0f"),
        f"{100 * statistics.fmean(shares):.1f} %",
        f"{failed:,}",
    )
    return "| " + " | ".join(cells) + " |"


def _span(values: Sequence[float], form: str) -> str:
    """The median, and from the least to the most in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"
