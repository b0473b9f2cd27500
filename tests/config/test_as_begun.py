"""A run that was begun before a student's hidden layer had a width of its own goes on with the layer that it has."""

from __future__ import annotations

import yaml

from builders.tiny import tiny_study
from distillscope.files.writing import write_text
from distillscope.results.rundir import as_begun, load_config, open_run


def test_a_resumed_run_keeps_its_hidden_layer_and_a_new_one_has_the_papers(tmp_path, capsys):
    study = tiny_study()
    open_run(study, tmp_path / "new", False)
    assert load_config(tmp_path / "new")["students"][0]["hidden"] == 512
    assert as_begun(study, tmp_path / "new") == study == as_begun(study, tmp_path / "none")
    older = study.dump()
    del older["students"][0]["hidden"]
    write_text(tmp_path / "old" / "study.yaml", yaml.safe_dump(older))
    assert load_config(tmp_path / "old")["students"][0]["hidden"] == "target"
    going_on = as_begun(study, tmp_path / "old")
    assert going_on.students[0].settings["hidden"] == "target" and "hidden layer of S" in capsys.readouterr().err
    open_run(going_on, tmp_path / "old", True)  # not refused
    assert load_config(tmp_path / "old")["students"][0]["hidden"] == "target"
