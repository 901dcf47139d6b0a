"""
Publish on a small file system of its own, with room for a little more at each attempt.

Run in a mount namespace: `unshare -rm python publish_on_full_disk.py MOUNT MODELS blocks|inodes`.
Prints a JSON list with one object for each attempt; the last one succeeded.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from gateway.converter.errors import ConverterError
from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version, read_published
from tests.unit.converter.publish_until_killed import publish

_PAGE_BYTES = 4096


def _contents(repository: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(repository)): path.read_bytes() if path.is_file() else b""
        for path in sorted(repository.rglob("*"))
    }


def _attempt(mount: Path, models: Path, option: str) -> dict[str, object]:
    """Fill the file system but for `room`, publish, and report; then free it again."""
    subprocess.run(["mount", "-o", f"remount,{option}", "tmpfs", mount], check=True)
    before = _contents(mount)
    used = os.statvfs(mount)
    try:
        publish(models / "new.onnx", mount, 2)
        outcome = "published"
    except ConverterError as error:
        outcome = error.code
    after = os.statvfs(mount)
    return {
        "outcome": outcome,
        "unchanged": _contents(mount) == before
        and (after.f_bfree, after.f_ffree) == (used.f_bfree, used.f_ffree),
        "readable": read_published(mount, "m", 1).version == 1,
    }


def main() -> None:
    """Give more room until it is enough."""
    mount, models, limit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
    options = ConfigOptions()
    publish_version(models / "old.onnx", repository=mount, name="m", version=1, options=options)
    used = os.statvfs(mount)
    blocks, inodes = used.f_blocks - used.f_bfree, used.f_files - used.f_ffree
    attempts: list[dict[str, object]] = []
    while not attempts or (attempts[-1]["outcome"] != "published" and len(attempts) < 100):
        room = len(attempts)
        option = (
            f"size={(blocks + room) * _PAGE_BYTES}"
            if limit == "blocks"
            else f"nr_inodes={inodes + room}"
        )
        attempts.append(_attempt(mount, models, option))
    sys.stdout.write(json.dumps(attempts))


if __name__ == "__main__":
    main()
