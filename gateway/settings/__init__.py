"""
Every setting, in one place. Each is an environment variable of the field's name in capitals
(`PORT`, `DATA_DIR`, …), or a line of a `.env` file. `docs/settings.md` is generated from here and a
test holds the two together.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from gateway.settings.access import AccessSettings
from gateway.settings.connections import ConnectionSettings
from gateway.settings.lists import split_list
from gateway.settings.rollouts import RolloutSettings


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Settings(RolloutSettings, AccessSettings, ConnectionSettings):
    """The settings of one gateway process. Read once, at start; never changed afterwards."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    host: str = Field(
        "127.0.0.1", description="Address to listen on. 0.0.0.0 opens it to the network."
    )
    port: int = Field(3000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description=(
            "Processes that serve requests. More than one share the limits below: each has its "
            "part of the threads, the places and the memory."
        ),
    )
    models_dir: Path | None = Field(
        None,
        description=(
            "A flat folder of NAME.onnx files; each is available at once as NAME, with its "
            "preprocessing record in NAME.json and its class names in NAME.txt."
        ),
    )
    data_dir: Path = Field(
        Path("var"), description="State of this gateway: database, logs, run files."
    )
    model_repository: Path = Field(
        Path("model_repository"),
        description="Triton's model repository, where versions are published.",
    )
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL, sqlite:///… or postgresql://…. Default: SQLite in DATA_DIR.",
    )
    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Comma-separated Triton replicas, http://host:8000[?grpc_port=8001&metrics_port=8002]; "
            "dns+http://… uses every address of the name. Empty: an embedded Triton is started."
        ),
    )
    triton_admin_key: str | None = Field(
        None, description="Value of the header `admin-key` that remote replicas ask for, if any."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: readable on a terminal, JSON lines elsewhere."
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, gt=0, description="Largest body of a JSON request, in bytes."
    )
    max_model_bytes: int = Field(
        2**31 - 1, gt=0, lt=2**31, description="Largest model that may be uploaded, in bytes."
    )
    max_uploads: int = Field(
        4, gt=0, description="Models that may be uploaded at once; the next gets 429."
    )
    upload_idle_timeout_s: float = Field(
        30.0, gt=0, description="An upload that stands still for so long is given up, in seconds."
    )
    max_validations: int = Field(
        1, gt=0, description="Uploaded models that are validated side by side."
    )
    validation_timeout_s: float = Field(
        60.0, gt=0, description="Deadline of one model's validation, in seconds."
    )
    validation_memory_bytes: int = Field(
        4 * 1024**3,
        gt=0,
        description="Memory for one model's validation, and five times its file on top.",
    )
    optimize_timeout_s: float = Field(
        1800.0, gt=0, description="Deadline of `optimize`, in seconds."
    )
    validation_runtime: Literal[
        "local",
        "1.19",
        "1.20",
        "1.21",
        "1.22",
        "1.23",
        "1.24",
        "1.25",
        "1.26",
        "1.27",
        "1.28",
        "1.30",
    ] = Field(
        "local",
        description=(
            "What uploads must run on: the onnxruntime installed here, or an older release of it "
            "that your own Triton has (ort_version in build.py of triton-inference-server/server, "
            "in the branch of its release)."
        ),
    )
    keep_graph: bool = Field(
        False,
        description=(
            "Publish models as they are, also where a uint8 input in front of the graph is exact. "
            "A registration may say otherwise (`keep_graph`)."
        ),
    )
    max_image_pixels: int = Field(
        25_000_000, gt=0, description="Largest image (width × height); checked before decoding."
    )
    max_batch_images: int = Field(64, gt=0, description="Most images that one `run` may bring.")
    decode_threads: int = Field(
        default_factory=_cores, gt=0, description="Threads that decode images. Default: the cores."
    )
    triton_decodes: bool = Field(
        True,
        description=(
            "Leave the decoding of JPEGs to the embedded Triton, for models that take raw pixels "
            "of any size. Its time is then part of the stage `infer`."
        ),
    )
    shared_memory: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "Hand pixels to Triton in shared memory. auto: to one on this host; on: try every "
            "replica (one pod, or containers that share /dev/shm); off: send them."
        ),
    )
    shared_memory_bytes: int = Field(
        default_factory=lambda: 4 * 1024**2 * 8 * _cores(),
        ge=4096,
        description=(
            "Shared memory for each replica. What does not fit in is sent. Default: 4 MiB for "
            "each of the requests worked on at once (32 MiB for each core)."
        ),
    )
    max_concurrent_runs: int = Field(
        default_factory=lambda: 8 * _cores(),
        gt=0,
        description="Requests of `run` worked on at once. Default: eight for each core.",
    )
    max_waiting_runs: int = Field(
        256, ge=0, description="Requests of `run` that may wait for a place; the next gets 429."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Total deadline of one `run`, waiting included, in seconds."
    )
    load_timeout_s: float = Field(
        120.0, gt=0, description="How long `load` and `unload` wait for every replica, in seconds."
    )
    replica_poll_s: float = Field(
        0.5, gt=0, description="How often each replica's index is read, in seconds."
    )
    probe_interval_s: float = Field(
        5.0,
        gt=0,
        description="A version that answered nothing for so long is probed by a real inference.",
    )
    catalog_poll_s: float = Field(
        0.1, gt=0, description="How often the database is asked for changes of other gateways."
    )

    metrics: bool = Field(
        True, description="Count requests: for the stored metrics and for Prometheus."
    )
    metrics_flush_interval_s: float = Field(
        5.0,
        gt=0,
        description="How often counted requests are stored; a power cut loses no more, in seconds.",
    )
    metrics_minutes_kept_s: float = Field(
        2 * 86400,
        ge=3 * 3600,
        description="How long stored metrics are kept by minute, in seconds.",
    )
    metrics_hours_kept_s: float = Field(
        62 * 86400, ge=2 * 86400, description="How long they are kept by hour, in seconds."
    )
    metrics_days_kept_s: float = Field(
        5 * 366 * 86400, ge=86400, description="How long they are kept by day, in seconds."
    )
    metrics_held_rows: int = Field(
        20_000,
        gt=0,
        description="Rows of metrics that are held in memory while the database is away.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="OpenTelemetry collector, http://host:4318, that gets traces. Empty: none.",
    )

    @field_validator("max_concurrent_runs")
    @classmethod
    def _one_for_each_worker(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("workers", 1):
            raise ValueError(f"less than one for each of the {info.data['workers']} WORKERS")
        return value

    @field_validator("triton_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @property
    def resolved_database_url(self) -> str:
        """The URL of the database: what was set, else SQLite in `data_dir`."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve()}/gateway.db"
