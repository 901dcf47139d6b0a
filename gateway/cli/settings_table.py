"""The settings as a Markdown table: docs/settings.md is this text, and a test compares the two."""

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings import Settings

_HEAD = """# Settings

Each setting is an environment variable or a line of a `.env` file in the working directory. This
table is made from `gateway/settings/` by `gateway settings`.

| setting | default | what it is |
| --- | --- | --- |
"""


def settings_table() -> str:
    """Describe every setting, in the order of the class."""
    rows = [
        f"| `{name.upper()}` | {_default(name, field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return _HEAD + "\n".join(rows) + "\n"


def settings_list() -> list[dict[str, str]]:
    """Describe every setting for scripts: its name, its default as text, what it is."""
    return [
        {
            "name": name.upper(),
            "default": _default(name, field).strip("`"),
            "description": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "by the machine"
    if field.default in {None, (), ""} or field.default is PydanticUndefined:
        return "none"
    value = f"{field.default:,}" if isinstance(field.default, int) else str(field.default)
    return f"`{value.replace(',', ' ')}`" if name != "port" else f"`{field.default}`"
