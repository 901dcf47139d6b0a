"""Under which name Triton knows a version."""

from gateway.triton.model_names import ModelNames
from gateway.triton.statistics import IndexEntry


def test_names_lead_there_and_back() -> None:
    """A version that lies elsewhere is asked there and shown under its model's name."""
    names = ModelNames()
    names.add({("m", 1): "m", ("m", 2): "m.signature-2"})
    assert names.triton_model(("m", 1)) == "m"
    assert names.triton_model(("m", 2)) == "m.signature-2"
    assert names.served("m.signature-2", 2) == ("m", 2)
    assert names.served("m", 1) == ("m", 1)
    # Of a name that nobody wrote down, nothing is known but itself.
    assert names.served("m.signature-2", 9) == ("m.signature-2", 9)


def test_an_index_is_read_by_our_names() -> None:
    """What lies under the name of a version and is none of it is left out."""
    names = ModelNames()
    names.add({("m", 1): "m", ("m", 2): "m.signature-2"})
    entries = [
        IndexEntry("m", 1, "READY", ""),
        IndexEntry("m", 2, "READY", ""),  # a stray copy: our version 2 lies elsewhere
        IndexEntry("m.signature-2", 2, "UNAVAILABLE", "broken"),
        IndexEntry("other", 1, "READY", ""),
    ]
    assert names.translate(entries) == [
        IndexEntry("m", 1, "READY", ""),
        IndexEntry("m", 2, "UNAVAILABLE", "broken"),
        IndexEntry("other", 1, "READY", ""),
    ]


def test_statistics_are_read_by_our_names() -> None:
    """What Triton counted for a version is found under its model, wherever the version lies."""
    names = ModelNames()
    names.add({("m", 1): "m", ("m", 2): "m.signature-2"})
    found = {("m", 1): 1, ("m", 2): 0, ("m.signature-2", 2): 2, ("other", 1): 3}
    assert names.by_served(found) == {("m", 1): 1, ("m", 2): 2, ("other", 1): 3}
