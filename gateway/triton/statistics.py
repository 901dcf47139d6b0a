"""
What Triton says of its models: the lines of its index, and what it has done for each version.

Source: Triton, Model Repository Extension, Statistics Extension.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of Triton's repository index. `state` is "" for a version that was never loaded."""

    name: str
    version: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """
    What Triton has done for a version since its process began.

    Attributes:
        inferences, executions: Images answered, and the batches in which they were computed.
        queue_s, compute_s: Total time in Triton's queue, and in the model.
        batch_sizes: Executions by batch size.
    """

    inferences: int
    executions: int
    queue_s: float
    compute_s: float
    batch_sizes: Mapping[int, int]

    def since(self, before: "VersionStatistics | None") -> "VersionStatistics":
        """Subtract an earlier reading; one from another process is ignored."""
        if before is None or before.inferences > self.inferences:
            return self
        return VersionStatistics(
            inferences=self.inferences - before.inferences,
            executions=self.executions - before.executions,
            queue_s=max(0.0, self.queue_s - before.queue_s),
            compute_s=max(0.0, self.compute_s - before.compute_s),
            batch_sizes={
                size: added
                for size, count in self.batch_sizes.items()
                if (added := count - before.batch_sizes.get(size, 0)) > 0
            },
        )


def read_index(answer: Any) -> list[IndexEntry]:
    """
    Read a RepositoryIndexResponse. Entries that are no model versions, such as a staging folder,
    are left out.
    """
    return [
        IndexEntry(entry.name, int(entry.version), entry.state, entry.reason)
        for entry in answer.models
        if entry.version.isdecimal()
    ]


def read_statistics(answer: Any) -> dict[tuple[str, int], VersionStatistics]:
    """Read a ModelStatisticsResponse, by model and version."""
    return {
        (entry.name, int(entry.version)): VersionStatistics(
            inferences=entry.inference_count,
            executions=entry.execution_count,
            queue_s=entry.inference_stats.queue.ns / 1e9,
            compute_s=entry.inference_stats.compute_infer.ns / 1e9,
            batch_sizes={
                batch.batch_size: batch.compute_infer.count for batch in entry.batch_stats
            },
        )
        for entry in answer.model_stats
        if entry.version.isdecimal()
    }
