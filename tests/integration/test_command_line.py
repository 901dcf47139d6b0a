"""`gateway doctor` and `gateway settings`, as they are typed."""

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

from gateway.cli.settings_table import settings_table


def _gateway(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}},
            "PORT": "0",
            "DATA_DIR": str(folder / "var"),
            "MODEL_REPOSITORY": str(folder / "repository"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_doctor_finds_a_healthy_machine_healthy(tmp_path: Path) -> None:
    """On a machine where the tests run, every finding is well and the exit code is 0."""
    done = _gateway(tmp_path, "doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert [finding for finding in findings if not finding["ok"]] == []
    assert done.returncode == 0
    names = {finding["name"] for finding in findings}
    assert {"port", "database", "data folder", "repository folder"} <= names
    sandbox = next(found for found in findings if found["name"] == "sandbox of validation")
    assert "calls: held" in sandbox["detail"]


def test_doctor_says_how_to_mend_what_is_wrong(tmp_path: Path) -> None:
    """A taken port, an unreachable replica and a wrong database: each named, each with a fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _gateway(
            tmp_path,
            "doctor",
            "--json",
            PORT=str(port),
            TRITON_URLS="http://127.0.0.1:9",
            DATABASE_URL="postgresql://127.0.0.1:9/none",
        )
    findings = json.loads(done.stdout)["findings"]
    wrong = {finding["name"]: finding["fix"] for finding in findings if not finding["ok"]}
    assert set(wrong) == {"port", "replica", "database"}
    assert all(wrong.values())
    assert done.returncode == 1


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    """A setting that cannot be read is named with what was given; no traceback."""
    done = _gateway(tmp_path, "serve", PORT="many")
    assert done.returncode == 1
    assert "PORT" in done.stderr
    assert "many" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_of_a_newer_release_is_one_line(tmp_path: Path) -> None:
    """A schema that this release cannot work with: what to do, exit code 1, no traceback."""
    (tmp_path / "var").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "var/gateway.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
        database.execute("CREATE TABLE state (id INTEGER, generation INTEGER)")
        database.commit()
    done = _gateway(tmp_path, "serve", TRITON_URLS="http://127.0.0.1:9")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "newer release" in line]
    assert "Start the newer release" in line
    assert "Traceback" not in done.stdout + done.stderr


def test_a_path_that_triton_cannot_take_is_refused_at_start(tmp_path: Path) -> None:
    """A blank in the data folder would make a load hang: the start says so instead."""
    done = _gateway(tmp_path, "serve", DATA_DIR=str(tmp_path / "with blank"))
    assert done.returncode == 1
    assert "without blanks" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_settings_prints_the_table(tmp_path: Path) -> None:
    """`gateway settings` prints what docs/settings.md holds."""
    assert _gateway(tmp_path, "settings").stdout == settings_table()
