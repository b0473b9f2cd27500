"""One reader of results.csv: train and test under their own keys, names as they are, damage named and passed over."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from builders.synthetic_run import make_run
from distillscope.claims.results import results_of
from distillscope.compare.runs import compare_runs
from distillscope.files.writing import write_json
from distillscope.report.context.study.head import notices_of
from distillscope.report.write import _finite, write_summary
from distillscope.results.keys import FIT, OLD_FIT, OLD_FIT_SAYS
from distillscope.results.run import measured_split, name_train_rank, of_test, read_run
from distillscope.results.summary import Summary
from distillscope.study.run import load_study

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
    write_json(old_run / "ours.json", _finite(ours.to_dict("records")))
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
