"""
File descriptors: every connection is one, and so is what Triton and the database need.

The soft limit of a process is often 1024, for the sake of programs that use select(2); the hard
limit is what the machine allows. Source: getrlimit(2); systemd.exec(5), LimitNOFILE.
"""

import resource

# For the database, Triton, logs, uploads, and what libraries open.
_KEPT_FREE = 256
_ENOUGH = 65_536


def raise_limit() -> None:
    """Allow this process, and those that it starts, as many descriptors as the machine does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room_for_connections() -> int:
    """Return how many connections fit in, with enough left for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH
    return max(16, soft - _KEPT_FREE, soft // 2 if soft < 2 * _KEPT_FREE else 0)
