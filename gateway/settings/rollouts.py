"""Settings of rollouts, and of the requests that are recorded for replays."""

import base64
import binascii
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from gateway.settings.lists import split_list

_KEY_BYTES = 32


class RolloutSettings(BaseSettings):
    """A part of `gateway.settings.Settings`."""

    challenger_timeout_s: float = Field(
        5.0,
        gt=0,
        description="Deadline of a rollout's challenger; in a canary the champion answers then.",
    )
    mirror_concurrency: int = Field(
        4, gt=0, description="Copies of requests that are sent to a challenger at once."
    )
    mirror_queue: int = Field(
        256, gt=0, description="Copies of requests that may wait; what is more is dropped."
    )
    mirror_queue_bytes: int = Field(
        64 * 1024 * 1024, gt=0, description="Memory for the copies that wait, in bytes."
    )
    keep_disagreeing_images: bool = Field(
        False,
        description="Keep images that champion and challenger answer differently, as samples.",
    )
    feedback_window_s: float = Field(
        7 * 86400, gt=0, description="How long an answer of a rollout waits for its feedback."
    )
    feedback_answers: int = Field(
        500_000,
        gt=0,
        description="Answers of rollouts that wait for feedback in the database, the newest; about "
        "160 bytes each.",
    )
    rollout_poll_s: float = Field(
        0.5, gt=0, description="How often the controller of rollouts looks whether a check is due."
    )
    rollout_lease_s: float = Field(
        5.0,
        gt=0,
        description="After so many seconds of silence another gateway runs the controller.",
    )
    record_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the requests whose images are recorded, for replays; 0: none.",
    )
    record_models: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",),
        description="Comma-separated names of the models that are recorded, `*` a wildcard.",
    )
    record_images: int = Field(
        10_000, gt=0, description="Recorded requests of each model; the oldest go first."
    )
    record_bytes: int = Field(
        1024**3, gt=0, description="Disk for all that is recorded, in bytes; the oldest go first."
    )
    record_kept_s: float = Field(
        7 * 86400, gt=0, description="How long a recorded request is kept, in seconds."
    )
    record_key: SecretStr | None = Field(
        None,
        description=(
            "32 bytes in base64 that recorded requests are encrypted with. Without it they lie "
            "open in DATA_DIR."
        ),
    )

    @field_validator("record_models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        return split_list(value)

    @field_validator("record_key")
    @classmethod
    def _decodable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(_decoded(value)) != _KEY_BYTES:
            raise ValueError("not 32 bytes in base64; `openssl rand -base64 32` makes some")
        return value

    @property
    def record_key_bytes(self) -> bytes | None:
        """The key, 32 bytes; None if there is none."""
        return None if self.record_key is None else _decoded(self.record_key)


def _decoded(value: SecretStr) -> bytes:
    try:
        return base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        return b""
