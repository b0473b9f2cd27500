"""A student's own images are those that it was distilled on, from whatever folder one exports it."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import distillscope
from builders import refused
from builders.tiny import finished_run, tiny_study
from distillscope.data.origin import Origin
from distillscope.students.export import fine_tune
from distillscope.students.export.images import asked_of, own_images
from distillscope.study.run import run_study

COUNT = 24


def photos(folder, seed):
    folder.mkdir(parents=True)
    for i, image in enumerate(np.random.default_rng(seed).integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / f"{i:02}.png")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """a/student, distilled in a/ on its photos; b/ has others of the same names, and is where we are."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate("ab"):
        photos(tmp_path / name / "photos", seed)
    monkeypatch.chdir(tmp_path / "a")
    rows = np.random.default_rng(2).normal(size=(COUNT, 8))
    distillscope.distill(rows, "paper_cnn", "photos", epochs=1, batch_size=8, image_size=16, device="cpu", out="student")
    monkeypatch.chdir(tmp_path / "b")
    return tmp_path / "a" / "student"


def first(source):
    return source.image(int(np.flatnonzero(np.char.endswith(source.ids, "00.png"))[0]))


def test_a_relative_path_starts_where_the_student_was_made(made, capfd):
    assert (first(own_images(made, COUNT)) == np.asarray(Image.open(made.parent / "photos" / "00.png"))).all()
    assert "distilled on" not in capfd.readouterr().err
    moved = made.parent.rename(made.parent.parent / "moved") / "student"  # with its images
    assert (first(own_images(moved, COUNT)) == np.asarray(Image.open(moved.parent / "photos" / "00.png"))).all()


def test_other_images_under_the_same_name_are_refused_and_changed_ones_are_said(made, capfd):
    assert str(made.parent) not in (made / "distill.yaml").read_text()
    apart = shutil.copytree(made, made.parent.parent / "elsewhere" / "student")
    with refused(got=["b/photos", "of 16 images that it was distilled on, 0 are as they were"], advice="--calibrate DATA"):
        own_images(apart, COUNT)
    shutil.rmtree("photos")
    shutil.copytree(made.parent / "photos", "photos")
    assert len(own_images(apart, COUNT)) == COUNT
    for i in range(COUNT // 3):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(f"photos/{i:02}.png")
    capfd.readouterr()
    own_images(apart, COUNT)
    assert "of 16 images that it was distilled on, " in capfd.readouterr().err


def test_a_student_that_does_not_say_where_it_was_made_is_answered_with_the_folder(made, capfd):
    said = yaml.safe_load((made / "distill.yaml").read_text())
    del said["read"]
    (made / "distill.yaml").write_text(yaml.safe_dump(said))
    own_images(made, COUNT)
    assert f"images are taken from {made.parent.parent / 'b' / 'photos'}" in capfd.readouterr().err
    (made / "distill.yaml").write_text(yaml.safe_dump({**said, "read": {"start": 3, "sample": ["x"]}}))
    own_images(made, COUNT)
    (made / "distill.yaml").unlink()
    with refused(got="only their name, photos", advice="--calibrate DATA"):
        own_images(made, COUNT)


def test_names_are_no_paths_though_folders_are_called_so(tmp_path):
    for name in ("digits", "ann/photos", "shots"):
        (tmp_path / name).mkdir(parents=True)
    origin = Origin.read({"start": ".."}, tmp_path / "student")
    for named in ("digits", {"name": "digits"}, {"name": "hub", "path": "ann/photos"}, "s3://a/shots", "missing", None):
        assert origin.located(named) == named
    assert origin.located("shots") == str(tmp_path / "shots") == origin.located({"name": "x", "root": "shots"})["root"]


def test_a_student_of_a_study_knows_its_images_too(tmp_path):
    run = finished_run()
    kept = json.loads((run / "provenance.json").read_text())["read"]["digits"]
    trial = next((run / "trials").glob("*/student.json")).parent
    assert len(kept["sample"]) == 16 and len(own_images(trial, 30)) == 30
    copied = shutil.copytree(run, tmp_path / "run")
    record = json.loads((copied / "provenance.json").read_text())
    record["read"]["digits"]["sample"] = dict.fromkeys(kept["sample"], "0" * 16)
    (copied / "provenance.json").write_text(json.dumps(record))
    with refused(got="digits: of 16 images that it was distilled on, 0 are as they were"):
        own_images(copied / "trials" / trial.name, 30)


def test_a_trial_that_was_copied_out_of_its_run_takes_the_images_that_are_there(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate(("train", "test")):
        photos(tmp_path / "project" / "photos" / name, seed)
    monkeypatch.chdir(tmp_path / "project")
    study = tiny_study(data=[{"name": "image_folder", "path": "photos"}], validation=0, limit=None, limit_test=None, seeds=[1],
                       noise={"sigmas": []}, training={"epochs": 1, "batch_size": 8})
    run_study(study, "runs/one", jobs=1, report=False)
    (trial,) = (tmp_path / "project" / "runs" / "one" / "trials").iterdir()
    wanted, said = first(own_images(trial, COUNT)), f"images are taken from {tmp_path / 'project' / 'photos'}"
    assert said not in capfd.readouterr().err
    near, far = (shutil.copytree(trial, tmp_path / where / "single") for where in ("project", "far"))
    for place, folder in ((tmp_path, near), (tmp_path / "project", near), (tmp_path / "project", far)):
        monkeypatch.chdir(place)
        assert (first(own_images(folder, COUNT)) == wanted).all()
        assert f"export {folder}: {said}: there are none where it was distilled" in capfd.readouterr().err
    assert len(asked_of(near)["students"]) == 1 and len(asked_of(near)["teacher's weights"]) == 32
    monkeypatch.chdir(tmp_path)
    with refused(got="none within reach (data photos: no such folder)", advice="--calibrate DATA"):
        own_images(far, COUNT)
    (near / "trial.yaml").unlink()  # of an older version
    with refused(got="only their name, photos", advice="--calibrate DATA"):
        own_images(near, COUNT)


def test_a_teacher_of_other_weights_under_the_same_path_is_not_compared_with(made, monkeypatch):
    asked = {**asked_of(made), "teacher": [{"name": "timm", "model": "m", "weights": "w.safetensors", "label": "T"}],
             "teacher's weights": "one", "target": {"name": "none"}}
    (made / "student.json").write_text('{"teacher": "T"}')
    (made.parent / "w.safetensors").write_bytes(b"")
    seen = []
    monkeypatch.setattr(fine_tune, "asked_of", lambda folder: asked)
    monkeypatch.setattr(fine_tune, "load_teacher", lambda named, *rest: seen.append(named) or type(
        "Teacher", (), {"mark": "two"})())
    with refused(where="teacher", got="other ones under the same name"):
        fine_tune._cached_rows(made, None, None)
    assert seen[0].settings["weights"] == str(made.parent / "w.safetensors")
