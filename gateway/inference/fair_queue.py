"""
Who is next: requests that wait for a place, shared fairly between those who ask.

Each caller has a line of its own, and the lines take turns, so that one who sends a hundred
requests waits for its own and nobody else does. While several callers ask, none has more under way
than `beside_others`: what is under way may wait in Triton's own queue, where nobody takes turns.
Lines of batch work are served when no other line has anybody who may go. A full queue makes room
for a caller with a shorter line, at the end of the longest one. Pure: no clock, no tasks.
"""

from collections import Counter, OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar

Waiter = TypeVar("Waiter")

# Who sent none of the last so many requests does not ask any more.
_LATELY = 256


class Share(NamedTuple):
    """
    What a caller may have of the places.

    Attributes:
        caller: Tells callers apart; "" for all that nobody tells apart.
        in_flight: How many of its requests are worked on at once; None for any number.
        batch: Its requests wait while those of others do not.
    """

    caller: str = ""
    in_flight: int | None = None
    batch: bool = False


EVERYBODY = Share()
"""The share of callers who cannot be told apart."""


class FairQueue(Generic[Waiter]):
    """
    Waiters in lines. `working` counts what each caller has under way.

    Args:
        beside_others: How many requests of one caller are worked on at once while another caller
            had one of the last requests, too; None for any number.
    """

    def __init__(self, beside_others: int | None = None) -> None:
        self.working: Counter[str] = Counter()
        self._beside_others = beside_others
        self._lately: Counter[str] = Counter()
        self._last: deque[str] = deque()
        self._lines: OrderedDict[Share, deque[Waiter]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def may_go(self, share: Share) -> bool:
        """Whether a caller has less under way than it may have."""
        working = self.working[share.caller]
        if share.in_flight is not None and working >= share.in_flight:
            return False
        if self._beside_others is None or working < self._beside_others:
            return True
        return len(self._lately) == (share.caller in self._lately)

    def began(self, share: Share) -> None:
        """Take note that a request of a caller is under way."""
        self.working[share.caller] += 1
        # Nobody in particular is the gateway's own work, beside which callers go on as ever.
        if share.caller:
            self._lately[share.caller] += 1
        self._last.append(share.caller)
        if len(self._last) > _LATELY:
            first = self._last.popleft()
            if first:
                self._lately[first] -= 1
                if not self._lately[first]:
                    del self._lately[first]

    def ended(self, share: Share) -> None:
        """Take note that one is under way no more."""
        self.working[share.caller] -= 1
        if not self.working[share.caller]:
            del self.working[share.caller]

    def add(self, share: Share, waiter: Waiter) -> None:
        """Let a waiter stand at the end of its caller's line."""
        self._lines.setdefault(share, deque()).append(waiter)

    def remove(self, share: Share, waiter: Waiter) -> None:
        """Forget a waiter that gave up; one that is not there is forgotten already."""
        line = self._lines.get(share)
        if line is not None and waiter in line:
            line.remove(waiter)
            self._drop_empty(share)

    def next(self) -> tuple[Share, Waiter] | None:
        """Take out who is next; None if nobody may go."""
        for batch in (False, True):
            for share, line in self._lines.items():
                if share.batch is batch and self.may_go(share):
                    waiter = line.popleft()
                    self._lines.move_to_end(share)
                    self._drop_empty(share)
                    return share, waiter
        return None

    def can_make_room(self, share: Share) -> bool:
        """Whether another line is to give up a waiter before a caller is refused."""
        return self._longest(share) is not None

    def make_room(self, share: Share) -> Waiter | None:
        """
        Take out the last waiter of the longest line, if one more of `share` would still wait in a
        shorter one; None if not.
        """
        longest = self._longest(share)
        if longest is None:
            return None
        waiter = self._lines[longest].pop()
        self._drop_empty(longest)
        return waiter

    def _longest(self, share: Share) -> Share | None:
        if not self._lines:
            return None
        longest = max(self._lines, key=lambda each: (each.batch, len(self._lines[each])))
        own = len(self._lines.get(share, ()))
        if longest == share or (longest.batch, len(self._lines[longest])) <= (share.batch, own + 1):
            return None
        return longest

    def _drop_empty(self, share: Share) -> None:
        if not self._lines[share]:
            del self._lines[share]
