"""What a replica must be asked so that it has ready what should be. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """
    What should be ready of one Triton model. No versions: nothing of it.

    Attributes:
        name: The Triton model's name.
        config_json: What it is loaded with.
        versions: The versions that should be ready.
        served_as: The model that callers name; "": it has the same name.
        urgent: Whether one of them answers callers who pin nothing: loaded before those that do
            not.
    """

    name: str
    config_json: str
    versions: frozenset[int]
    served_as: str = ""
    urgent: bool = True

    @property
    def model(self) -> str:
        """The model that callers name."""
        return self.served_as or self.name


@dataclass(frozen=True, slots=True)
class Action:
    """
    What to ask of one replica for one Triton model: load just these versions, or unload (none).
    `model` is what callers name.
    """

    name: str
    versions: frozenset[int]
    model: str


def decide(
    desired: DesiredModel, ready: frozenset[int], held_back: frozenset[int], *, config_known: bool
) -> Action | None:
    """
    Decide what one replica must be asked for one model, if anything.

    Args:
        desired: What should be ready.
        ready: What is.
        held_back: Versions that failed lately and are not to be tried now.
        config_known: Whether what is ready was loaded with just this config.
    """
    wanted = desired.versions - held_back
    if desired.versions and (not wanted or held_back & ready):
        # Nothing can be gained now, and what serves must not be lost: wait for the next try.
        return None
    if wanted == ready and (config_known or not wanted):
        return None
    return Action(desired.name, wanted, desired.model)
