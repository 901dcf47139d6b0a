"""Settings of access: keys, tokens, and which pages and hosts may ask."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from gateway.settings.lists import split_list
from gateway.settings.oidc import OidcSettings


class AccessSettings(OidcSettings):
    """A part of `gateway.settings.Settings`."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Comma-separated names that this gateway is called by, `*` a wildcard; `*` alone is "
            "any name. Addresses, `localhost` and names without a dot need no line."
        ),
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Comma-separated origins (https://app.example.com) whose pages may use this gateway "
            "from a browser. Default: its own pages alone."
        ),
    )
    insecure: bool = Field(
        False,
        description=(
            "Serve also an address that others can reach without any key: whoever reaches it may "
            "do everything."
        ),
    )
    gateway_admin_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Key of the first admin, 16 characters or more. With it the gateway is closed.",
    )
    gateway_admin_key_file: Path | None = Field(
        None, description="A file that holds GATEWAY_ADMIN_KEY."
    )
    keys_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description=(
            "Secret of the hashes that are stored of keys; the same for all gateways of a "
            "database. Default: made once, in DATA_DIR."
        ),
    )
    keys_secret_file: Path | None = Field(None, description="A file that holds KEYS_SECRET.")
    max_runs_beside_others: int = Field(
        default_factory=lambda: max(1, len(os.sched_getaffinity(0)) // 2),
        gt=0,
        description=(
            "Runs of one key that are worked on at once while other keys ask, too; more of them "
            "make larger batches, and others wait longer. Default: one for every two cores."
        ),
    )
    metrics_public: bool = Field(
        False,
        description=(
            "Show `/metrics` to whoever asks, without a key. It names models and their versions."
        ),
    )

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_access_lists(cls, value: object) -> object:
        return split_list(value)
