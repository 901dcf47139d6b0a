"""
A leak that is built into a gateway on purpose: every run keeps LEAK_BYTES. A soak must find it.

Python imports this module at its start where the folder is in PYTHONPATH.
"""

import os
import sys
from typing import Any

if sys.orig_argv[1:4] == ["-m", "gateway", "serve"]:
    from gateway.inference.run import Runner

    _kept: list[bytearray] = []
    _run = Runner.run

    async def _run_and_keep(self: Runner, *arguments: Any, **named: Any) -> Any:
        # Written to: what is only set aside takes no memory.
        _kept.append(bytearray(b"x" * int(os.environ["LEAK_BYTES"])))
        return await _run(self, *arguments, **named)

    Runner.run = _run_and_keep  # type: ignore[method-assign]  # that is the fault
