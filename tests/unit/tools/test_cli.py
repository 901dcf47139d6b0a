"""The converter's command line."""

import contextlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.converter import model_config
from gateway.converter.publish import read_labels, read_published
from tests.model_family import FAMILY, original_model
from tools.__main__ import app

ROOT = Path(__file__).parents[3]
CLI = CliRunner()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    original_model(tmp_path / "model.onnx", 5)
    return tmp_path / "model.onnx"


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CLI.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_module_runs_as_a_program(model: Path) -> None:
    """`python -m tools` is how it is called."""
    finished = subprocess.run(
        [sys.executable, "-m", "tools", "inspect", model],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'image' FP32 [?, ?, ?, 3]" in finished.stdout
    assert finished.stderr == ""


def test_inspect_gives_json(model: Path) -> None:
    """The signature, and what follows from it."""
    code, out, _ = _run("inspect", model, "--json")
    assert code == 0
    described = json.loads(out)
    assert described["classes"] == 5
    assert described["batchable"] is described["classifier"] is True
    assert described["inputs"] == [
        {"name": "image", "dtype": "FP32", "shape": [None, None, None, 3]}
    ]


def test_inspect_shows_why_a_model_is_no_classifier(tmp_path: Path) -> None:
    """Looking at a model that will be refused is not an error."""
    case = next(case for case in FAMILY if not case.classifier)
    code, out, _ = _run("inspect", case.build(tmp_path / "m.onnx"))
    assert code == 0
    assert "one input is needed, there are 2" in out


def test_config_is_what_publish_would_write(model: Path, tmp_path: Path) -> None:
    """config, publish --dry-run and the file of publish are the same text."""
    repository = tmp_path / "repository"
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    options = ["--name", "m", "--labels", labels, "--instances", 2, "--threads", 3]
    code, shown, _ = _run("config", model, *options)
    assert code == 0
    code, dry, _ = _run("publish", model, *options, "--repository", repository, "--dry-run")
    assert code == 0
    assert not repository.exists()
    code, out, _ = _run("publish", model, *options, "--repository", repository)
    assert code == 0
    published = read_published(repository, "m", 1)
    assert shown == dry == published.config_text == (repository / "m/config.pbtxt").read_text()
    said, change = out.splitlines()
    assert said == f"Published m version 1 ({published.digest})"
    assert change.startswith("The input 'image' takes UINT8 instead of FP32")
    assert read_labels(repository, "m", 1) == ("a", "b", "c", "d", "e")
    config = model_config.parse(shown)
    assert config.instance_group[0].count == 2
    assert config.parameters["intra_op_thread_count"].string_value == "3"


def test_config_as_json_is_the_same_config(model: Path) -> None:
    """--json gives what Triton's load call takes."""
    _, text, _ = _run("config", model, "--name", "m")
    _, document, _ = _run("config", model, "--name", "m", "--json")
    assert json.loads(document) == json.loads(model_config.to_json(model_config.parse(text)))


def test_publish_takes_the_next_number(model: Path, tmp_path: Path) -> None:
    """Without --version a model gets the number after its highest."""
    arguments = ["publish", model, "--name", "m", "--repository", tmp_path / "r", "--json"]
    versions = [json.loads(_run(*arguments)[1])["version"] for _ in range(2)]
    versions.append(json.loads(_run(*arguments, "--version", 7)[1])["version"])
    versions.append(json.loads(_run(*arguments)[1])["version"])
    assert versions == [1, 2, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--name", "a..b"], "name_invalid", "'a..b' is not a model name"),
        (["--name", "m", "--version", "0"], "version_invalid", "0 is not a version"),
        (["--name", "m", "--labels", "absent.txt"], "file_unreadable", "absent.txt"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(
    arguments: list[str], code: str, text: str, model: Path, tmp_path: Path
) -> None:
    """One line on standard error; with --json the stable code on standard output."""
    call = ["publish", model, "--repository", tmp_path / "r", *arguments]
    exit_code, out, error = _run(*call)
    assert exit_code == 2
    assert out == ""
    assert text in error
    assert error.count("\n") == 1
    assert json.loads(_run(*call, "--json")[1])["code"] == code
    assert not list((tmp_path / "r").rglob("*.*"))


@pytest.mark.parametrize("command", ["inspect", "config", "publish"])
def test_unreadable_models_are_refused_by_every_command(command: str, tmp_path: Path) -> None:
    """Garbage and a missing file: exit code 2, one line, no traceback."""
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage")
    every: dict[str, list[object]] = {
        "inspect": [],
        "config": ["--name", "m"],
        "publish": ["--name", "m", "--repository", tmp_path / "r"],
    }
    options = every[command]
    for path in (garbage, tmp_path / "absent.onnx"):
        exit_code, out, error = _run(command, path, *options)
        assert (exit_code, out) == (2, "")
        assert error.startswith(f"{path}: ")
        assert error.count("\n") == 1


def test_hostile_tensor_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A refusal shows the signature on one line, control characters escaped."""
    model = FAMILY[0].make()
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "\x1b[2Jgone\r\n\u202e"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    exit_code, _, error = _run("config", path, "--name", "m")
    assert exit_code == 2
    assert error.removesuffix("\n").isprintable()


def test_commands_of_the_documentation_work_as_written(model: Path) -> None:
    """Each `$ python -m tools …` line of docs/conversion.md ends with exit code 0."""
    text = (ROOT / "docs/conversion.md").read_text(encoding="utf-8")
    commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert len(commands) >= 3
    model.rename(model.with_name("MODEL.onnx"))
    with contextlib.chdir(model.parent):
        for command in commands:
            python, flag, module, *arguments = shlex.split(command)
            assert (python, flag, module) == ("python", "-m", "tools")
            assert _run(*arguments)[0] == 0, command
