"""The digest by which a file is known everywhere: in the registry, in answers, before a load."""

import hashlib
from io import BufferedReader
from pathlib import Path


def digest_file(file: Path | BufferedReader) -> str:
    """Digest a file's bytes, "sha256:…"; an open one from where it stands to its end."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return digest_file(opened)
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
