"""What the catalog says should be loaded, in the reconciler's terms; once for each catalog."""

from collections.abc import Iterable, Mapping

from gateway.converter import model_config
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION, Catalog, Model
from gateway.triton.actions import DesiredModel
from gateway.triton.model_names import ModelNames
from gateway.triton.probe import Probe, probe_tensor
from gateway.triton.replicas import Served


class DesiredState:
    """What the catalog says should be loaded, in the reconciler's terms: by Triton model."""

    def __init__(self, registry: Registry) -> None:
        self._models: Mapping[str, DesiredModel] = {}
        self._probes: Mapping[Served, Probe] = {}
        self._take(registry.catalog)
        registry.on_change(self._take)

    def models(self) -> Mapping[str, DesiredModel]:
        """Tell what should be ready of every Triton model; no versions means nothing of it."""
        return self._models

    def probes(self) -> Mapping[Served, Probe]:
        """Tell what to ask each version that should be ready."""
        return self._probes

    def _take(self, catalog: Catalog) -> None:
        models, probes = {}, {}
        for model in catalog.models.values():
            wanted = model.desired - model.quarantined.keys()
            for triton_model, present in _by_triton_model(model).items():
                versions = wanted & present
                config = _shared_config(model, versions or present)
                models[triton_model] = DesiredModel(
                    triton_model,
                    config,
                    versions,
                    model.name,
                    urgent=model.aliases.get(CHAMPION) in versions,
                )
            for number in wanted:
                version = model.versions[number]
                given = version.signature.inputs[0]
                tensor = probe_tensor(given.dtype, given.shape, version.trial_shape)
                output = version.signature.outputs[0].name
                probes[model.name, number] = Probe(given.name, given.dtype, tensor, output)
        self._models, self._probes = models, probes


def follow_names(registry: Registry, names: ModelNames) -> None:
    """Keep the record of where versions lie in step with a registry."""

    def take(catalog: Catalog) -> None:
        names.add(
            {
                (version.model, version.version): version.triton_model
                for model in catalog.models.values()
                for version in model.versions.values()
            }
        )

    take(registry.catalog)
    registry.on_change(take)


def _by_triton_model(model: Model) -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for version in model.versions.values():
        found.setdefault(version.triton_model, set()).add(version.version)
    return {triton_model: frozenset(versions) for triton_model, versions in found.items()}


def _shared_config(model: Model, versions: Iterable[int]) -> str:
    """
    Choose the configuration that versions of a Triton model are loaded with side by side, as JSON:
    the newest's, unless one of them must not batch, which then none does.
    """
    configs = [model_config.parse(model.versions[number].config) for number in sorted(versions)]
    chosen = next((c for c in reversed(configs) if c.max_batch_size == 0), configs[-1])
    return model_config.to_json(chosen)
