"""
Which opsets and IR versions the runtime that will serve understands.

`local` is the onnxruntime installed here, which the embedded Triton runs: it is asked itself, by
making a session. A release of NVIDIA's container (`24.10`) has an older one; for that the limits
below apply as well.

Source: NVIDIA, Triton release notes (the onnxruntime of each release, from server/build.py);
onnxruntime, Versioning. Where the table of onnxruntime is not definite, the lower number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnxruntime

from tools.errors import OperatorUnsupported, OpsetUnsupported

LOCAL = "local"
RELEASES: Mapping[str, tuple[str, int, int]] = {
    "24.10": ("1.19.2", 21, 10),
    "25.01": ("1.20.1", 21, 10),
    "25.06": ("1.22.0", 22, 10),
    "25.08": ("1.23.0", 23, 11),
    "26.01": ("1.23.2", 23, 11),
}
"""By release: the version of onnxruntime, its newest opset of ai.onnx and its newest IR version."""

_DOMAINS = frozenset({"", "ai.onnx"})
_OPSET = re.compile(r"support for domain (\S+) is till opset (\d+)")
_IR = re.compile(r"model IR version: (\d+), max supported IR version: (\d+)")
_NO_OPERATOR = re.compile(
    r"No Op registered for (\S+) with domain_version of (\d+)"
    r"|Fatal error: (\S+?)\(-?\d+\) is not a registered function/op"
    r"|Could not find an implementation for (\S+?)\("
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The runtime to validate for; `name` is `local` or a release of NVIDIA's container."""

    name: str

    @property
    def description(self) -> str:
        """Its name and its version of onnxruntime, for people."""
        if self.name == LOCAL:
            return f"onnxruntime {onnxruntime.__version__}"
        return f"onnxruntime {RELEASES[self.name][0]} (NVIDIA Triton {self.name})"

    def check(self, model: onnx.ModelProto) -> None:
        """
        Check what can be told without a session: format, opset, operators of ONNX itself.

        Raises:
            OpsetUnsupported: The opset or IR version is newer than the runtime's.
            OperatorUnsupported: An operator is unknown; the text names all of them.
        """
        opset, ir_version = int(onnx.defs.onnx_opset_version()), int(onnx.IR_VERSION)
        if self.name != LOCAL:
            _, release_opset, release_ir = RELEASES[self.name]
            opset, ir_version = min(opset, release_opset), min(ir_version, release_ir)
        if model.ir_version > ir_version:
            raise _newer("IR version", model.ir_version, ir_version, self.description)
        for imported in model.opset_import:
            if imported.domain in _DOMAINS and imported.version > opset:
                raise _newer("opset", imported.version, opset, self.description)
        _check_operators(model, self.description)


def explain(error: Exception, runtime: Runtime) -> Exception:
    """Give an error of onnxruntime's session its meaning, where it has one of these."""
    text = str(error)
    if found := _IR.search(text):
        return _newer("IR version", int(found[1]), int(found[2]), runtime.description)
    if found := _OPSET.search(text):
        return OpsetUnsupported(
            f"The model's opset of {found[1]} is newer than {runtime.description} supports; "
            f"the maximum is {found[2]}. Export it with that one."
        )
    if found := _NO_OPERATOR.search(text):
        name = found[1] or found[3] or found[4]
        return OperatorUnsupported(f"{runtime.description} has no operator {name}.")
    return error


def _check_operators(model: onnx.ModelProto, runtime: str) -> None:
    versions = {i.domain if i.domain != "ai.onnx" else "": i.version for i in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    unknown = set()
    for node in _nodes(model):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain or (node.domain, node.op_type) in own:
            continue  # other domains are onnxruntime's own; its session tells
        if not onnx.defs.has(node.op_type, max_inclusive_version=versions.get("", 1), domain=""):
            unknown.add(node.op_type)
    if unknown:
        raise OperatorUnsupported(
            f"{runtime} has no operator {', '.join(sorted(unknown))} in opset "
            f"{versions.get('', 1)}."
        )


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Collect every node: of the graph, of graphs inside of nodes, of functions."""
    found: list[onnx.NodeProto] = []
    pending = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while pending:
        node = pending.pop()
        found.append(node)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                pending.extend(graph.node)
    return found


def _newer(what: str, given: int, maximum: int, runtime: str) -> OpsetUnsupported:
    return OpsetUnsupported(
        f"The model's {what} is {given}; {runtime} supports {maximum} at most. "
        "Export it with an older one."
    )
