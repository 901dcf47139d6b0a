"""
What can keep the embedded Triton from running.

    EmbeddedError
    ├── PreflightFailed    triton_preflight_failed   the machine or the installation does not fit
    ├── AlreadyRunning     triton_already_running    another live gateway owns this data directory
    └── StartFailed        triton_start_failed       tritonserver ended, or did not become live
"""


class EmbeddedError(Exception):
    """Base of the above."""

    code: str


class PreflightFailed(EmbeddedError):
    """A check before the start failed; the message says what, and how to mend it."""

    code = "triton_preflight_failed"


class AlreadyRunning(EmbeddedError):
    """The data directory belongs to a gateway that is alive."""

    code = "triton_already_running"


class StartFailed(EmbeddedError):
    """The server did not come up; the message carries the last errors of its log."""

    code = "triton_start_failed"
