"""What travels together on the path of a request, and what comes out at its end."""

import time
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gateway.registry.versions import ModelVersion
from gateway.telemetry.observation import STAGES, Observation


@dataclass(slots=True)
class Stages:
    """How long each stage of a request took, in seconds."""

    queue_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0

    def cover(self, other: "Stages") -> None:
        """Take the longer time of each stage: of requests that run side by side."""
        self.queue_s = max(self.queue_s, other.queue_s)
        self.decode_s = max(self.decode_s, other.decode_s)
        self.infer_s = max(self.infer_s, other.infer_s)

    def note(self, seen: Observation) -> None:
        """Write the stages that the request reached into its observation."""
        durations_s = (self.queue_s, self.decode_s, self.infer_s)
        for stage, took_s in zip(STAGES, durations_s, strict=True):
            if took_s > 0.0:
                seen.stages_s[stage] = took_s


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """
    One image for one version.

    Attributes:
        chosen: The version that is to answer.
        encoded: The image file's bytes.
        request_id: Travels along into Triton.
        stages: Filled in on the way.
        arrived_s: When the request arrived (performance counter).
    """

    chosen: ModelVersion
    encoded: bytes
    request_id: str
    stages: Stages = field(default_factory=Stages)
    arrived_s: float = field(default_factory=time.perf_counter)

    @property
    def served(self) -> tuple[str, int]:
        """The model's name and the version's number, as the replicas know it."""
        return self.chosen.model, self.chosen.version

    def to(self, version: ModelVersion) -> "ImageRequest":
        """Return the same request for another version; both fill in the same stages."""
        return replace(self, chosen=version)


@dataclass(frozen=True, slots=True)
class Prediction:
    """
    What a version says of an image.

    Attributes:
        category: The class's index, at least two digits.
        scores: The model's first output, any shape, finite.
        chosen: The version that answered.
        stages: How long it took.
    """

    category: str
    scores: npt.NDArray[np.generic]
    chosen: ModelVersion
    stages: Stages

    @property
    def version(self) -> int:
        """The version's number."""
        return self.chosen.version
