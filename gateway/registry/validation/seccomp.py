"""
System calls that the validating process has no use for, refused by a filter in the kernel. Any
process may install one upon itself, in a container too, and nobody can take it off again.

Refused are: sockets; programs and new processes (threads are allowed); signals to other processes,
whatever call sends them; looking into other processes; new namespaces and mounts; owners, modes,
times and attributes of files, which Landlock does not guard; and doors into the kernel that no
model needs.

Source: Linux, seccomp(2), `syscall_64.tbl` and `asm-generic/unistd.h`.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_X32_CALLS = 0x4000_0000
# Where struct seccomp_data has the number, the architecture and the first argument.
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x10000

_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
# By name, the numbers on x86_64 and aarch64; None: that machine has no such call.
_REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "io_uring_setup": (425, 425),
    "setns": (308, 268),
    "unshare": (272, 97),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
}
_CLONE, _CLONE3, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (234, 131), (302, 261)


def refuse_calls() -> bool:
    """
    Install the filter.

    Returns:
        Whether it holds: not on a machine whose system calls are not known here, or a kernel
        without seccomp.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program(list(_ARCHITECTURES).index(machine), _ARCHITECTURES[machine])
    code = ctypes.create_string_buffer(b"".join(program))
    # struct sock_fprog: a length, padding, a pointer.
    fprog = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    )
    return bool(
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        and libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog, 0, 0) == 0
    )


def _program(column: int, architecture: int) -> list[bytes]:
    refused = [calls[column] for calls in _REFUSED.values()]
    own = os.getpid()
    return [
        _instruction(_LOAD, 0, 0, _ARCHITECTURE),
        _instruction(_EQUAL, 1, 0, architecture),
        _instruction(_RETURN, 0, 0, _KILL),
        _instruction(_LOAD, 0, 0, _NUMBER),
        _instruction(_AT_LEAST, 0, 1, _X32_CALLS),
        _refusal(errno.EPERM),
        *(part for call in refused if call is not None for part in _never(call, errno.EPERM)),
        # "Not implemented": the C library then starts its threads by clone, whose flags show here.
        *_never(_CLONE3[column], errno.ENOSYS),
        *_only_if(_CLONE[column], _instruction(_BITS, 0, 1, _CLONE_THREAD)),
        # abort() is a signal to oneself; so may be a limit.
        *_only_if(_TGKILL[column], _instruction(_EQUAL, 0, 1, own)),
        *_only_if(_PRLIMIT[column], _instruction(_EQUAL, 1, 0, 0), _instruction(_EQUAL, 0, 1, own)),
        _instruction(_RETURN, 0, 0, _ALLOW),
    ]


def _never(call: int, error: int) -> list[bytes]:
    return [_instruction(_EQUAL, 0, 1, call), _refusal(error)]


def _only_if(call: int, *tests: bytes) -> list[bytes]:
    """Allow a call if its first argument passes; the tests jump to allowed or, one on, refused."""
    body = [
        _instruction(_LOAD, 0, 0, _ARGUMENT),
        *tests,
        _instruction(_RETURN, 0, 0, _ALLOW),
        _refusal(errno.EPERM),
    ]
    return [_instruction(_EQUAL, 0, len(body), call), *body]


def _refusal(error: int) -> bytes:
    return _instruction(_RETURN, 0, 0, _ERRNO | error)


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)
