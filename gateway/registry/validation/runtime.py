"""
Which opsets and IR versions the runtime that will serve understands.

`local` is the onnxruntime installed here, which the embedded Triton runs: it is asked itself, by
making a session. A Triton of one's own may run an older one, such as `1.20`; for that the limits
below apply as well.

Source: the limits are what these releases of onnxruntime answered when they were asked, with one
operator stamped with ever newer versions. Which of them a Triton has: `ort_version` in `build.py`
of triton-inference-server/server, in the branch of its release. It is 1.20.1 there for 25.03, and
1.30.0 for 26.09 (pull request 8966).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnxruntime

from gateway.converter.errors import OperatorUnsupported, OpsetUnsupported

LOCAL = "local"
LIMITS: Mapping[str, tuple[int, int]] = {
    "1.19": (21, 10),
    "1.20": (21, 10),
    "1.21": (22, 10),
    "1.22": (22, 10),
    "1.23": (23, 11),
    "1.24": (25, 13),
    "1.25": (26, 13),
    "1.26": (26, 13),
    "1.27": (26, 13),
    "1.28": (26, 13),
    "1.30": (26, 13),
}
"""By release of onnxruntime: its newest opset of ai.onnx and its newest IR version."""

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
    """The runtime to validate for; `name` is `local` or a release of onnxruntime."""

    name: str

    @property
    def description(self) -> str:
        """Its name and its version of onnxruntime, for people."""
        if self.name == LOCAL:
            return f"onnxruntime {onnxruntime.__version__}"
        return f"onnxruntime {self.name}"

    def check(self, model: onnx.ModelProto) -> None:
        """
        Check what can be told without a session: format, opset, operators of ONNX itself.

        Raises:
            OpsetUnsupported: The opset or IR version is newer than the runtime's.
            OperatorUnsupported: An operator is unknown; the text names all of them.
        """
        opset, ir_version = int(onnx.defs.onnx_opset_version()), int(onnx.IR_VERSION)
        if self.name != LOCAL:
            release_opset, release_ir = LIMITS[self.name]
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
