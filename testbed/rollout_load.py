"""
Callers that ask all the time and write down what they were answered, when, and by which version.

They are threads over plain connections, so that hundreds of them fit beside a server on a small
machine. Some of what was answered can be told to have been right or wrong, a while later, as
feedback does.
"""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

FEEDBACK_AFTER_S = 1.5
# How many tell the true classes. What they do not get to within so long is not told: on a full
# machine it would be of answers that were given ever longer ago.
_TELLERS, _TOO_LATE_S = 4, 3.0


@dataclass(frozen=True, slots=True)
class Picture:
    """The body of a `run`, and the true class of its image."""

    body: bytes
    category: int


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it began and ended (Unix seconds), and what came back."""

    began_s: float
    ended_s: float
    status: int
    version: str
    right: bool
    client: int

    @property
    def took_s(self) -> float:
        """How long the caller waited."""
        return self.ended_s - self.began_s


class Load:
    """
    Clients for the length of a block; `answers` is what they got.

    Args:
        url: The gateway.
        model: The model that they ask, with no version pinned unless `version` says so.
        pictures: What they send, in an order of their own.
        clients: How many ask at once.
        keys: Each sends a key of its own, and so stays on its side of a split.
        feedback: The share of answers whose true class is told, 0 to 1, if the gateway keeps up.
        version: The version to pin.
        pause_s: How long each waits between an answer and its next request, in seconds.
        rate_per_s: All of them together send so many requests a second, by chance like strangers
            (Poisson), as long as one of them is free; None: each sends as soon as it may.
    """

    def __init__(
        self,
        url: str,
        model: str,
        pictures: Sequence[Picture],
        *,
        clients: int,
        keys: bool = False,
        feedback: float = 0.0,
        version: int | None = None,
        pause_s: float = 0.0,
        rate_per_s: float | None = None,
    ) -> None:
        self.answers: list[Answered] = []
        self.errors: list[str] = []
        self._address = urlsplit(url).netloc
        self._path = f"/api/v1/run/{model}" + ("" if version is None else f"?version={version}")
        self._pictures, self._keys, self._feedback = pictures, keys, feedback
        self._pause_s = pause_s
        self._arrivals = None if rate_per_s is None else _Arrivals(rate_per_s)
        self._told: deque[tuple[float, str, int]] = deque()
        self._stop = threading.Event()
        self.clients = clients
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        if feedback:
            self._threads += [threading.Thread(target=self._tell) for _ in range(_TELLERS)]

    @property
    def statuses(self) -> Counter[int]:
        """How often each status came."""
        return Counter(answer.status for answer in self.answers)

    @property
    def versions(self) -> Counter[str]:
        """How often each version answered."""
        return Counter(answer.version for answer in self.answers)

    @property
    def wrong(self) -> int:
        """Answers that named the wrong class."""
        return sum(answer.status == 200 and not answer.right for answer in self.answers)

    def _ask(self, number: int) -> None:
        chance = random.Random(number)
        headers = {"Content-Type": "application/json"}
        if self._keys:
            headers["X-Rollout-Key"] = f"client-{number}"
        connection = http.client.HTTPConnection(self._address, timeout=60)
        arrivals = self._arrivals
        while not self._stop.wait(self._pause_s if arrivals is None else arrivals.wait_s()):
            picture = chance.choice(self._pictures)
            began_s = time.time()
            try:
                connection.request("POST", self._path, picture.body, headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
                continue
            ended_s, status = time.time(), response.status
            right = status == 200 and int(json.loads(content)["category"]) == picture.category
            version = response.headers.get("x-model-version", "")
            self.answers.append(Answered(began_s, ended_s, status, version, right, number))
            if self._feedback and status == 200 and chance.random() < self._feedback:
                request_id = response.headers["x-request-id"]
                self._told.append((ended_s + FEEDBACK_AFTER_S, request_id, picture.category))
        connection.close()

    def _tell(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while not self._stop.wait(0.0 if self._told else 0.05):
            try:
                due_s, request_id, category = self._told.popleft()
            except IndexError:
                continue  # another one took it
            if time.time() > due_s + _TOO_LATE_S:
                continue
            if self._stop.wait(max(0.0, due_s - time.time())):
                break
            body = json.dumps({"request_id": request_id, "category": f"{category:02d}"})
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/v1/feedback", body, headers)
            connection.getresponse().read()
        connection.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class _Arrivals:
    """When requests come: a Poisson process, which several clients take from in turn."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._chance = random.Random(1)
        self._lock = threading.Lock()
        self._next_s = time.monotonic()

    def wait_s(self) -> float:
        """Take the next arrival; how long until then, 0 if it is over already, in seconds."""
        with self._lock:
            self._next_s += self._chance.expovariate(self._rate_per_s)
            return max(0.0, self._next_s - time.monotonic())


def latest(answers: Sequence[Answered], version: str) -> float | None:
    """When the last answer of a version came, Unix seconds."""
    return max((answer.ended_s for answer in answers if answer.version == version), default=None)


@dataclass(frozen=True, slots=True)
class Reign:
    """
    From when to when a version may answer: from the beginning of the change that let it, to the end
    of the change that took it away; Unix seconds.
    """

    version: str
    from_s: float
    until_s: float


def illegal(answers: Sequence[Answered], reigns: Sequence[Reign]) -> list[Answered]:
    """Those that were answered by a version at no instant of whose reign they were under way."""
    by_version: dict[str, list[Reign]] = {}
    for reign in reigns:
        by_version.setdefault(reign.version, []).append(reign)
    return [
        answer
        for answer in answers
        if not any(
            answer.began_s <= reign.until_s and answer.ended_s >= reign.from_s
            for reign in by_version.get(answer.version, ())
        )
    ]


def reigns_of(changes: Sequence[tuple[float, float, Sequence[str]]]) -> list[Reign]:
    """
    What may answer when, from changes in order: (began, ended, the versions allowed afterwards),
    Unix seconds. During a change both what was allowed before and what is afterwards may answer.
    """
    after: Sequence[tuple[float, float, Sequence[str]]] = [*changes[1:], (0.0, float("inf"), ())]
    return list(
        itertools.chain.from_iterable(
            (Reign(version, began_s, until_s) for version in allowed)
            for (began_s, _, allowed), (_, until_s, _) in zip(changes, after, strict=True)
        )
    )
