"""Names and version numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.converter.errors import NameInvalid, VersionInvalid
from gateway.converter.names import (
    MAX_VERSION,
    check_model_name,
    check_version,
    parse_triton_model,
    parse_version,
    triton_model_name,
)


@pytest.mark.parametrize(
    "name", ["a", "7", "model_10", "version-RFB-320", "arcfaceresnet100-11-int8", "a.b", "A" * 128]
)
def test_names_in_use_are_allowed(name: str) -> None:
    """What exists out there may be registered as it is."""
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a..b", ".hidden", "-x", "_x", "a/b", "a\\b", "a b", "a\n", "é"),
        *("a" * 129, "$(touch x)", "a;b", "a%2f", "a\0b", "\u202ea", "a\x1b[31m"),
    ],
)
def test_names_that_climb_or_speak_to_a_shell_are_refused(name: str) -> None:
    """A name is safe as a directory, in a URL and on a shell's command line."""
    with pytest.raises(NameInvalid):
        check_model_name(name)


@given(st.text(max_size=200))
def test_an_allowed_name_is_one_path_component(name: str) -> None:
    """Whatever passes has only safe characters; whatever is refused is shown on one line."""
    refusal = None
    try:
        check_model_name(name)
    except NameInvalid as error:
        refusal = str(error)
    if refusal is not None:
        assert refusal.isprintable()
    else:
        assert name.isascii()
        assert name.replace(".", "").replace("_", "").replace("-", "").isalnum()
        assert ".." not in name


@pytest.mark.parametrize("version", [1, 2, MAX_VERSION])
def test_versions_have_one_spelling(version: int) -> None:
    """A version reads back from its directory's name."""
    assert parse_version(str(version)) == check_version(version) == version


@pytest.mark.parametrize("version", [0, -1, 2**63, True])
def test_numbers_that_are_no_version_are_refused(version: int) -> None:
    """Versions are 1 to 2^63 - 1."""
    with pytest.raises(VersionInvalid):
        check_version(version)


@pytest.mark.parametrize(
    "text", ["", "0", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "٣", "²", str(2**63), "9" * 5000]
)
def test_other_spellings_are_no_version(text: str) -> None:
    """Triton overlooks a directory with a leading zero; so do we, and every other spelling."""
    with pytest.raises(VersionInvalid):
        parse_version(text)


@pytest.mark.parametrize(
    "name", ["m.signature-2", "m.SIGNATURE-3", "a.signature-1", "m.signature-99"]
)
def test_names_of_further_triton_models_are_reserved(name: str) -> None:
    """No model of a user's can collide with a Triton model that holds versions of another."""
    with pytest.raises(NameInvalid, match="reserved"):
        check_model_name(name)


@pytest.mark.parametrize(
    "name", ["m", "m.signature", "m.signature-", "m.signature-0", "signature-2"]
)
def test_a_triton_model_leads_back_to_its_model(name: str) -> None:
    """Whatever a model is called, the names of its Triton models lead back to it."""
    assert check_model_name(name) == name
    assert parse_triton_model(name) == (name, 1)
    for ordinal in (1, 2, 17):
        assert parse_triton_model(triton_model_name(name, ordinal)) == (name, ordinal)
