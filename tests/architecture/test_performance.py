"""docs/performance.md says what was measured."""

from perf.document import DOCUMENT, RESULTS, render


def test_tables_are_the_committed_results() -> None:
    """The document's tables are those of perf/results (mend: python -m perf.document)."""
    text = DOCUMENT.read_text()
    assert render(text, RESULTS) == text
