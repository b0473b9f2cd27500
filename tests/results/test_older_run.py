"""A run directory made at commit 148b24f is read, reported and gone on with: same numbers, whatever became of the code."""

import json
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from distillscope.config.load import load_preset
from distillscope.report.write import write_report
from distillscope.study.run import load_study, run_study

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "run-148b24f.tar.xz"
"""``distillscope run study.yaml --out run --jobs 1``, torch 2.14.1, without page, figures and weights."""

TRIAL = "digits--test_resnet--noise--S--seed2"
KEYS = ["dataset", "teacher", "arm", "student", "seed", "split", "measure", "condition", "draw"]


@pytest.fixture
def older(tmp_path, monkeypatch):
    """The run, and beside it the teacher's weights that its study names."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
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
    another_order = 1e-4  # another processor sums in another order
    for key in shared.index:
        assert after[key] == pytest.approx(before[key], rel=another_order, abs=another_order, nan_ok=True), key
    assert len(load_study(older).results) > 0
