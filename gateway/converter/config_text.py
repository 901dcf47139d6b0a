"""
Change some fields in the text of a config.pbtxt and leave the rest as somebody wrote it: comments,
order, blanks, and how lists are spelled.

The text is cut into its outermost fields. One that says what it should keeps its text; any other is
rendered anew in its place; what is missing is added at the end. The result is read back and
compared with what was wanted: a spelling that is not understood here is refused, never damaged.

Source: Protocol Buffers, Text Format Language Specification.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter import model_config
from gateway.converter.errors import ConfigInvalid

_PARAMETERS = "parameters"
_TOKEN = re.compile(
    r"""\#[^\n]*
    | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    | [{}<>\[\]:;,]
    | [^\s#"'{}<>\[\]:;,]+""",
    re.VERBOSE,
)
_QUOTES = "\"'"
_OPENING, _CLOSING = frozenset("{<["), frozenset("}>]")


@dataclass(frozen=True, slots=True)
class _Field:
    """One outermost field of the text: its name, and where it begins and ends."""

    name: str
    start: int
    end: int


def change_fields(text: str, wanted: pb.ModelConfig, fields: Collection[str]) -> str:
    """
    Write the values of some fields into a config.pbtxt.

    Args:
        text: The text.
        wanted: The configuration that it should say afterwards. It differs from what the text says
            in `fields` alone.
        fields: Names of outermost fields. Entries of `parameters` are looked at one by one.

    Raises:
        ConfigInvalid: The text cannot be read, or not be changed without touching more of it.
    """
    present = model_config.parse(text)
    pieces: list[str] = []
    rest, said_names, done = 0, set[str](), set[str]()
    for field in _fields(text):
        said_names.add(field.name)
        if field.name not in fields:
            continue
        present_text = text[field.start : field.end]
        said = model_config.parse(present_text)
        if field.name == _PARAMETERS:
            now = _without_gone(wanted, said)
        elif _only(present, field.name) == _only(wanted, field.name):
            continue
        else:
            now = pb.ModelConfig() if field.name in done else _only(wanted, field.name)
            done.add(field.name)
        if now == said:
            continue
        pieces.append(text[rest : field.start] + _render(now))
        rest = field.end
        if not now.ListFields():
            rest, pieces[-1] = _close_gap(text, rest, pieces[-1])
    changed = "".join([*pieces, text[rest:]])
    added = _render(_missing(present, wanted, fields, said_names))
    if added:
        changed = f"{changed.rstrip()}\n{added}\n"
    if model_config.parse(changed) != wanted:
        raise ConfigInvalid(
            "The config.pbtxt is written in a way that cannot be changed in a few lines."
        )
    return changed


def _fields(text: str) -> Iterator[_Field]:
    tokens = [match for match in _TOKEN.finditer(text) if not match[0].startswith("#")]
    position = 0
    while position < len(tokens):
        name = tokens[position]
        position += 1
        if name[0] in {",", ";"}:
            continue
        if position < len(tokens) and tokens[position][0] == ":":
            position += 1
        position = _after_value(tokens, position)
        yield _Field(name[0], name.start(), tokens[position - 1].end())


def _after_value(tokens: list[re.Match[str]], position: int) -> int:
    """Find the token after a value: a scalar, neighbouring strings, a message or a list."""
    depth = 0
    while position < len(tokens):
        word = tokens[position][0]
        depth += (word in _OPENING) - (word in _CLOSING)
        position += 1
        joined = word[0] in _QUOTES and position < len(tokens) and tokens[position][0][0] in _QUOTES
        if depth == 0 and word != "-" and not joined:
            break
    return position


def _only(config: pb.ModelConfig, name: str) -> pb.ModelConfig:
    """Give a configuration that has one field of another."""
    part = pb.ModelConfig()
    for field, _ in config.ListFields():
        if field.name == name:
            part.CopyFrom(config)
            for other, _ in config.ListFields():
                if other.name != name:
                    part.ClearField(other.name)
    return part


def _without_gone(wanted: pb.ModelConfig, said: pb.ModelConfig) -> pb.ModelConfig:
    """Give the wanted values of the parameters that a piece of text names."""
    part = pb.ModelConfig()
    for key in said.parameters:
        if key in wanted.parameters:
            part.parameters[key].CopyFrom(wanted.parameters[key])
    return part


def _missing(
    present: pb.ModelConfig, wanted: pb.ModelConfig, fields: Collection[str], said: Collection[str]
) -> pb.ModelConfig:
    """Give what is wanted and stands nowhere in the text, whose outermost fields are `said`."""
    part = pb.ModelConfig()
    for name in fields:
        if name != _PARAMETERS and name not in said:
            part.MergeFrom(_only(wanted, name))
    if _PARAMETERS in fields:
        for key, value in wanted.parameters.items():
            if key not in present.parameters:
                part.parameters[key].CopyFrom(value)
    return part


def _render(config: pb.ModelConfig) -> str:
    return model_config.render(config).rstrip("\n")


def _close_gap(text: str, rest: int, before: str) -> tuple[int, str]:
    """Take a line that has become blank away."""
    line = before.rpartition("\n")[2]
    end = text.find("\n", rest)
    if line.strip() == "" and end >= 0 and text[rest:end].strip() == "":
        return end + 1, before[: len(before) - len(line)]
    return rest, before
