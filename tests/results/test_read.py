"""One reader of results.csv, also of an older run and of runs merged: names as they are, damage named and passed over."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from builders import refused
from builders.synthetic_run import make_run
from builders.tiny import finished_run, scratch, sorted_rows, tiny_study, tiny_values
from distillscope.claims.results import results_of
from distillscope.compare.runs import compare_runs
from distillscope.config.load import load_preset, study_from
from distillscope.files.writing import finite, write_json
from distillscope.report.context.study import notices_of
from distillscope.report.study_page import write_report, write_summary
from distillscope.results.archive import write_archive
from distillscope.results.keys import FIT, OLD_FIT, OLD_FIT_SAYS
from distillscope.results.merge import merge_runs
from distillscope.results.run import measured_split, name_train_rank, of_test, read_run
from distillscope.results.same_study import unlike
from distillscope.results.summary import Summary
from distillscope.study.run import load_study, run_study

RANK, TRAIN = "student.effective_rank", "train.effective_rank"


def rows(*given: tuple[str, str, float], dataset: str = "a") -> pd.DataFrame:
    """(split, measure, value) of one trial."""
    shared = {"dataset": dataset, "teacher": "t", "student": "S", "target": "none", "arm": "x", "seed": 1, "condition": "clean",
              "draw": pd.NA}
    return pd.DataFrame([{**shared, "split": split, "measure": measure, "value": value} for split, measure, value in given])


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("training", "val"), ("train", "train, held out"),
                                             ("train", "train"), ("test", "train")])
def test_the_rank_on_train_images_of_older_runs_is_read_under_its_own_key(train, test):
    old = rows((test, "capacity.parameters", 8e5), (test, RANK, 15.0), (test, "train.seconds", 3.0), (train, RANK, 17.0))
    found = name_train_rank(old)
    assert found.set_index("measure")["value"].to_dict() == {"capacity.parameters": 8e5, RANK: 15.0, "train.seconds": 3.0,
                                                             TRAIN: 17.0}
    assert of_test(found)["measure"].tolist() == ["capacity.parameters", RANK, "train.seconds"]
    assert measured_split(found) == test
    assert name_train_rank(found).equals(found)


def test_data_sets_with_split_names_of_their_own_are_read_apart():
    both = pd.concat([rows(("val", "train.seconds", 1.0), ("val", RANK, 2.0), ("train", RANK, 3.0)),
                      rows(("train", "train.seconds", 1.0), ("train", RANK, 4.0), ("extra", RANK, 5.0), dataset="b")],
                      ignore_index=True)
    assert name_train_rank(both)["measure"].tolist() == ["train.seconds", RANK, TRAIN] * 2


@pytest.fixture
def old_run(tmp_path):
    """A run as it was written before the rank on train images had a key; one student is called NA, one trial is damaged."""
    path = make_run(tmp_path / "run", students=("NA", "S"), seeds=(1, 2, 3))
    for file in path.glob("trials/*/results.csv"):
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        train = frame[frame["measure"] == RANK].assign(split="train", value="99")
        pd.concat([frame, train]).to_csv(file, index=False)
    broken = next(path.glob("trials/*--S--seed3"))
    (broken / "results.csv").write_text("measure,value\n")
    return path


def test_results_are_of_the_test_split_and_the_python_reader_reads_as_the_report_does(old_run):
    with pytest.warns(UserWarning, match="seed3.*cannot be read"):
        run = load_study(old_run)
        results, everything = run.results, run.all_results
    assert set(results["student"]) == {"NA", "S", "teacher"}
    assert set(results.loc[results["student"] == "teacher", "arm"]) == {""}
    assert 99 not in set(results.loc[results["measure"] == RANK, "value"]) and TRAIN not in set(results["measure"])
    assert everything.equals(read_run(old_run).all_results)
    assert set(everything.loc[everything["measure"] == TRAIN, "value"]) == {99.0}
    assert set(results.columns) == set(everything.columns)


def test_the_summary_in_python_has_the_rows_of_summary_json(old_run):
    read = read_run(old_run)
    with pytest.warns(UserWarning):
        ours = load_study(old_run).summary
    written = json.loads(write_summary(read, Summary.of(read), []).read_text())["quantities"]
    write_json(old_run / "ours.json", finite(ours.to_dict("records")))
    assert json.loads((old_run / "ours.json").read_text()) == written
    assert {TRAIN, f"{RANK}_of_mean_spectrum"} <= set(ours["measure"])


@pytest.fixture
def mapped_run(tmp_path):
    """A run whose trials measured mapped.*, in the first ``new`` of them by today's fit."""
    def make(new: int, name: str = "mapped"):
        path = make_run(tmp_path / name, students=("S",), seeds=(1, 2, 3))
        for i, folder in enumerate(sorted(path.glob("trials/*"))):
            frame = pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False)
            row = frame[frame["measure"] == RANK].assign(measure="mapped.recall_at_1", value=str(0.1 * (i + 1)))
            pd.concat([frame, row]).to_csv(folder / "results.csv", index=False)
            done = json.loads((folder / "complete.json").read_text())
            write_json(folder / "complete.json", done | ({"mapped": FIT} if i < new else {}))
        return path

    return make


