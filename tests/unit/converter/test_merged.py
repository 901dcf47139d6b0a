"""Weights beside a model are brought in; nothing else is opened."""

import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from gateway.converter.errors import ExternalDataForbidden
from gateway.converter.merged import in_one_file
from gateway.converter.onnx_signature import read_graph
from tests.model_family import original_model


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A model as torch's exporter writes it: the graph, and its weights beside it."""
    original_model(tmp_path / "whole.onnx", 5)
    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.load(tmp_path / "whole.onnx"),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    assert path.with_name("model.onnx.data").stat().st_size > 0
    return path


def test_weights_beside_a_model_are_brought_in(split: Path, tmp_path: Path) -> None:
    """What comes out is the model with its weights inside, and it is gone afterwards."""
    with in_one_file(split) as whole:
        merged = onnx.load(whole, load_external_data=False)
        assert whole != split
    onnx.checker.check_model(merged)
    expected = onnx.load(tmp_path / "whole.onnx")
    assert [onnx.numpy_helper.to_array(t).tolist() for t in merged.graph.initializer] == [
        onnx.numpy_helper.to_array(t).tolist() for t in expected.graph.initializer
    ]
    assert not whole.exists()


def test_a_whole_model_is_itself(tmp_path: Path) -> None:
    """Nothing is copied where nothing lies beside it."""
    original_model(tmp_path / "m.onnx", 5)
    with in_one_file(tmp_path / "m.onnx") as whole:
        assert whole == tmp_path / "m.onnx"


def _point_to(location: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        graph = onnx.load(model, load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        model.write_bytes(graph.SerializeToString())

    return change


def _link(model: Path) -> None:
    data = model.with_name("model.onnx.data")
    data.rename(model.with_name("elsewhere"))
    data.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "change",
    [_point_to("../secret"), _point_to("/etc/passwd"), _point_to("gone"), _link],
    ids=["above", "absolute", "missing", "link"],
)
def test_no_other_file_is_opened(change: Callable[[Path], None], split: Path) -> None:
    """Only own files in the model's directory hold weights."""
    change(split)
    with pytest.raises(ExternalDataForbidden), in_one_file(split):
        pass


def test_what_the_refusal_advises_cures_it(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of Python in the text, typed as it stands there, makes a file that is taken."""
    with pytest.raises(ExternalDataForbidden) as refused:
        read_graph(split)
    (line,) = re.findall(r"onnx\.save\(onnx\.load\(.*?False\)", str(refused.value))
    monkeypatch.chdir(split.parent)
    Path("whole.onnx").unlink()
    exec(line, {"onnx": onnx})
    assert read_graph(Path("whole.onnx")).graph.node
