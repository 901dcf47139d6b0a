"""
What is tried: ways to compute a model in eight bits, or in sixteen. Pure.

    u8s8   activations UINT8, weights INT8: what CPUs with VNNI instructions are fastest at
    s8s8   both INT8, symmetric
    fp16   float16 throughout; only where a GPU serves

Without VNNI, AVX2 adds two 8-bit products in 16 bits, which overflows: weights then keep seven bits
(`reduce_range`), at some cost in accuracy.

Nodes may be left in float. Which of them lose too much is searched for by halves: a group of
neighbouring nodes is left in float, the agreement is measured, and the group that gains most is
kept. The search is bounded by the number of models that it may make.

Source: onnxruntime, Quantize ONNX models (U8S8 and S8S8; reduce_range).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
GROUPS = 8
"""Into so many groups of neighbours the quantized nodes are divided by the search."""


class Kind(StrEnum):
    """The arithmetic of a candidate."""

    U8S8 = "u8s8"
    S8S8 = "s8s8"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    How one candidate is made.

    Attributes:
        kind: Its arithmetic.
        reduce_range: Whether weights keep seven bits.
        left_in_float: Names of the nodes that are not quantized.
    """

    kind: Kind
    reduce_range: bool = False
    left_in_float: frozenset[str] = frozenset()

    def __str__(self) -> str:
        text = self.kind.value + (" 7-bit weights" if self.reduce_range else "")
        if self.left_in_float:
            text += f", {len(self.left_in_float)} nodes in float"
        return text


def first_recipes(*, vnni: bool, gpu: bool) -> list[Recipe]:
    """List what is tried before any node is left in float."""
    tried = [Recipe(Kind.U8S8, reduce_range=not vnni), Recipe(Kind.S8S8)]
    return [Recipe(Kind.FP16), *tried] if gpu else tried


def groups(nodes: Sequence[str], most: int = GROUPS) -> list[frozenset[str]]:
    """Divide nodes, in the order of the graph, into groups of neighbours of about equal size."""
    count = min(most, len(nodes))
    edges = [round(index * len(nodes) / count) for index in range(count + 1)] if count else []
    return [frozenset(nodes[a:b]) for a, b in pairwise(edges)]


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies 8-bit numbers without overflow in between."""
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "feat")))
    return any(VNNI_FLAGS & set(each.split()) for each in flags)
