"""Different names get different folders, on any file system; folders that were right before keep their names."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builders.tiny import tiny_study
from distillscope.config.load import load_preset, preset_names
from distillscope.errors import UserError
from distillscope.files.folder_names import RESERVED, folder_name, old_folder_name, same_on_some_systems
from distillscope.results.run_files import Trial, trials_of
from distillscope.results.rundir import check_names, clear_run, default_run, open_run, reference_folder, trial_folder

HARD = ["小", "大", "x 1", "x_1", "cosine ", "cosine_", ".", "..", "...", ".x", "x.", "a/b", "a\\b", "/etc/passwd", "../../x",
        "con", "NUL.txt", "com1",
        "a\x00b", "a\nb", "x" * 300, "x" * 301, "é", "ё", "🙂", "~", "-", "--", "a--b", "b--c", "c", "a", "", " ", "a:b",
        "a*b", "‮abc"]


def test_names_that_look_alike_to_a_file_system_have_folders_of_their_own():
    names = [folder_name(name) for name in HARD]
    assert len({same_on_some_systems(name) for name in names}) == len(HARD)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.+~-]{1,200}", name) and name[0] != "." and name[-1] != "."
        assert name.split(".")[0].lower() not in RESERVED


@given(st.lists(st.lists(st.text(max_size=5) | st.text("a-_. ", max_size=6), min_size=2, max_size=2), min_size=2, max_size=2,
                unique_by=tuple))
def test_other_parts_give_another_folder(two):
    one, other = two
    alike = [unicodedata.normalize("NFC", p) for p in one] == [unicodedata.normalize("NFC", p) for p in other]
    assert (folder_name(*one) == folder_name(*other)) == alike


def test_plain_names_keep_the_folders_that_they_had():
    parts = ("digits", "efficientnet_lite0", "cosine", "S", "seed1")
    assert folder_name(*parts) == old_folder_name(*parts) == "digits--efficientnet_lite0--cosine--S--seed1"
    for name in preset_names():
        study = load_preset(name)
        check_names(study)
        for trial in trials_of(study):
            assert ":" in trial.id or trial.id == old_folder_name(*trial.parts)


def students(*labels):
    return [{"name": "paper_cnn", "label": label, "image_size": 16} for label in labels]


@pytest.mark.parametrize(("changes", "message"), [
    ({"students": students("S", "s")}, "students: expected each student under a name of its own, .* got 'S' and 's'"),
    ({"students": students("é", "e\u0301")}, "students: expected each student"),
    ({"students": students("a\x1b[2Jb")}, r"students 'a\\x1b\[2Jb': expected a name of visible characters"),
    ({"students": students(" ")}, "expected a name of visible characters"),
    ({"students": students("teacher")}, "a label other than the teacher's own rows have"),
    ({"arms": [{"name": "A"}, {"name": "a"}]}, "arms: expected each arm under a name of its own"),
    ({"arms": [{"name": "a"}, {"name": "a+bn"}], "remedies": ["bn"]},
     r"no arm named as a remedied one is \(ARM\+REMEDY\), got 'a\+bn'"),
    ({"data": ["digits", {"name": "digits", "alias": "Digits"}]}, r"data: .* Rename one \(alias"),
    ({"data": ["digits", "digits"]}, "data: expected each data set under a name of its own"),
])
def test_names_that_would_be_mixed_up_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_run(tiny_study(**changes), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_a_studys_name_never_leads_out_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("../../x", "..", "/tmp/x", "a/b", "小"):
        assert default_run(name).parent.as_posix() == "runs" and default_run(name).name not in ("", ".", "..")
    assert default_run("mine").as_posix() == "runs/mine"
    (tmp_path / "runs" / "my study").mkdir(parents=True)
    (tmp_path / "runs" / "my study" / "study.yaml").write_text("name: my study\n")
    assert default_run("my study").as_posix() == "runs/my study"  # begun before names were made into folders


def older(run, trial, done=True, named=None):
    """The trial's folder as it was before names got marks of their own."""
    folder = run / "trials" / old_folder_name(*trial.parts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint.pt").write_text("")
    if done:
        (folder / "complete.json").write_text(json.dumps({"trial": asdict(named or trial)}))
    return folder


def test_an_older_run_is_read_and_gone_on_with_where_its_folders_are_unambiguous(tmp_path):
    study = tiny_study(students=students("x 1"), seeds=[1, 2])
    finished, begun = trials_of(study)
    was = older(tmp_path, finished), older(tmp_path, begun, done=False)
    assert trial_folder(tmp_path, finished) == was[0]
    clear_run(study, tmp_path)
    assert trial_folder(tmp_path, finished) == was[0] and (trial_folder(tmp_path, begun) / "checkpoint.pt").is_file()
    assert not was[1].exists()
    reference = tmp_path / "references" / old_folder_name("a b", "t", "none")
    reference.mkdir(parents=True)
    (reference / "complete.json").write_text(json.dumps({"dataset": "a b", "teacher": "t", "target": "none"}))
    assert reference_folder(tmp_path, "a b", "t", "none") == reference != reference_folder(tmp_path, "a_c", "t", "none")


def test_a_folder_that_several_trials_wrote_into_is_set_aside(tmp_path, capsys):
    study = tiny_study(students=students("小", "大"), seeds=[1])
    one, other = trials_of(study)
    folder = older(tmp_path, one, named=other)
    assert trial_folder(tmp_path, one) != folder
    clear_run(study, tmp_path)
    assert not folder.exists() and (tmp_path / "set-aside" / folder.name / "checkpoint.pt").is_file()
    assert len({trial_folder(tmp_path, t) for t in (one, other)}) == 2
    assert "2 trials shared it" in " ".join(capsys.readouterr().err.split())


def test_a_plain_name_is_not_given_what_another_wrote_under_it(tmp_path):
    study = tiny_study(arms=[{"name": "cosine "}, {"name": "cosine_"}], seeds=[1])
    first, plain = trials_of(study)
    folder = older(tmp_path, first)
    assert folder.name == plain.id
    clear_run(study, tmp_path)
    assert not trial_folder(tmp_path, plain).exists()


def test_data_sets_of_one_kind_are_told_apart_when_a_run_grows(tmp_path):
    sets = [{"name": "parquet", "path": f"/{name}", "alias": name} for name in ("a", "b", "c")]
    study = tiny_study(data=sets[:2])
    open_run(study, tmp_path / "run", resume=False)
    open_run(tiny_study(data=sets), tmp_path / "run", resume=True)
    assert len(yaml.safe_load((tmp_path / "run" / "study.yaml").read_text())["data"]) == 3


def test_a_trials_name_reads_as_its_parts():
    assert Trial("digits", "t", "cosine", "S", 1).id == "digits--t--cosine--S--seed1"
