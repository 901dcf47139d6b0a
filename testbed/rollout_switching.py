"""Move the traffic of a model to and fro under load, and know which version was in force when."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from testbed.rollout_load import Answered, Load, illegal, reigns_of


@dataclass
class Switched:
    """What was changed: (began, ended, the versions that may answer from then on), Unix seconds."""

    changes: list[tuple[float, float, tuple[str, ...]]] = field(default_factory=list)

    def illegal(self, answers: Sequence[Answered]) -> list[Answered]:
        """Those answered by a version that was not in force at any instant of the request."""
        return illegal(answers, reigns_of(self.changes))


def switch(url: str, model: str, load: Load, *, seconds: float = 0.0) -> Switched:
    """
    Promote version 2, put version 1 back by the alias, roll version 2 back, and again as long as
    there is time; between any two changes callers are answered.

    Args:
        url, model: Where. Version 1 is the champion, and both are loaded.
        load: The callers.
        seconds: At least one turn is made, and as many as begin within that time.
    """
    done, until_s = Switched([(0.0, 0.0, ("1",))]), time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        while True:
            for promoted in (True, False):
                body = {"version": 2, "strategy": "canary", "steps": [50], "interval_s": 3600}
                begun = _change(done, client, f"models/{model}/rollouts", body, ("1", "2"))
                _wait_for_answers(load)
                if promoted:
                    _change(done, client, f"rollouts/{begun['id']}/promote", None, ("2",))
                    _wait_for_answers(load)
                    _change(
                        done, client, f"models/{model}/aliases/champion", {"version": 1}, ("1",)
                    )
                else:
                    _change(done, client, f"rollouts/{begun['id']}/rollback", None, ("1",))
                _wait_for_answers(load)
            if time.monotonic() >= until_s:
                return done


def _change(
    done: Switched,
    client: httpx.Client,
    path: str,
    body: dict[str, object] | None,
    allowed: tuple[str, ...],
) -> dict[str, str]:
    began_s = time.time()
    method = "PUT" if "/aliases/" in path else "POST"
    answer = client.request(method, f"/api/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    done.changes.append((began_s, time.time(), allowed))
    document: dict[str, str] = answer.json()
    return document


def _wait_for_answers(load: Load) -> None:
    """Wait until every other caller, about, has been answered once more."""
    wanted, tick = len(load.answers) + load.clients // 2 + 1, threading.Event()
    while len(load.answers) < wanted:
        tick.wait(0.02)
