"""`distill --resume` goes on with the same request and no other; "finished already" is said of that one alone."""

from __future__ import annotations

import json

import pytest
import yaml

from builders import refused
from builders.tiny import scratch, tiny_values
from distillscope.config.load import study_from
from distillscope.distill import loop
from distillscope.errors import UserError
from distillscope.study.student import REQUEST, compare_request, distill_one


def asked(**changes):
    values = tiny_values(limit=80, noise={"sigmas": []}, seeds=[1], training={"epochs": 1, "batch_size": 16})
    return study_from({**values, "limit_test": None, "validation": 1000, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        return distill_one(asked(), tmp_path_factory.mktemp("done") / "student")


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


OTHERS = [
    ({"training": {"epochs": 9, "batch_size": 16}}, {}, r"training.epochs: expected 1 as when it was begun, got 9"),
    ({"training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.1}}, {}, "training.learning_rate: expected 0.001"),
    ({"training": {"epochs": 1, "batch_size": 8}}, {}, "training.batch_size"),
    ({"seeds": [7]}, {}, "seeds.0: expected 1 as when it was begun, got 7"),
    ({"limit": 60}, {}, "limit: expected 80"),
    ({"data": ["cifar10"]}, {}, "data.0.name: expected \"digits\""),
    ({"arms": [{"name": "cosine", "objective": "mse"}]}, {}, "objective.0.name: expected \"cosine\""),
    ({"students": [{"name": "paper_cnn", "label": "S", "width": 2, "image_size": 16}]}, {},
     "student.width: expected 1 as when it was begun, got 2"),
    ({"target": {"name": "pca", "dim": 4}}, {}, "target.dim"),
    ({}, {"precision": "bfloat16"}, "precision: expected \"float32\""),
]


@pytest.mark.parametrize(("changes", "options", "message"), OTHERS)
def test_another_request_is_refused_with_what_differs(finished, changes, options, message):
    before = {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()}
    with pytest.raises(UserError, match=message):
        distill_one(asked(**changes), finished, resume=True, **options)
    assert {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()} == before


def test_the_same_request_is_finished_already_also_in_a_renamed_folder(finished, tmp_path, capsys):
    (tmp_path / "link").symlink_to(finished)
    study = asked(name="other")
    assert distill_one(study, tmp_path / "link", resume=True) == tmp_path / "link"
    assert "finished already" in capsys.readouterr().err


def test_other_images_under_the_same_name_are_refused(finished, tmp_path):
    import shutil

    folder = shutil.copytree(finished, tmp_path / "student")
    request = yaml.safe_load((folder / REQUEST).read_text())
    request["fingerprint"] = dict.fromkeys(request["fingerprint"], "other")
    (folder / REQUEST).write_text(yaml.safe_dump(request))
    with pytest.raises(UserError, match="fingerprint.*as when it was begun"):
        distill_one(asked(), folder, resume=True)


def test_an_interrupted_one_goes_on_to_the_same_weights_and_another_is_refused(finished, tmp_path, monkeypatch):
    out = tmp_path / "student"
    with monkeypatch.context() as patch:
        def stop(*args):
            raise KeyboardInterrupt

        patch.setattr(loop, "warnings_of", stop)
        with pytest.raises(KeyboardInterrupt):
            distill_one(asked(), out)
    with refused(where="training.epochs"):
        distill_one(asked(training={"epochs": 2, "batch_size": 16}), out, resume=True)
    distill_one(asked(), out, resume=True)
    assert (out / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()
    assert not (out / "checkpoint.pt").exists()


def test_a_folder_from_before_is_compared_by_what_its_description_says(finished, tmp_path, capsys):
    request = {"settings": asked().dump(), "precision": "float32"}
    said = json.loads((finished / "student.json").read_text())
    (tmp_path / "student.json").write_text(json.dumps(said))
    compare_request(tmp_path, request)
    warned = " ".join(capsys.readouterr().err.split())
    assert "only dataset, label, name, objective, seed, settings, teacher can be compared" in warned
    (tmp_path / "student.json").write_text(json.dumps({**said, "seed": 3}))
    with refused(where="seed", expected="3", got="1"):
        compare_request(tmp_path, request)


def test_what_is_no_students_folder_is_not_written_into(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with refused(expected="distill.yaml", got="another one"):
        distill_one(asked(), tmp_path, resume=True)
    with refused(got="one with files"):
        distill_one(asked(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
