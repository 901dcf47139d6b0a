"""What is not there, and what the state of the server forbids."""

from gateway.errors.base import GatewayError


class NotFound(GatewayError):
    """What the request names does not exist."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No model of that name is registered."""

    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Model with name {name} not found.")


class VersionNotFound(NotFound):
    """The model has no such version."""

    code = "version_not_found"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Model {name} has no version {version}.")


class AliasNotFound(NotFound):
    """The model has no such alias."""

    code = "alias_not_found"

    def __init__(self, name: str, alias: str) -> None:
        super().__init__(f"Model {name} has no alias {alias}.")


class RolloutNotFound(NotFound):
    """No rollout has that id."""

    code = "rollout_not_found"

    def __init__(self, rollout_id: str) -> None:
        super().__init__(f"There is no rollout {rollout_id}.")


class AnswerNotFound(NotFound):
    """No request of that id was answered, or it was too long ago."""

    code = "answer_not_found"


class SampleNotFound(NotFound):
    """A rollout has no such sample, or the sample's image was not kept."""

    code = "sample_not_found"


class EvaluationNotFound(NotFound):
    """The model has no evaluation set, or the version has not been evaluated on it."""

    code = "evaluation_not_found"


class ReplayNotFound(NotFound):
    """The model has no such replay."""

    code = "replay_not_found"

    def __init__(self, replay_id: str) -> None:
        super().__init__(f"There is no replay {replay_id}.")


class Conflict(GatewayError):
    """The state of the server forbids it now."""

    code = "conflict"


class ModelNotLoaded(Conflict):
    """The model, or the version that was asked for, is not loaded. An unknown name too."""

    code = "model_not_loaded"

    def __init__(self, name: str) -> None:
        super().__init__(f"No model with name {name} has been loaded.")


class LoadSuperseded(Conflict):
    """The version was unloaded while its load was waited for: the later wish counts."""

    code = "load_superseded"


class NameConflict(Conflict):
    """A model whose name differs only in case exists already."""

    code = "name_conflict"


class SignatureConflict(Conflict):
    """Two versions whose inputs or outputs differ cannot be loaded side by side."""

    code = "signature_conflict"


class VersionConflict(Conflict):
    """The version's place in the repository is taken by files that are not registered."""

    code = "version_exists"


class VersionInUse(Conflict):
    """An alias, a load or a rollout holds the version, or the model."""

    code = "version_in_use"


class AliasMoved(Conflict):
    """The alias is not where the caller thought that it was."""

    code = "alias_moved"


class RolloutConflict(Conflict):
    """The rollout's phase forbids what was asked. Of two promotions one gets this."""

    code = "rollout_conflict"


class RolloutInProgress(Conflict):
    """The model has a rollout that has not ended."""

    code = "rollout_in_progress"


class EvaluationPending(Conflict):
    """The version is still being evaluated on the model's evaluation set."""

    code = "evaluation_pending"


class EvaluationFailed(Conflict):
    """What the evaluation set says of the version does not let the rollout begin."""

    code = "evaluation_failed"


class NothingRecorded(Conflict):
    """No request to the model is recorded, so that there is nothing to replay."""

    code = "nothing_recorded"


class ArtifactCorrupt(Conflict):
    """A stored file no longer matches the digest that was recorded when it was published."""

    code = "artifact_corrupt"
