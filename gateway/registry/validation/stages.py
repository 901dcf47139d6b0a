"""
The stages of validation, in the validating process.

    file        protobuf, ONNX's own checker, no values in other files
    operators   format, opset and operators, against the runtime that will serve
    signature   one image in, one score by class out; the preprocessing record fits; labels too
    config      Triton's configuration for what is published: the graph, or with a uint8 input
    trial       real images through that; a changed graph answers what the uploaded one does

Each raises the tree of `gateway.converter.errors`, or returns facts for the report.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from gateway.converter import model_config
from gateway.converter.errors import ModelInvalid, OperatorUnsupported
from gateway.converter.external_data import refuse_external_data
from gateway.converter.kinds import not_onnx
from gateway.converter.model_config import ConfigOptions, placement_for_machine
from gateway.converter.model_writer import write_model
from gateway.converter.onnx_signature import MAX_FILE_BYTES, read_signature
from gateway.converter.plan import PublishingPlan, plan_version
from gateway.converter.provenance import read_provenance
from gateway.converter.signature import (
    ModelSignature,
    TensorSignature,
    check_classifier,
    takes_raw_pixels,
)
from gateway.converter.uint8_input import AS_IT_IS, InputPolicy
from gateway.errors import LabelsInvalid, PreprocessingInvalid
from gateway.preprocessing.proposals import Proposal, propose, takes_proposal
from gateway.preprocessing.record import Preprocessing, check_pixels, resolve_preprocessing
from gateway.registry.validation.doubts import doubts
from gateway.registry.validation.runtime import Runtime
from gateway.registry.validation.trial import TrialResult, answers_alike, run_trial

_UNKNOWN_OPERATOR = re.compile(r"No Op registered for (\S+)")


class Examination:
    """One model on its way through the stages."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        preprocessing: str | None,
        labels: Sequence[str] | None,
        max_batch_size: int,
        runtime: str,
        keep_graph: bool | None,
        beside: TensorSignature | None,
        sidecars: Sequence[str] = (),
    ) -> None:
        self.runtime = Runtime(runtime)
        self.warnings: list[str] = []
        self.labels = labels
        self.proposal: Proposal | None = None
        self._path = path
        self._name = name
        self._requested = preprocessing
        self._sidecars = sidecars
        self._metadata: dict[str, str] = {}
        self._max_batch_size = max_batch_size
        self._keep_graph = keep_graph
        self._beside = beside
        self._signature: ModelSignature | None = None
        self._record: Preprocessing | None = None
        self._model: onnx.ModelProto | None = None
        self._plan: PublishingPlan | None = None

    def stages(self) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
        """Give the stages in order."""
        yield "file", self._file
        yield "operators", self._operators
        yield "signature", self._check_signature
        yield "config", self._config
        yield "trial", self._trial

    def preprocessing_json(self) -> dict[str, Any] | None:
        """Give the record that the version gets; None: raw pixels, or none at all."""
        return None if self._record is None else self._record.model_dump(mode="json")

    def proposal_json(self) -> dict[str, Any] | None:
        """Give what the file, or what lies beside it, says of its preprocessing and classes."""
        return None if self.proposal is None else self.proposal.to_json()

    def _file(self) -> Mapping[str, Any]:
        size_bytes = self._path.stat().st_size
        if size_bytes == 0:
            raise ModelInvalid("The file is empty.")
        if size_bytes > MAX_FILE_BYTES:
            raise ModelInvalid("The file is larger than 2 GiB, the limit of an ONNX file.")
        model = onnx.ModelProto()
        try:
            model.ParseFromString(self._path.read_bytes())
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            raise not_onnx(self._path, "Not an ONNX model, or a truncated one.") from error
        if not (model.ir_version > 0 and model.HasField("graph") and model.opset_import):
            raise not_onnx(self._path, "Not an ONNX model: no IR version, graph or operator set.")
        refuse_external_data(model)
        self._model = model
        self._metadata = {each.key: each.value for each in model.metadata_props}
        provenance = read_provenance(model)
        return {
            "size_bytes": size_bytes,
            "producer": f"{model.producer_name} {model.producer_version}".strip()[:200],
            "nodes": len(model.graph.node),
            **({} if provenance is None else {"provenance": provenance.model_dump()}),
        }

    def _operators(self) -> Mapping[str, Any]:
        model, self._model = self._model, None
        assert model is not None
        self.runtime.check(model)
        for output in model.graph.output:
            if output.type.HasField("tensor_type"):
                # The runtime needs none, the checker does; the real one is found later.
                output.type.tensor_type.shape.SetInParent()
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            if found := _UNKNOWN_OPERATOR.search(str(error)):
                raise OperatorUnsupported(
                    f"{self.runtime.description} has no operator {found[1]}."
                ) from error
            reason = str(error).strip().splitlines()
            raise ModelInvalid(
                f"The ONNX checker refuses the model: {reason[0][:300] if reason else 'no reason'}"
            ) from error
        return {
            "ir_version": model.ir_version,
            "opsets": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        }

    def _check_signature(self) -> Mapping[str, Any]:
        signature = read_signature(self._path)
        check_classifier(signature)
        self._signature = signature
        self.proposal = propose(
            self._metadata, self._sidecars, signature.inputs[0], signature.classes
        )
        if takes_proposal(self._requested):
            self._take_proposal()
        else:
            self._record = resolve_preprocessing(self._requested, signature.inputs[0])
        if self.labels is not None:
            _check_label_count(self.labels, signature.classes)
        check_pixels(signature.inputs[0], self._record)
        if self._record is None and not takes_raw_pixels(signature.inputs[0]):
            proposed = self.proposal is not None and self.proposal.preprocessing is not None
            cure = (
                "preprocessing=proposed (--accept)" if proposed else "preprocessing=unit, imagenet"
            )
            self.warnings.append(
                f"The model takes {signature.inputs[0]} and has no preprocessing record: it cannot "
                f"answer an image. Register the same file with one: {cure}, or a record "
                "(docs/registration.md)."
            )
        return {"signature": signature.to_json()}

    def _take_proposal(self) -> None:
        if self.proposal is None:
            raise PreprocessingInvalid(
                "Nothing is proposed: neither the file's metadata nor a sidecar says how an image "
                "becomes its input in a way that fits it. Say it: preprocessing=unit, imagenet, or "
                "a record (docs/registration.md)."
            )
        self._record = self.proposal.preprocessing
        if self.labels is None:
            self.labels = self.proposal.labels

    def _config(self) -> Mapping[str, Any]:
        self._plan = plan = self._planned(
            InputPolicy(
                pixels=None if self._record is None else not self._record.normalizes,
                keep_graph=self._keep_graph,
                beside=self._beside,
            )
        )
        text = model_config.render(plan.config)
        if model_config.parse(text) != plan.config:
            raise ModelInvalid("A name in the model does not survive in config.pbtxt.")
        return {"max_batch_size": plan.config.max_batch_size, "kept_graph": plan.kept_graph}

    def _trial(self) -> Mapping[str, Any]:
        assert self._plan is not None
        assert self._signature is not None
        plan = self._plan
        trial = self._tried(plan)
        if plan.changes and not answers_alike(self._path, self._signature, trial, self.runtime):
            plan = self._planned(AS_IT_IS)
            self.warnings.append(
                "With a uint8 input in front of it the graph does not answer bit for bit the same: "
                "it is published as it is."
            )
            trial = self._tried(plan)
        if self.labels is not None:
            _check_label_count(self.labels, trial.facts["classes"])
        self.warnings.extend(trial.warnings)
        self.warnings.extend(doubts(plan.graph, plan.signature, trial.rows))
        return {**trial.facts, "changes": list(plan.changes)}

    def _planned(self, policy: InputPolicy) -> PublishingPlan:
        options = ConfigOptions(
            placement=placement_for_machine(), max_batch_size=self._max_batch_size
        )
        return plan_version(self._path, name=self._name, version=1, options=options, policy=policy)

    def _tried(self, plan: PublishingPlan) -> TrialResult:
        """Try what is published. A changed graph is in memory: this process writes no files."""
        model: Path | bytes = self._path
        if plan.changes:
            changed = io.BytesIO()
            write_model(plan.graph, self._path, changed)
            model = changed.getvalue()
        return run_trial(
            model,
            plan.graph,
            plan.signature,
            self._record,
            max_batch_size=self._max_batch_size,
            runtime=self.runtime,
        )


def read_tensor(stored: Mapping[str, Any] | None) -> TensorSignature | None:
    """Read a tensor's signature from JSON."""
    if stored is None:
        return None
    return TensorSignature(stored["name"], stored["dtype"], tuple(stored["shape"]))


def _check_label_count(labels: Sequence[str], classes: int | None) -> None:
    if classes is not None and len(labels) != classes:
        raise LabelsInvalid(
            f"There are {len(labels)} labels for {classes} classes: one a line, in order."
        )
