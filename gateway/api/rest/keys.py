"""Keys: made, shown once, listed, rotated, revoked."""

import time
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from gateway.access.keys import new_key
from gateway.access.models import PATTERN, check_patterns
from gateway.access.roles import Role
from gateway.api.callers import Actor
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.json_types import Number, Whole
from gateway.api.rest.parameters import error_responses
from gateway.errors import KeyInvalid, MetricsQueryInvalid
from gateway.metrics.times import read_length_s, read_moment_s
from gateway.store.access_tables import KeyRow
from gateway.store.keys import KeyRecord

router = APIRouter(prefix="/api/v1/keys", tags=["access"])

_DAY_S = 86_400

PathKey = Annotated[str, Path(description="Name or id of a key.", examples=["ci"])]
Priority = Literal["normal", "batch"]


class NewKeyRequest(BaseModel):
    """A key that is to be made."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
        description="Its name: up to 64 letters, digits, `.`, `_`, `@`, `-`.",
        examples=["ci"],
    )
    role: Role = Field(description="What it may do: infer, operator or admin.", examples=["infer"])
    models: list[Annotated[str, Field(pattern=PATTERN)]] = Field(
        default_factory=list,
        max_length=100,
        description="Patterns of the models that exist for it, with * and ?. Default: all.",
        examples=[["flowers-*"]],
    )
    expires: str | None = Field(
        None, description="When it ends: 90d, 12h, 2027-01-31, …", examples=["90d"]
    )
    rate_per_s: Number | None = Field(
        None, gt=0, le=1e6, description="Requests per second; more get 429.", examples=[50]
    )
    in_flight: Whole | None = Field(
        None, ge=1, le=10_000, description="Runs worked on at once; more wait.", examples=[4]
    )
    priority: Priority = Field("normal", description="batch: runs wait while others have some.")


class RotateRequest(BaseModel):
    """How a key is rotated."""

    grace_s: Number = Field(
        _DAY_S, ge=0, le=90 * _DAY_S, description="How long the old secret is good, in seconds."
    )


class KeyResponse(BaseModel):
    """A key, without its secret."""

    id: str = Field(description="Its id; the key begins with `ogw_` and the id.")
    name: str = Field(description="Its name.", examples=["ci"])
    role: Role = Field(description="What it may do.")
    models: list[str] = Field(description="Patterns of the models that exist for it; []: all.")
    state: Literal["in force", "expired", "revoked"] = Field(description="Whether it is good.")
    created_at: datetime = Field(description="When it was made, UTC.")
    created_by: str = Field(description="Who made it.")
    expires_at: datetime | None = Field(description="When it ends, UTC.")
    revoked_at: datetime | None = Field(description="When it was revoked, UTC.")
    previous_until: datetime | None = Field(
        description="Until when the secret before the rotation is good, UTC."
    )
    rate_per_s: float | None = Field(description="Requests per second; null: no limit.")
    in_flight: int | None = Field(description="Runs worked on at once; null: no limit.")
    priority: Priority = Field(description="normal, or batch.")


class NewKeyResponse(KeyResponse):
    """A key and its secret."""

    key: str = Field(description="The key itself. It is shown this once and stored nowhere.")


@router.get("", summary="List the keys", responses=error_responses(503))
async def list_keys(services: ServicesOf) -> list[KeyResponse]:
    """List all keys, the revoked and expired ones too, the oldest first."""
    return [_key(row) for row in await services.keys.read_all()]


@router.post("", summary="Make a key", responses=error_responses(409, 422, 503))
async def create_key(services: ServicesOf, actor: Actor, body: NewKeyRequest) -> NewKeyResponse:
    """
    Make a key and show it, this once.

    The first key closes the gateway to everybody who shows none, so it has to be an admin's.
    """
    made = new_key()
    record = KeyRecord(
        id=made.id,
        name=body.name,
        role=body.role.value,
        models=check_patterns(body.models),
        digest=services.keyring.pepper.digest(made.text),
        pepper=services.keyring.pepper.id,
        expires_at_s=_expiry_s(body.expires),
        rate_per_s=body.rate_per_s,
        in_flight=body.in_flight,
        batch=body.priority == "batch",
    )
    row = await services.keys.add(
        record, actor=actor, admin_elsewhere=services.keyring.admin_elsewhere
    )
    await services.registry.refresh()
    return NewKeyResponse(**_key(row).model_dump(), key=made.text)


@router.delete("/{key}", summary="Revoke a key", responses=error_responses(404, 409, 503))
async def revoke_key(services: ServicesOf, actor: Actor, key: PathKey) -> KeyResponse:
    """Put a key out of force, for good. From the answer on no process of this gateway takes it."""
    row = await services.keys.revoke(
        key, actor=actor, admin_elsewhere=services.keyring.admin_elsewhere
    )
    await services.registry.refresh()
    return _key(row)


@router.post("/{key}/rotate", summary="Rotate a key", responses=error_responses(404, 422, 503))
async def rotate_key(
    services: ServicesOf, actor: Actor, key: PathKey, body: RotateRequest | None = None
) -> NewKeyResponse:
    """Give a key another secret and show it, this once. The old one is good for the grace."""
    row = await services.keys.in_force(key)
    made = new_key(row.id)
    pepper = services.keyring.pepper
    row = await services.keys.rotate(
        row.id,
        digest=pepper.digest(made.text),
        pepper=pepper.id,
        grace_s=(body or RotateRequest()).grace_s,
        actor=actor,
    )
    await services.registry.refresh()
    return NewKeyResponse(**_key(row).model_dump(), key=made.text)


def _expiry_s(text: str | None) -> float | None:
    if text is None:
        return None
    now_s = time.time()
    try:
        expiry_s = now_s + read_length_s(text)
    except MetricsQueryInvalid:
        try:
            expiry_s = float(read_moment_s(text))
        except MetricsQueryInvalid:
            raise KeyInvalid("An expiry reads 12h, 90d, or 2027-01-31.") from None
    if expiry_s <= now_s:
        raise KeyInvalid("The expiry is past.")
    return expiry_s


def _key(row: KeyRow) -> KeyResponse:
    expired = row.expires_at_s is not None and row.expires_at_s <= time.time()
    return KeyResponse(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        models=row.models,
        state="revoked" if row.revoked_at_s is not None else "expired" if expired else "in force",
        created_at=datetime.fromtimestamp(row.created_at_s, UTC),
        created_by=row.created_by,
        expires_at=_utc(row.expires_at_s),
        revoked_at=_utc(row.revoked_at_s),
        previous_until=_utc(row.previous_until_s),
        rate_per_s=row.rate_per_s,
        in_flight=row.in_flight,
        priority="batch" if row.batch else "normal",
    )


def _utc(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC)
