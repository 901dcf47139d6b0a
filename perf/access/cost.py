"""
What a key with a rate, a limit in flight and patterns costs a run of W2.

Two open gateways and two with keys stand side by side; in each round each is loaded alone, in
another order. Open beside open says what the measurement itself is worth.
"""

import contextlib
import statistics
import tempfile
from pathlib import Path

import psutil

from perf.access._clients import asked_gateway

ROUNDS = 8
SECONDS = 2
CLIENTS = (1, 8)
_NAMES = ("open", "keyed", "open again", "keyed again")


def measure() -> dict[str, object]:
    """Compare answers per second, and the gateway process's CPU time for each."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        asked, keys = {}, {}
        for name in _NAMES:
            keyed = name.startswith("keyed")
            asked[name] = stack.enter_context(
                asked_gateway(Path(place) / name.replace(" ", "-"), keyed=keyed)
            )
            terms = {"role": "infer", "models": ["ti*"], "rate_per_s": 1e6, "in_flight": 1000}
            keys[name] = asked[name].make_key("k", **terms) if keyed else ""
        processes = {name: psutil.Process(asked[name].gateway.process.pid) for name in _NAMES}
        for name in _NAMES:
            asked[name].load(key=keys[name], clients=8, seconds=2)
        found: dict[str, object] = {}
        for clients in CLIENTS:
            rates: dict[str, list[float]] = {name: [] for name in _NAMES}
            cpu_us: dict[str, list[float]] = {name: [] for name in _NAMES}
            for number in range(ROUNDS):
                turn = number % len(_NAMES)
                order = _NAMES[turn:] + _NAMES[:turn]
                for name in order if number % 2 else reversed(order):
                    before_s = sum(processes[name].cpu_times()[:2])
                    rate = asked[name].load(key=keys[name], clients=clients, seconds=SECONDS)
                    after_s = sum(processes[name].cpu_times()[:2])
                    rates[name].append(rate)
                    cpu_us[name].append(1e6 * (after_s - before_s) / (rate * SECONDS))
            found[f"{clients} clients"] = {
                "answers_per_s": {
                    name: round(statistics.median(rates[name]), 1) for name in _NAMES
                },
                "gateway_cpu_us": {
                    name: round(statistics.median(cpu_us[name]), 1) for name in _NAMES
                },
                "keyed_to_open_rate": _ratio(rates, "keyed"),
                "keyed_to_open_cpu": _ratio(cpu_us, "keyed"),
                "open_again_to_open_rate": _of(rates["open again"], rates["open"]),
                "open_again_to_open_cpu": _of(cpu_us["open again"], cpu_us["open"]),
            }
        return found


def _ratio(values: dict[str, list[float]], name: str) -> float:
    """Compare both of a kind with both open ones, round by round."""
    ours = [a + b for a, b in zip(values[name], values[f"{name} again"], strict=True)]
    open_ = [a + b for a, b in zip(values["open"], values["open again"], strict=True)]
    return _of(ours, open_)


def _of(ours: list[float], others: list[float]) -> float:
    ratios = [mine / other for mine, other in zip(ours, others, strict=True)]
    return round(statistics.median(ratios), 4)
