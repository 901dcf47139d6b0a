"""
Aliases: names of versions that move. `champion` answers calls that pin nothing.

A version that is to answer in place of a loaded one is loaded first, so that moving an alias never
makes a model fall silent. A caller who says which generation of the alias it has seen is refused if
somebody moved it since.
"""

from gateway.converter.errors import ConverterError
from gateway.converter.names import check_model_name
from gateway.errors import AliasMoved, NameInvalid
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION, Model
from gateway.store.registrations import RegistrationStore


class Aliases:
    """Moves and deletes aliases."""

    def __init__(self, registry: Registry, store: RegistrationStore, lifecycle: Lifecycle) -> None:
        self._registry = registry
        self._store = store
        self._lifecycle = lifecycle

    async def move(
        self, name: str, alias: str, version: int, *, expected: int | None, actor: str
    ) -> int:
        """
        Let an alias name a version; made if it is not there.

        Args:
            name, alias, version: What points where.
            expected: The generation that the caller has seen, 0 for "not there"; None: any.
            actor: Who does it.

        Returns:
            The alias's generation now.

        Raises:
            NameInvalid: The alias's name breaks the rules for names.
            ModelNotFound, VersionNotFound: There is no such thing.
            AliasMoved: Somebody moved it since.
            LoadFailed, SignatureConflict, ArtifactCorrupt: The version cannot take over; the alias
            stays where it was.
        """
        try:
            check_model_name(alias)
        except ConverterError as error:
            raise NameInvalid(str(error).replace("a model name", "a name of an alias")) from error
        model = (await self._registry.refresh()).model(name)
        model.version(version)
        found = model.alias_generations.get(alias, 0)
        if expected is not None and expected != found:
            raise AliasMoved(f"Alias {alias} has generation {found}, not {expected}.")
        if _must_serve(model, alias) and version not in model.desired:
            await self._lifecycle.load(name, version, actor=actor)
        generation = await self._store.point_alias(
            name, alias, version, expected=expected, actor=actor
        )
        await self._registry.refresh()
        return generation

    async def drop(self, name: str, alias: str, *, expected: int | None, actor: str) -> None:
        """
        Delete an alias.

        Raises:
            ModelNotFound, AliasNotFound, AliasMoved: It is not there, or not as the caller saw it.
        """
        (await self._registry.refresh()).model(name)
        await self._store.drop_alias(name, alias, expected=expected, actor=actor)
        await self._registry.refresh()


def _must_serve(model: Model, alias: str) -> bool:
    """Whether calls are answered by what the alias names."""
    return model.aliases.get(alias) in model.desired or (alias == CHAMPION and bool(model.desired))
