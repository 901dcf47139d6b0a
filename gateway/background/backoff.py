"""How long to wait before something that ended is started again: a process, or a task."""

# Long enough to have loaded what it should and to have answered: what dies later is a single event.
LONG_LIFE_S = 2.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0


def early_deaths(before: int, lived_s: float) -> int:
    """Return the count of early deaths in a row, now that one more ended after `lived_s`."""
    return 0 if lived_s >= LONG_LIFE_S else before + 1


def restart_delay_s(deaths: int) -> float:
    """
    Return the delay after `deaths` early deaths in a row: 0, 0, 0.5, 1, 2, 4 … 30 seconds.

    The first restart is immediate, because most deaths are single events. There is no jitter: one
    gateway restarts one server.
    """
    if deaths <= 1:
        return 0.0
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(deaths - 2, 16))
