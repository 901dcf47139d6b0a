"""
Publish again and again, each time in a process that is killed one step later than the last.

A step is anything that changes or syncs the repository: a file opened, a directory made, a rename,
a removal, an fsync. Python's audit hooks tell of them right before they happen; fsync has no such
event and is wrapped. Each attempt works on a copy of the repository, which is left for the test to
look at, named after the number of the step.

Run as a program: `python publish_until_killed.py BEFORE SOURCE ATTEMPTS VERSION`.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from gateway.converter.model_config import ConfigOptions
from gateway.converter.placement import Placement
from gateway.converter.publish import publish_version

LABELS = ["a", "b", "c", "d", "e", "f", "g"]
_CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def publish(source: Path, repository: Path, version: int) -> None:
    """Publish as the test expects it."""
    publish_version(
        source,
        repository=repository,
        name="m",
        version=version,
        options=ConfigOptions(placement=Placement(1, 1)),
        labels=LABELS,
    )


def _die_at(step: int, repository: Path) -> None:
    """Kill this process right before its step number `step`, counted from 0."""
    passed = 0

    def count() -> None:
        nonlocal passed
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        # rmtree names its entries relative to a descriptor.
        if event in _CHANGES and (
            str(arguments[0]).startswith(str(repository)) or event in {"os.remove", "os.rmdir"}
        ):
            count()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted_fsync  # type: ignore[assignment]  # the builtin's positional-only signature
    sys.addaudithook(hook)


def main() -> None:
    """Try every step until an attempt survives."""
    before, source, attempts = (Path(argument) for argument in sys.argv[1:4])
    version = int(sys.argv[4])
    for step in range(1000):
        repository = attempts / f"{step:03}"
        shutil.copytree(before, repository)
        child = os.fork()
        if child == 0:
            _die_at(step, repository)
            publish(source, repository, version)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main()