def test_values_by_the_old_fit_of_the_map_are_never_mixed_with_new_ones(mapped_run):
    def kept(run):
        return run.results.loc[run.results["measure"].str.startswith("mapped."), "seed"].tolist()

    new, old, both = (read_run(mapped_run(n, f"run{n}")) for n in (3, 0, 2))
    assert (new.mapped_fit, old.mapped_fit, both.mapped_fit) == (FIT, OLD_FIT, FIT)
    assert kept(new) == kept(old) == [1, 2, 3] and not new.problems and not old.problems
    assert kept(both) == [1, 2] and len(both.problems) == 1 and "seed3" in both.problems[0] and "--resume" in both.problems[0]
    assert results_of([new])[0].mapped_notes == () and results_of([old])[0].mapped_notes == (OLD_FIT_SAYS,)
    (joined,) = results_of([old, new])
    assert str(old.path) in joined.mapped_notes[0]
    assert not joined.frame["measure"].str.startswith("mapped.").any()  # the same trials: the first run's
    assert [notices_of(r).old_fit for r in (old, new, both)] == [OLD_FIT_SAYS, "", ""]


def test_two_runs_by_different_fits_are_not_compared_in_what_the_map_gives(mapped_run):
    found = compare_runs([mapped_run(3, "new"), mapped_run(0, "old")])
    (recall,) = [d for d in found.pairs[0].differences if d.quantity.key == "recall"]
    assert not recall.known and "fit of the map" in recall.left_out
    same = compare_runs([mapped_run(3, "one"), mapped_run(3, "two")]).pairs[0]
    assert next(d for d in same.differences if d.quantity.key == "recall").known


ARCHIVE = Path(__file__).parents[1] / "fixtures" / "run-148b24f.tar.xz"
"""``distillscope run study.yaml --out run --jobs 1``, torch 2.14.1, without page, figures and weights."""

TRIAL = "digits--test_resnet--noise--S--seed2"
KEYS = ["dataset", "teacher", "arm", "student", "seed", "split", "measure", "condition", "draw"]


