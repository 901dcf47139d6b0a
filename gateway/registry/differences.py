"""What a caller would notice if one version answered in place of another. Pure."""

from gateway.converter.signature import ModelSignature, TensorSignature, takes_raw_pixels
from gateway.registry.versions import Model, ModelVersion


def differences(before: ModelVersion, after: ModelVersion) -> tuple[str, ...]:
    """
    Describe in a sentence each what differs between two versions that may replace each other:
    inputs, outputs, classes, labels, preprocessing, scores.
    """
    said = f"than version {before.version}"
    found = []
    for kind, old, new in (
        ("input", before.signature.inputs, after.signature.inputs),
        ("output", before.signature.outputs, after.signature.outputs),
    ):
        if old != new:
            found.append(
                f"It has another {kind} {said}: {_tensors(new)} instead of {_tensors(old)}."
            )
    if before.classes != after.classes:
        found.append(
            f"It tells other classes apart {said}: {after.classes or 'an unknown number'} instead "
            f"of {before.classes or 'an unknown number'}."
        )
    elif before.labels != after.labels:
        found.append(f"Its classes have other names {said}{_label_change(before, after)}.")
    if before.preprocessing != after.preprocessing:
        found.append(f"It has another preprocessing record {said}.")
    if None not in {before.scores, after.scores} and before.scores != after.scores:
        found.append(f"It answers {after.scores}, and version {before.version} {before.scores}.")
    return tuple(found)


def champion_differences(model: Model, version: int) -> tuple[str, ...]:
    """Describe what differs between a model's champion and one of its versions."""
    champion = model.aliases.get("champion")
    if champion is None or champion == version:
        return ()
    return differences(model.versions[champion], model.versions[version])


def answers_first(
    model: Model | None, signature: ModelSignature, preprocessing: object | None
) -> bool:
    """
    Whether a new version is the first of a model that can answer an image. The champion is then in
    its way, and nobody chose it: it was only the first to come.
    """
    answers = preprocessing is not None or takes_raw_pixels(signature.inputs[0])
    return answers and model is not None and not any(v.can_answer for v in model.versions.values())


def _tensors(tensors: tuple[TensorSignature, ...]) -> str:
    return ", ".join(map(str, tensors))


def _label_change(before: ModelVersion, after: ModelVersion) -> str:
    if before.labels is None or after.labels is None:
        return ": none" if after.labels is None else ", which has none"
    gone = sorted(set(before.labels) - set(after.labels))
    new = sorted(set(after.labels) - set(before.labels))
    if not gone and not new:
        return ": the same in another order"
    return f": {len(new)} new, {len(gone)} gone"
