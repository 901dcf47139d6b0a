"""A config.pbtxt that somebody wrote is changed in the fields that are meant, and in no other."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from gateway.converter.config_text import change_fields
from gateway.converter.errors import ConfigInvalid
from gateway.converter.model_config import parse

FIELDS = ("instance_group", "parameters", "dynamic_batching", "max_batch_size")
BY_HAND = """\
# Ours since spring; ask Ada before you touch it.
name: "flowers"
backend: 'onnxruntime'
max_batch_size : 8   # more does not fit
input [ { name: "x # no comment", data_type: TYPE_FP32, dims: [ -1, -1, 3 ] } ]
output < name: "y" "z" data_type: TYPE_FP32 dims: 10 >; version_policy { all { } }
instance_group [
  {
    count: 2  # two are enough
    kind: KIND_CPU
  }
]

parameters { key: "intra_op_thread_count" value: { string_value: "4" } } # all of them
parameters { key: "mine" value: { string_value: "kept" } }
dynamic_batching { default_queue_policy { max_queue_size: 5 } }
"""


def _wanted(text: str, change: Callable[[Any], None]) -> Any:
    wanted = copy.deepcopy(parse(text))
    change(wanted)
    return wanted


def test_only_the_changed_field_is_written_anew() -> None:
    """One value changes in its place; every other line stays to the letter, comments too."""

    def change(config: Any) -> None:
        config.parameters["intra_op_thread_count"].string_value = "1"

    changed = change_fields(BY_HAND, _wanted(BY_HAND, change), FIELDS)
    before, after = BY_HAND.split("\n"), changed.split("\n")
    line = next(index for index, text in enumerate(before) if "intra_op" in text)
    assert after[:line] == before[:line]
    assert after[-len(before[line + 1 :]) :] == before[line + 1 :]
    assert "# all of them" in changed
    assert parse(changed).parameters["intra_op_thread_count"].string_value == "1"


def test_what_is_not_wanted_any_more_goes_with_its_line() -> None:
    """A field that is taken away leaves no blank line; the others stay."""

    def change(config: Any) -> None:
        config.ClearField("dynamic_batching")

    changed = change_fields(BY_HAND, _wanted(BY_HAND, change), FIELDS)
    assert changed == BY_HAND.replace(
        "dynamic_batching { default_queue_policy { max_queue_size: 5 } }\n", ""
    )


def test_what_is_missing_is_added_at_the_end() -> None:
    """New fields and parameters follow the text that is there, which stays as it is."""

    def change(config: Any) -> None:
        config.parameters["session.intra_op.allow_spinning"].string_value = "0"

    changed = change_fields(BY_HAND, _wanted(BY_HAND, change), FIELDS)
    assert changed.startswith(BY_HAND.rstrip())
    assert parse(changed).parameters["session.intra_op.allow_spinning"].string_value == "0"


def test_all_fields_at_once() -> None:
    """Every field that may be changed can be, together, and the text says just what was wanted."""

    def change(config: Any) -> None:
        config.instance_group[0].count = 3
        config.max_batch_size = 16
        config.dynamic_batching.Clear()
        config.dynamic_batching.max_queue_delay_microseconds = 200
        config.parameters["intra_op_thread_count"].string_value = "2"

    wanted = _wanted(BY_HAND, change)
    changed = change_fields(BY_HAND, wanted, FIELDS)
    assert parse(changed) == wanted
    assert "# Ours since spring" in changed
    assert "# more does not fit" in changed
    assert """input [ { name: "x # no comment", data_type""" in changed


@pytest.mark.parametrize(
    "parameters",
    [
        (
            'parameters: [ { key: "a" value { string_value: "1" } },'
            ' { key: "b" value { string_value: "2" } } ]'
        ),
        (
            'parameters { key: "b" value < string_value: "2" > }, parameters { key: \'a\''
            ' value { string_value: "1" } }'
        ),
    ],
    ids=["list", "one by one"],
)
def test_spellings_of_parameters(parameters: str) -> None:
    """However parameters are listed, one of them can be changed."""
    text = f'name: "m"\n{parameters}\nmax_batch_size: 8\n'

    def change(config: Any) -> None:
        config.parameters["a"].string_value = "3"

    changed = parse(change_fields(text, _wanted(text, change), FIELDS))
    assert {key: value.string_value for key, value in changed.parameters.items()} == {
        "a": "3",
        "b": "2",
    }


def test_nothing_to_change_changes_nothing() -> None:
    """A text that says what is wanted comes back to the letter."""
    assert change_fields(BY_HAND, parse(BY_HAND), FIELDS) == BY_HAND


def test_a_change_elsewhere_is_refused() -> None:
    """What differs in a field that may not be changed is an error, not a silent loss."""

    def change(config: Any) -> None:
        config.backend = "python"

    with pytest.raises(ConfigInvalid):
        change_fields(BY_HAND, _wanted(BY_HAND, change), FIELDS)
