"""Which version answers a request, and why none does."""

from collections.abc import Callable, Set

from gateway.errors import ModelNotLoaded, ModelQuarantined, TritonUnavailable
from gateway.registry.versions import Catalog, ModelVersion
from gateway.triton.replicas import ReplicaSet, Served


class VersionChoice:
    """Chooses by the catalog, and by what the replicas have ready."""

    def __init__(
        self, catalog: Callable[[], Catalog], replicas: ReplicaSet, *, loading: Set[Served]
    ) -> None:
        """
        Args:
            catalog: The snapshot of this moment.
            replicas: What is ready.
            loading: Versions whose first load has not ended yet: still "not loaded" to callers.
        """
        self._catalog = catalog
        self._replicas = replicas
        self._loading = loading

    def choose(self, name: str, version: int | None, alias: str | None) -> ModelVersion:
        """
        Choose the version that a request asks for; see `Catalog.resolve`.

        Raises:
            ModelNotLoaded, VersionNotFound, AliasNotFound: There is nothing to ask.
            TritonUnavailable, ModelQuarantined: It should be ready, and is not.
        """
        catalog = self._catalog()
        chosen = catalog.resolve(name, version=version, alias=alias)
        served = (name, chosen.version)
        if self._replicas.serving(served):
            return chosen
        if served in self._loading:
            raise ModelNotLoaded(name)
        if chosen.version in catalog.models[name].quarantined:
            raise ModelQuarantined(
                f"Version {chosen.version} of {name} is in quarantine: it killed its process "
                "several times in a row. Load it again to try once more."
            )
        raise TritonUnavailable(f"Version {chosen.version} of {name} is not ready right now.")
