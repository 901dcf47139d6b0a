"""
How long the check of a key takes, by what is wrong with it.

No database, no network: the check alone.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence

from gateway.access.keyring import Keyring, StoredKey
from gateway.access.keys import new_key
from gateway.errors import Unauthenticated
from testbed.stored_key import PEPPER, KeyRow

TURNS = 100_000


def measure() -> dict[str, object]:
    """Check wrong keys of several kinds, in random order; compare medians and 95th percentiles."""
    made = [new_key() for _ in range(1000)]
    rows = [KeyRow(key.id, PEPPER.digest(key.text)) for key in made]

    async def read() -> Sequence[StoredKey]:
        return rows

    ring = Keyring(PEPPER, read)
    asyncio.run(ring.refresh())
    right = made[0].text
    # As in life: its owner has shown it, and it is known.
    ring.caller(right, 0.0)
    head, secret = right[:17], right[17:]
    wrong = {
        "no key has its id": new_key().text,
        "wrong in the first character": head + _other(secret[0]) + secret[1:],
        "wrong in the middle": head + secret[:21] + _other(secret[21]) + secret[22:],
        "wrong in the last character": head + secret[:-1] + _other(secret[-1]),
        "of another key": head + made[1].text[17:],
    }
    times_ns: dict[str, list[int]] = {name: [] for name in wrong}
    names = list(wrong)
    for _ in range(TURNS):
        random.shuffle(names)
        for name in names:
            began_ns = time.perf_counter_ns()
            try:
                ring.caller(wrong[name], 0.0)
            except Unauthenticated:
                times_ns[name].append(time.perf_counter_ns() - began_ns)
    medians = {name: statistics.median(times) for name, times in times_ns.items()}
    return {
        "checks_of_each_kind": TURNS,
        "median_ns": medians,
        "p95_ns": {name: statistics.quantiles(times, n=20)[18] for name, times in times_ns.items()},
        "largest_to_smallest_median": round(max(medians.values()) / min(medians.values()), 4),
    }


def _other(character: str) -> str:
    return "A" if character != "A" else "B"
