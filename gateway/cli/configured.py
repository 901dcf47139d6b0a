"""What the commands that run on the machine itself begin with: the settings, or one clear line."""

from typing import NoReturn

from pydantic import ValidationError
from rich.console import Console

from gateway.settings import Settings


def read_settings(**given: int) -> Settings:
    """Read the settings; one that is wrong ends the command with its name and what was given."""
    try:
        return Settings(**given)  # type: ignore[arg-type]  # checked by the model
    except ValidationError as error:
        problem = error.errors()[0]
        name = "_".join(str(part) for part in problem["loc"]).upper()
        secret = name.endswith(("_KEY", "_SECRET"))
        fail(f"{name}: {problem['msg']}" + ("" if secret else f" (got {problem['input']!r})"))


def fail(message: str) -> NoReturn:
    """End the command with one line on standard error, and exit code 1."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)
    raise SystemExit(1)
