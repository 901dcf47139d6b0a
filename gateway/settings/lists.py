"""Settings that are lists: their parts stand between commas."""


def split_list(value: object) -> object:
    """Split text at its commas; what is no text stays."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value
