"""
Files that the validating process may touch, held by the kernel: it reads what it is made of and
the model, it writes into its own folder, and every other path is refused, whoever owns it. Landlock
needs no privilege. Newer kernels also keep signals and abstract sockets inside.

Source: Linux, landlock(7) and the kernel's "Landlock: unprivileged access control".
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GIVE_VERSION, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REGULAR, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_REGULAR | _TRUNCATE
_FOLDERS = 1 << 4 | 1 << 7  # remove, make
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
# How many rights there are, by the version of the interface that added some; so for sockets.
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_TCP, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6


def landlock_version() -> int:
    """Tell the kernel's version of Landlock; 0 if it has none."""
    found = int(_libc().syscall(_CREATE_RULESET, None, 0, _GIVE_VERSION))
    return max(found, 0)


def allow_only(reading: Iterable[Path], writing: Path, *, folders: bool = False) -> bool:
    """
    Refuse this process every file but these. Paths that do not exist are left out.

    Args:
        reading: Files, and directories with all below them.
        writing: A directory to read and write in; no links or devices are made there.
        folders: Whether directories may be made there.

    Returns:
        Whether the kernel holds that.
    """
    libc, version = _libc(), landlock_version()
    if version == 0:
        return False
    handled = (1 << max(bits for since, bits in _RIGHTS.items() if since <= version)) - 1
    attributes = struct.pack(
        "QQQ",
        handled,
        _TCP if version >= _TCP_SINCE else 0,
        _SCOPES if version >= _SCOPES_SINCE else 0,
    )
    size = 8 if version < _TCP_SINCE else 16 if version < _SCOPES_SINCE else 24
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    try:
        for path in reading:
            _allow(libc, rules, path, _READ & handled)
        _allow(libc, rules, writing, (_WRITE | _FOLDERS if folders else _WRITE) & handled)
        return bool(
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            and libc.syscall(_RESTRICT_SELF, rules, 0) == 0
        )
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if path.is_dir() else rights & _OF_FILES
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", allowed, place), 0)
    finally:
        os.close(place)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
