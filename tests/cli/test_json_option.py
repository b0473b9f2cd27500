"""`--json [FILE]` is read alike on every command: alone it prints, `--json=FILE` writes; earlier uses stay what they were."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from builders.planted import planted_run, write_run
from distillscope import cli

COMMANDS = typer.main.get_command(cli.app).commands


def read(command, *words):
    return COMMANDS[command].joined(list(words))


@pytest.mark.parametrize("command", ["audit", "compare", "claims", "recommend"])
def test_alone_it_prints_and_with_an_equals_sign_it_writes(command):
    assert read(command, "--json") == ["--json=-"] == read(command, "--json", "-") or command == "compare"
    assert read(command, "--json", "--out", "x") == ["--json=-", "--out", "x"]
    assert read(command, "a", "--json=values.txt") == ["a", "--json=values.txt"]
    assert read(command, "--", "--json", "x") == ["--", "--json", "x"]


def test_a_word_after_it_is_the_file_where_it_can_be_no_input(tmp_path):
    run = str(tmp_path)
    assert read("audit", "--json", run, "--full") == [f"--json={run}", "--full"]
    for command in ("claims", "recommend"):
        assert read(command, run, "--json", "out.json") == [run, "--json=out.json"]
        assert read(command, "--json", run) == ["--json=-", run]
    assert read("compare", "--json", "a.json", "b.json") == ["--json=-", "a.json", "b.json"]


def test_audit_prints_or_writes_the_same_values(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 6))
    np.save(tmp_path / "t.npy", rows)
    np.save(tmp_path / "s.npy", rows[:, ::-1])
    audit = ["audit", "--teacher", str(tmp_path / "t.npy"), "--student", str(tmp_path / "s.npy"), "--only", "similarity",
             "--no-intervals"]
    printed = CliRunner().invoke(cli.app, [*audit, "--json"], catch_exceptions=False)
    written = CliRunner().invoke(cli.app, [*audit, "--json", str(tmp_path / "found.json")], catch_exceptions=False)
    assert json.loads(printed.stdout) == json.loads((tmp_path / "found.json").read_text())
    assert "CKA" in written.stdout and "found.json" in written.stdout.replace("\n", "")


def test_claims_prints_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("distillscope.report.write.write_report", lambda run: run / "report.html")
    run = write_run(planted_run(arms="one two", log_ranks={2: 12.0}), tmp_path / "run")
    other = shutil.copytree(run, tmp_path / "other")
    done = CliRunner().invoke(cli.app, ["claims", "--json", str(run)], catch_exceptions=False)
    assert json.loads(done.stdout) == json.loads((run / "claims.json").read_text())
    CliRunner().invoke(cli.app, ["claims", str(other), f"--json={tmp_path / 'verdicts'}"], catch_exceptions=False)
    assert json.loads((tmp_path / "verdicts").read_text()) == json.loads((other / "claims.json").read_text())
