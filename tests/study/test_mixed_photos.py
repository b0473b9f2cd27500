"""Photos of mixed sizes, one of them broken, through every way in: named, or left out on request, and recorded."""

import json

import numpy as np
import pytest
from PIL import Image

from builders.tiny import TEACHER, teacher_weights, tiny_values
from distillscope.audits.run import Images, audit_inputs
from distillscope.config.load import study_from
from distillscope.errors import UserError
from distillscope.study.prepared import load_data
from distillscope.study.student import distill_one, embed_dataset

LEFT_OUT = "1 corrupt image left out: {}/a/1.png (an empty file)"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """48 of train and 12 of test, in two classes; in each the first is turned by EXIF and the second an empty file."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, count in (("train", 48), ("test", 12)):
        for i in range(count):
            place = root / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 256, (16 + i % 5, 16 + i % 3, 3), dtype=np.uint8))
            image.save(place / (f"{i}.jpg" if i == 0 else f"{i}.png"), **({"exif": exif} if i == 0 else {}))
        (root / split / "a" / "1.png").write_bytes(b"")
    return root


def teacher():
    return f"timm/{TEACHER}:{teacher_weights()}"


def test_embed_distill_audit_and_a_study_name_it_or_leave_it_out_and_say_so(photos, tmp_path, capfd):
    named = r"1 corrupt of \d+: t\w+/a/1.png \(an empty file\)\. Mend them, or leave them out with --corrupt skip\."
    values = tiny_values(data=[str(photos)], limit=None, limit_test=None, validation=4, seeds=[1],
                         training={"epochs": 1, "batch_size": 8})
    for work in (lambda: embed_dataset(str(photos), "test", teacher=teacher()),
                 lambda: distill_one(study_from(values), tmp_path / "no", device="cpu"),
                 lambda: audit_inputs(teacher(), teacher(), images=Images(str(photos), device="cpu")),
                 lambda: load_data(study_from(values), study_from(values).data[0])):
        with pytest.raises(UserError, match=named):
            work()
    assert embed_dataset(str(photos), "test", teacher=teacher(), corrupt="skip", device="cpu").startswith("12 x ")
    distill_one(study_from({**values, "corrupt": "skip"}), tmp_path / "student", device="cpu")
    note = json.loads((tmp_path / "student" / "student.json").read_text())["images"]
    assert note == f"1 turned by EXIF; {LEFT_OUT.format('train')}" and note in (tmp_path / "student" / "README.md").read_text()
    said = capfd.readouterr().err
    assert said.count(f"{photos.name}/train: {note}") == 1
    found = audit_inputs(teacher(), str(tmp_path / "student"), images=Images(str(photos), device="cpu", corrupt="skip"),
                         groups=["alignment"],
                         intervals=False)
    assert f"images {photos.name}/test: 1 turned by EXIF; {LEFT_OUT.format('test')}" in found.notes
    assert capfd.readouterr().err.count(LEFT_OUT.format("test")) == 1  # both sides share what was decoded
    study = study_from({**values, "corrupt": "skip"})
    assert len(load_data(study, study.data[0]).test) == 12
