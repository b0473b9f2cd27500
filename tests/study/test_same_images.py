"""Images that are replaced under their names are other images: their targets are made again, and no run goes on with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

from builders import refused
from builders.tiny import tiny_study, tiny_values
from builders.training import make_source
from distillscope.config.load import study_from
from distillscope.config.parts import REQUEST, Part
from distillscope.data.splits import Splits
from distillscope.draws import keyed_rng
from distillscope.results.merge import merge_runs
from distillscope.results.run_files import EVERY
from distillscope.study.prepared import fingerprint, load_data, prepare_targets
from distillscope.study.run import run_study
from distillscope.study.student import compare_request, distill_one
from distillscope.teachers.encoder import load_teacher

TRAIN, TEST = 90, 45


def write_pictures(folder, seed):
    rng = np.random.default_rng(seed)
    for split, count in (("train", TRAIN), ("test", TEST)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / split / f"{i:03d}.png")
    return folder


def replace_unsampled(folder, split, count, number=5):
    """Other images under the names of ``number`` items whose pixels the marks of older versions do not hold."""
    sampled = set(keyed_rng("sample hash", count).integers(0, count, size=32).tolist())
    chosen = [i for i in range(count) if i not in sampled][:number]
    for i in chosen:
        Image.fromarray(np.full((8, 8, 3), 40 + i, dtype=np.uint8)).save(folder / split / f"{i:03d}.png")
    return chosen


def values_of(folder, **changes):
    return tiny_values(data={"name": "image_folder", "path": str(folder), "label": "none"}, validation=0, limit=None,
                       limit_test=None, noise={"sigmas": []}, seeds=[1], training={"epochs": 1, "batch_size": 16}, **changes)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    return write_pictures(tmp_path / "pictures", 0)


def test_targets_of_replaced_images_are_made_again_and_the_others_are_as_they_were(pictures):
    study = study_from(values_of(pictures))
    encoder = load_teacher(study.teacher[0], "cpu", None)

    def rows():
        splits = load_data(study, study.data[0])
        prepared = prepare_targets(study, encoder, splits, Part(name="none"), list(study.arms))
        return splits, {name: np.array(prepared.rows(name)) for name in ("train", "test")}

    first, before = rows()
    chosen = replace_unsampled(pictures, "train", TRAIN)
    second, after = rows()
    assert first.marks == second.marks  # what older versions went by
    assert first.contents["train"] != second.contents["train"] and first.contents["test"] == second.contents["test"]
    assert np.array_equal(np.flatnonzero((before["train"] != after["train"]).any(axis=1)), chosen)
    assert np.array_equal(before["test"], after["test"])
    _, again = rows()
    assert np.array_equal(again["train"], after["train"])


def test_what_names_a_split_reads_no_image_that_was_scanned():
    def fetch(index):
        raise AssertionError("an image is read")

    scanned = make_source(40)
    streamed = replace(scanned, pixels=None, fetch=fetch, hashes=scanned.names())
    kept, other = (Splits("x", replace(source, split="train"), None, source, source)
                   for source in (streamed, replace(streamed, hashes=np.roll(scanned.names(), 1, axis=0))))
    assert kept.contents.keys() == {"train", "test"} and kept.contents["train"] != other.contents["train"]


def test_a_run_and_a_student_do_not_go_on_with_replaced_images(pictures, tmp_path):
    study, run, student = study_from(values_of(pictures)), tmp_path / "run", tmp_path / "student"
    run_study(study, run, jobs=1, report=False)
    distill_one(study, student)
    run_study(study, run, jobs=1, report=False, resume=True)
    distill_one(study, student, resume=True)
    replace_unsampled(pictures, "test", TEST)
    distill_one(study, student, resume=True)  # it saw none of the test images
    with refused(where=f"--resume {run}", expected="every test image as when it started", got="another one"):
        run_study(study, run, jobs=1, report=False, resume=True)
    replace_unsampled(pictures, "train", TRAIN)
    with refused(where=f"{EVERY}train image", expected="as when it started"):
        distill_one(study, student, resume=True)


def as_older(folder):
    """The run's results as a version wrote them that kept the marks of 32 images alone."""
    for path in folder.glob("references/*/complete.json"):
        done = json.loads(path.read_text())
        marks = {k: v for k, v in done["fingerprint"].items() if not k.startswith(EVERY)}
        assert marks.keys() < done["fingerprint"].keys()
        path.write_text(json.dumps({**done, "fingerprint": marks}))
    return folder


def test_runs_and_students_of_older_versions_go_on_and_are_joined_by_what_they_kept(pictures, tmp_path):
    study, run, student = study_from(values_of(pictures)), tmp_path / "run", tmp_path / "student"
    run_study(study, run, jobs=1, report=False)
    older = as_older(shutil.copytree(run, tmp_path / "older"))
    more = study.model_copy(update={"seeds": (1, 2)})
    run_study(more, older, jobs=1, report=False, resume=True)
    for place, pair in enumerate(((older, run), (run, older))):
        assert merge_runs(pair, tmp_path / f"joined{place}").is_dir()
    distill_one(study, student)
    request = yaml.safe_load((student / REQUEST).read_text())
    now = {key: request[key] for key in ("settings", "precision", "fingerprint")}
    request["fingerprint"] = {k: v for k, v in request["fingerprint"].items() if not k.startswith(EVERY)}
    (student / REQUEST).write_text(yaml.safe_dump(request))
    compare_request(student, now)
    other = {**now, "fingerprint": {**now["fingerprint"], "train images": "other"}}
    with refused(where="fingerprint.train images"):
        compare_request(student, other)


def test_a_fingerprint_holds_both_marks_of_each_split():
    study = tiny_study()
    found = fingerprint(load_teacher(study.teacher[0], "cpu", None), load_data(study, study.data[0]))
    names = ("train", "validation", "test")
    assert found.keys() == {*(f"{n} images" for n in names), *(f"every {n} image" for n in names), "teacher's weights"}
