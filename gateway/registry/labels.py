"""Class names as they are written down: one a line."""

from gateway.errors import LabelsInvalid


def read_labels(text: str | None) -> list[str] | None:
    """
    Read class names, one a line; the last line may end with a line break, the first begin with a
    byte order mark.

    Raises:
        LabelsInvalid: One is empty.
    """
    if text is None or not text.strip():
        return None
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    labels = [line.strip() for line in lines]
    if not all(labels) or any("\r" in label or "\0" in label for label in labels):
        raise LabelsInvalid(f"Line {labels.index('') + 1 if '' in labels else 1} has no label.")
    return labels
