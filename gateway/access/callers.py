"""Who asks, and what they may."""

from dataclasses import dataclass

from gateway.access.models import matches
from gateway.access.roles import Role
from gateway.errors import Forbidden, ModelNotFound, ModelNotLoaded, Unauthenticated

OTHER_MODELS = "models"
"""Why a caller is refused whose key is for other models."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a caller may use.

    Attributes:
        rate_per_s: Requests per second; None for no limit.
        in_flight: Runs that are worked on at once; None for no limit.
        batch: Runs wait while those of others do not.
    """

    rate_per_s: float | None = None
    in_flight: int | None = None
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Somebody who asks.

    Attributes:
        id: Tells callers apart; "" for nobody in particular.
        name: For the audit log, for example "key ci".
        role: None for a caller who showed no key.
        models: Patterns of the models that exist for this caller; () for all.
        limits: What the caller may use.
    """

    id: str
    name: str
    role: Role | None
    models: tuple[str, ...] = ()
    limits: Limits = Limits()

    def require(self, role: Role | None) -> None:
        """
        Check the caller's role; None asks for none.

        Raises:
            Unauthenticated: The caller showed no key.
            Forbidden: The role does not include the one that is asked for.
        """
        if role is None or (self.role is not None and self.role.includes(role)):
            return
        if self.role is None:
            raise Unauthenticated("A key is needed: `Authorization: Bearer KEY` or `X-API-Key`.")
        raise Forbidden(f"This needs the role {role}; the key has the role {self.role}.")

    def sees(self, model: str) -> bool:
        """Whether a model exists as far as this caller can tell."""
        return matches(self.models, model)

    def require_model(self, model: str, unknown: type[ModelNotFound | ModelNotLoaded]) -> None:
        """
        Check that a model exists as far as this caller can tell.

        Args:
            model: Its name.
            unknown: The error of a model that does not exist.

        Raises:
            ModelNotFound, ModelNotLoaded: It does not, to the letter as if nobody had it.
        """
        if not self.sees(model):
            error = unknown(model)
            error.refusal = OTHER_MODELS
            raise error

    def require_all_models(self) -> None:
        """
        Check that the caller is not limited to some models.

        Raises:
            Forbidden: The caller sees some models only, and what is asked for is about all.
        """
        if self.models:
            error = Forbidden("This is about all models, and the key is for some of them only.")
            error.refusal = OTHER_MODELS
            raise error


ANYBODY = Caller("", "api", Role.ADMIN)
"""Everybody, on a gateway without keys."""
NOBODY = Caller("", "nobody", None)
"""A caller who showed no key, on a gateway that has some."""
