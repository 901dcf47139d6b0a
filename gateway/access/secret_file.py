"""A secret that is made once and kept in a file that only its owner may read."""

import os
import secrets
from pathlib import Path

_SECRET_BYTES = 32


def secret_in(path: Path) -> str:
    """
    Read the secret of a file, in hexadecimal; make both if there is none. Of several processes that
    start at once, all get the same.

    Raises:
        OSError: It can be neither read nor made.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(_SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # Whole or not at all, and the first one stays.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()
