"""
What is searched: the few fields of a model configuration that decide how fast a model answers on a
machine, and that change nothing about what it answers.

    instance_group: count                           processes that each hold the model
    parameters: intra_op_thread_count               threads inside one run
    parameters: session.intra_op.allow_spinning     whether such a thread spins while it waits
    dynamic_batching: max_queue_delay_microseconds  whether requests are joined, and for how long
    max_batch_size                                  how many are joined at most

A candidate with a batcher has no queue policy: with one, Triton's batcher can sleep while requests
wait (docs/decisions/0004). The largest batch is never made smaller than it is, because callers may
send batches. Pure: nothing here runs anything.

Source: Triton, Model Configuration; onnxruntime_backend README; onnxruntime, Thread management.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gateway.converter import model_config

FIELDS = ("instance_group", "parameters", "dynamic_batching", "max_batch_size")
"""The fields of a config.pbtxt that a candidate may change."""

THREADS = "intra_op_thread_count"
SPINNING = "session.intra_op.allow_spinning"
QUEUE_DELAYS_US = (0, 200, 1000)
_LARGE_BATCHES = (16, 32)
# Where the kind is a GPU or left to Triton, Triton's default is one; on a CPU it is two.
_TRITON_INSTANCES = 2

Config = Any
"""Triton's ModelConfig message."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One point of the search.

    Attributes:
        instances: Triton instances.
        threads: Threads of one run; 0: onnxruntime's default, one for each core.
        spinning: Whether those threads spin while they wait; None: onnxruntime's default, they do.
        queue_delay_us: How long a request waits for others to be joined with, microseconds; None:
            requests are not joined.
        max_batch_size: Largest batch; 0: the model takes none.
    """

    instances: int
    threads: int
    spinning: bool | None
    queue_delay_us: int | None
    max_batch_size: int

    def __str__(self) -> str:
        threads = "all cores" if self.threads == 0 else _count(self.threads, "thread")
        said = [_count(self.instances, "instance"), threads]
        if self.spinning is not None:
            said.append("spinning" if self.spinning else "not spinning")
        if self.queue_delay_us is not None:
            said.append(f"batches of {self.max_batch_size} within {self.queue_delay_us} µs")
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Space:
    """
    What may be varied of one model on one machine.

    Attributes:
        cores: Cores that the model may use.
        instances: False where the config places instances in several groups, which is respected.
        batching: Whether requests may be joined: the model takes batches, and nothing else decides
            about its requests' order (sequences, ensembles).
    """

    cores: int
    instances: bool
    batching: bool

    def placements(self, present: Candidate) -> list[Candidate]:
        """
        List the ways to share the cores out, the likeliest first: instances × threads equal to the
        cores, then fewer, then up to twice as many (a run does not keep all its threads busy).
        """
        counts = _powers(self.cores)
        pairs = [
            (instances, threads)
            for instances in ([*counts, 2 * self.cores] if self.instances else [present.instances])
            for threads in counts
            if instances * threads <= 2 * self.cores
        ]
        pairs.sort(key=lambda pair: (_distance(pair[0] * pair[1], self.cores), -pair[0]))
        return [replace(present, instances=i, threads=t) for i, t in pairs]

    def unbatched(self, present: Candidate) -> list[Candidate]:
        """Give the present candidate without its batcher, if it has one that may be taken away."""
        if not self.batching or present.queue_delay_us is None:
            return []
        return [replace(present, queue_delay_us=None)]

    def variants(self, base: Candidate) -> list[Candidate]:
        """
        List what can be changed of a placement, the likeliest first: how requests are joined, and
        spinning.
        """
        found = []
        if self.batching:
            found += [replace(base, queue_delay_us=delay) for delay in (None, *QUEUE_DELAYS_US)]
            joined = 0 if base.queue_delay_us is None else base.queue_delay_us
            found += [
                replace(base, queue_delay_us=joined, max_batch_size=size)
                for size in _LARGE_BATCHES
                if size > base.max_batch_size
            ]
        found = without_repeats(found, but=[base])
        if base.threads != 1:
            found.insert(min(1, len(found)), replace(base, spinning=base.spinning is False))
        return found


def read_candidate(config: Config) -> Candidate:
    """Tell which point of the search a configuration is."""
    groups = config.instance_group
    spinning = config.parameters[SPINNING].string_value if SPINNING in config.parameters else None
    batches = config.HasField("dynamic_batching")
    return Candidate(
        instances=sum(max(1, group.count) for group in groups) or _TRITON_INSTANCES,
        threads=_threads(config),
        spinning=None if spinning is None else spinning != "0",
        queue_delay_us=(config.dynamic_batching.max_queue_delay_microseconds if batches else None),
        max_batch_size=config.max_batch_size,
    )


def read_space(config: Config, *, cores: int) -> Space:
    """Tell what may be varied of a configuration."""
    scheduling = config.WhichOneof("scheduling_choice")
    return Space(
        cores=cores,
        instances=len(config.instance_group) <= 1,
        batching=config.max_batch_size > 0 and scheduling in {None, "dynamic_batching"},
    )


def apply(config: Config, candidate: Candidate) -> Config:
    """
    Return a copy of a configuration that is the candidate. What the candidate says no other than
    the configuration keeps its own words: the present candidate gives the configuration itself.
    """
    present = read_candidate(config)
    changed = type(config)()
    changed.CopyFrom(config)
    if candidate.instances != present.instances:
        if not changed.instance_group:
            changed.instance_group.add()
        changed.instance_group[0].count = candidate.instances
    if candidate.threads != present.threads:
        changed.parameters[THREADS].string_value = str(candidate.threads)
    if candidate.spinning != present.spinning:
        if candidate.spinning is None:
            del changed.parameters[SPINNING]
        else:
            changed.parameters[SPINNING].string_value = str(int(candidate.spinning))
    batching = (candidate.queue_delay_us, candidate.max_batch_size)
    if batching != (present.queue_delay_us, present.max_batch_size):
        changed.max_batch_size = candidate.max_batch_size
        changed.ClearField("dynamic_batching")
        if candidate.queue_delay_us is not None:
            changed.dynamic_batching.SetInParent()
            changed.dynamic_batching.max_queue_delay_microseconds = candidate.queue_delay_us
    return changed


def load_text(config: Config, candidate: Candidate, version: int, *, name: str) -> str:
    """Give the JSON with which Triton loads one version as a candidate, under another name."""
    changed = model_config.with_versions(apply(config, candidate), [version])
    changed.name = name
    return model_config.to_json(changed)


def without_repeats(
    candidates: Iterable[Candidate], *, but: Iterable[Candidate] = ()
) -> list[Candidate]:
    """Keep the first of each candidate, and none of `but`."""
    known = set(but)
    return [candidate for candidate in dict.fromkeys(candidates) if candidate not in known]


def _threads(config: Config) -> int:
    text = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    return int(text) if text.isdecimal() else 0


def _powers(cores: int) -> list[int]:
    """1, 2, 4, … up to the cores, and the cores themselves."""
    return sorted({*(1 << bit for bit in range(cores.bit_length())), cores})


def _distance(used: int, cores: int) -> tuple[int, int]:
    return (0 if used == cores else 1 if used < cores else 2), abs(used - cores)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
