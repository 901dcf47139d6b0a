"""
The sum of several processes' metrics, as one scrape shows it.

Every worker counts its own requests. What a worker had counted when it died stays in the sum, so
that no counter goes backwards. Additions are exact (fractions, not floats): with rounding, a sum
could come out smaller by its last bit when its parts are added in another order, and Prometheus
would take that for a restart.

A series that only one process shows is taken over as it is; that is how the parent's gauges of
replicas and versions, and Triton's own metrics, come through. Of exemplars the newest stays.
"""

import math
from collections.abc import Iterable, Set
from fractions import Fraction

from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar, Sample

_Key = tuple[str, tuple[tuple[str, str], ...]]


class _Series:
    """The sum of one sample over processes."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.total = _exact(sample.value)
        self.exemplar = sample.exemplar

    def add(self, sample: Sample) -> None:
        self.total += _exact(sample.value)
        if _time(sample.exemplar) > _time(self.exemplar):
            self.exemplar = sample.exemplar

    def shown(self) -> Sample:
        return self.sample._replace(value=float(self.total), exemplar=self.exemplar)


class Totals:
    """Sums, by family and series. Not safe for threads; a copy is."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._series: dict[str, dict[_Key, _Series]] = {}

    def add(self, families: Iterable[Metric]) -> None:
        """Add what one process shows."""
        for family in families:
            self._families.setdefault(family.name, family)
            known = self._series.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                if key in known:
                    known[key].add(sample)
                else:
                    known[key] = _Series(sample)

    def families(self) -> list[Metric]:
        """Show the sums."""
        shown = []
        for name, family in self._families.items():
            total = Metric(family.name, family.documentation, family.type, family.unit)
            total.samples = [series.shown() for series in self._series[name].values()]
            shown.append(total)
        return shown

    def merged_with(self, others: Iterable[Iterable[Metric]]) -> "Totals":
        """Return the sum of this and of what other processes show; this stays as it is."""
        merged = Totals()
        # Those of living processes come first: theirs are the texts, and the order.
        for families in others:
            merged.add(families)
        for name, family in self._families.items():
            merged._families.setdefault(name, family)
            known = merged._series.setdefault(name, {})
            for key, series in self._series[name].items():
                if key in known:
                    known[key].total += series.total
                else:
                    known[key] = _copy(series)
        return merged

    def keep_only(self, registered: Set[tuple[str, int]]) -> None:
        """Drop the series of versions that are registered no more."""
        models = {model for model, _ in registered}
        for known in self._series.values():
            gone = [key for key in known if not _is_registered(dict(key[1]), models, registered)]
            for key in gone:
                del known[key]


def _copy(series: _Series) -> _Series:
    copied = _Series(series.sample)
    copied.total, copied.exemplar = series.total, series.exemplar
    return copied


def _exact(value: float) -> int | Fraction | float:
    """Return a value as a number that adds without rounding; infinities and NaN stay."""
    if not math.isfinite(value):
        return value
    return int(value) if float(value).is_integer() else Fraction(value)


def _time(exemplar: Exemplar | None) -> float:
    return float(exemplar.timestamp or 0.0) if exemplar is not None else -1.0


def _is_registered(
    labels: dict[str, str], models: Set[str], registered: Set[tuple[str, int]]
) -> bool:
    model, version = labels.get("model", ""), labels.get("version", "")
    if not model:
        return True
    return model in models and (not version or (model, int(version)) in registered)