@pytest.fixture
def older(tmp_path, monkeypatch):
    """The run, and beside it the teacher's weights that its study names."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # no argument of it before Python 3.11.4
        archive.extractall(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "teacher.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "run"


def table(file):
    rows = pd.read_csv(file, keep_default_na=False, na_values={"value": [""]})
    return rows.set_index([k for k in KEYS if k in rows])["value"]


def quantities(run):
    named = ["dataset", "teacher", "arm", "student", "split", "condition", "measure"]
    return {tuple(q[k] for k in named): q for q in json.loads((run / "summary.json").read_text())["quantities"]}


def test_its_report_has_the_same_numbers(older):
    before = quantities(older)
    write_report(older)
    after = quantities(older)
    shared = before.keys() & after.keys()
    assert len(shared) > 0.95 * len(before)
    for key in shared:
        assert after[key]["mean"] == pytest.approx(before[key]["mean"], rel=1e-12), key


def test_it_goes_on_to_the_same_numbers(older):
    before = table(older / "trials" / TRIAL / "results.csv")
    shutil.rmtree(older / "trials" / TRIAL)
    run_study(load_preset("study.yaml"), older, resume=True, jobs=1, report=False)
    after = table(older / "trials" / TRIAL / "results.csv")
    since = [key for key in before.index if key[6].startswith("mapped.")
             or key[6] == "train.seconds"]  # mapped.* is cross-fitted since
    renamed = [key for key in before.index if key[5] == "train"]  # the rank on train images has a key of its own since
    shared = before.drop(since + renamed)
    assert len(shared) > 50
    another_order = 0.01  # a training on another processor sums in another order: 0.0043 from oneDNN's AVX2 to its AVX-512
    for key in shared.index:
        assert after[key] == pytest.approx(before[key], rel=another_order, abs=another_order, nan_ok=True), key
    assert len(load_study(older).results) > 0


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


def interrupted(*_):
    raise KeyboardInterrupt


def test_two_seeds_made_apart_equal_both_made_at_once(tmp_path, monkeypatch):
    for seed in (1, 2):
        run_study(tiny_study(seeds=[seed]), tmp_path / str(seed), jobs=1, report=False)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("distillscope.results.merge.write_json", interrupted)
        merge_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "both")
    assert not list((tmp_path / "both").iterdir()), "half a run would be in the way of the next line"
    assert merge_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "both") == tmp_path / "both"
    at_once = sorted_rows(load_study(finished_run()).results.query("arm != 'augmented'"))
    joined = sorted_rows(load_study(tmp_path / "both").results)
    assert list(joined.columns) == list(at_once.columns)
    same = [c for c in at_once.columns if c != "value"]
    assert joined[same].astype(str).equals(at_once[same].astype(str))
    assert np.array_equal(joined.value, at_once.value)
    assert load_study(tmp_path / "both").study.seeds == (1, 2)


def test_other_studies_and_single_runs_are_refused(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    shutil.copytree(finished_run(), first)
    shutil.copytree(finished_run(), second)
    from distillscope.files.writing import write_text

    values = tiny_values(training={"epochs": 3, "batch_size": 32}, arms=[{"name": "cosine"}])
    import yaml

    write_text(second / "study.yaml", yaml.safe_dump(study_from(values).dump()))
    with refused(where="b training"):
        merge_runs([first, second], tmp_path / "out")
    with refused(where="merge", got="1"):
        merge_runs([first], tmp_path / "out")
    with refused(expected="study.yaml"):
        merge_runs([first, tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_goes_into_a_new_folder_and_what_a_run_does_not_say_of_its_making_is_left_out(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    shutil.copytree(finished_run(), first)
    shutil.copytree(finished_run(), second)
    (first / "provenance.json").write_text('{"command": null, "conditions": null, "seconds": null}')
    with refused(got="one with files") as caught:
        merge_runs([first, second], second)
    assert "--resume" not in caught.value.todo  # which merge does not have
    out = merge_runs([first, second], tmp_path / "out")
    said = [json.loads((folder / "provenance.json").read_text()) for folder in (out, second)]
    assert said[0]["command"] == said[1]["command"] and said[0]["seconds"] == said[1]["seconds"]
    assert len(load_study(out).trials) == len(load_study(second).trials)


def test_relative_paths_of_a_joined_run_start_where_those_of_its_parts_did(tmp_path):
    parts = [tmp_path / "a", tmp_path / "deep" / "b", tmp_path / "c"]
    reads = [{"digits": {"start": "../gone"}}, {"digits": {"start": "../..", "sample": {}}, "more": {"start": "../.."}}, ["?"]]
    for folder, read in zip(parts, reads, strict=True):
        shutil.copytree(finished_run(), folder)
        record = folder / "provenance.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "read": read}))
    out = merge_runs(parts, tmp_path / "far" / "down" / "out")
    said = json.loads((out / "provenance.json").read_text())
    assert said["read"] == {"digits": {"start": "../../..", "sample": {}}, "more": {"start": "../../.."}}
    assert [record["read"].get("digits", {}).get("start") for record in said["merged"]] == ["../../../gone", "../../..", None]
    write_archive(parts[1], tmp_path / "packed")  # elsewhere than the run, so that its start is not known
    out = merge_runs([tmp_path / "packed", parts[0]], tmp_path / "both")
    assert json.loads((out / "provenance.json").read_text())["read"]["digits"] == {"sample": {}}


@pytest.mark.parametrize("packed", [False, True])
def test_runs_on_other_images_or_weights_are_not_joined(tmp_path, packed):
    """Their trials would stand beside the first one's teacher."""
    first, second, third = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (first, second):
        shutil.copytree(finished_run(), folder)
    for done in second.glob("references/*/complete.json"):
        said = json.loads(done.read_text())
        assert "test images" in said["fingerprint"]
        done.write_text(json.dumps({**said, "fingerprint": {**said["fingerprint"], "test images": "other"}}))
    if packed:
        write_archive(second, third)
    with refused(where="test images (fingerprint)", expected="as in", got="other"):
        merge_runs([first, third if packed else second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_name_for_two_things_is_refused(tmp_path):
    import yaml

    first, second = tmp_path / "a", tmp_path / "b"
    for folder, width in ((first, 1), (second, 2)):
        folder.mkdir()
        students = [{"name": "paper_cnn", "label": "S", "width": width, "image_size": 16}]
        (folder / "study.yaml").write_text(yaml.safe_dump(tiny_study(students=students).dump()))
    with refused(where="b students 'S'", expected="1", got="width: 2"):
        merge_runs([first, second], tmp_path / "out")


def test_an_unfinished_trial_is_left_out_and_said(tmp_path, capsys):
    first, second = tmp_path / "a", tmp_path / "b"
    shutil.copytree(finished_run(), first)
    shutil.copytree(finished_run(), second)
    for folder in (first, second):
        next(folder.glob("trials/*augmented*/complete.json")).unlink()
    merge_runs([first, second], tmp_path / "out")
    assert "augmented--S--seed1: not finished, left out" in "".join(capsys.readouterr().err.splitlines())
    assert len(list((tmp_path / "out" / "trials").iterdir())) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"command": 5, "seconds"'])
def test_a_damaged_provenance_is_named(tmp_path, damage):
    run = shutil.copytree(finished_run(), tmp_path / "run")
    (run / "provenance.json").write_text(damage)
    with refused(where="provenance.json"):
        merge_runs([run, finished_run()], tmp_path / "out")


def test_an_axis_of_a_damaged_study_that_is_no_list_does_not_grow():
    assert not list(unlike({"teacher": ["t"]}, {"teacher": ["t", "u"]}))
    for first, second in ((1e-320, ["t"]), (["t"], {"t": 1})):
        assert [u.key for u in unlike({"teacher": first}, {"teacher": second})] == ["teacher"]
