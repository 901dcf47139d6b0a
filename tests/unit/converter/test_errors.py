"""The error tree."""

from gateway.converter import errors


def test_every_error_has_its_own_code_and_a_place_in_the_drawing() -> None:
    """Codes are unique, and the drawing in the docstring lists each class with its code."""
    tree = [e for e in errors.ConverterError.__subclasses__() if e.__module__ == errors.__name__]
    assert len({error.code for error in tree}) == len(tree)
    drawing = (errors.__doc__ or "").split()
    for error in tree:
        assert drawing[drawing.index(error.__name__) + 1] == error.code
