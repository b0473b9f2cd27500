"""A student that was distilled on images decoded otherwise than usual reads images so afterwards; its files and card too."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from builders import refused
from builders.tiny import tiny_study
from distillscope import load_artefact, load_student
from distillscope.audits.models import embed_model
from distillscope.data.decode import Decoding
from distillscope.data.splits import load_split
from distillscope.files.json_reader import read_json
from distillscope.students.card import model_card
from distillscope.students.export.write import export_student
from distillscope.study.student import distill_one

ODD = Decoding("black", exif=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of see-through photos that are turned by EXIF, a student that was distilled on them)."""
    folder = tmp_path_factory.mktemp("decoding")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        rng, exif = np.random.default_rng(0), Image.Exif()
        exif[0x0112] = 6
        for split, count in (("train", 120), ("test", 12)):
            for i in range(count):
                path = folder / "photos" / split / "ab"[i % 2] / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
                pixels[:, : 10 + i % 7, 3] = 0
                Image.fromarray(pixels, "RGBA").save(path, exif=exif)
        data = {"name": str(folder / "photos"), "background": "black", "exif": False}
        study = tiny_study(data=[data], seeds=[1], validation=20, training={"epochs": 1, "batch_size": 16})
        distill_one(study, folder / "student")
        export_student(folder / "student", folder / "s.onnx")
    return folder


def by_hand(model, files):
    """The rows of images that are put on black and not turned."""
    return model.encode(np.stack([np.asarray(Image.alpha_composite(
        Image.new("RGBA", (30, 20), "black"), Image.open(file)).convert("RGB")) for file in files]))


def test_it_reads_files_as_those_were_read(made):
    student, files = load_student(made / "student", "cpu"), sorted((made / "photos/test").rglob("*.png"))
    assert read_json(made / "student/student.json", dict, "")["decoding"] == {"background": "black", "exif": False}
    expected = by_hand(student, files)
    for same in (student, load_artefact(made / "s.onnx", student)):
        assert same.decoding == ODD and np.allclose(same.encode(files), expected, atol=1e-4)
    assert np.allclose(student.embed([Image.open(file) for file in files]), expected, atol=1e-4)
    assert not np.allclose(replace(student, decoding=Decoding()).encode(files), expected, atol=1e-2)
    student.save_pretrained(made / "again")
    assert load_student(made / "again", "cpu").decoding == ODD


def test_the_cards_code_reads_them_so(made, monkeypatch):
    monkeypatch.chdir(made)
    file = next((made / "photos/test").rglob("*.png"))
    shutil.copy(file, made / "photo.jpg")
    artefact = load_artefact("s.onnx", student := load_student("student", "cpu"))
    text, held = model_card(student, "here", artefacts=[artefact]), {}
    exec(next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "onnxruntime" in b), held)
    assert np.allclose(held["embeddings"], by_hand(artefact, [file]), atol=1e-4)


@pytest.mark.parametrize("model", ["student", "s.onnx"])
def test_other_decoding_of_an_audits_images_is_said(made, monkeypatch, model):
    monkeypatch.chdir(made)
    said = embed_model(model, "photos", "test").reading.remarks
    assert "the student was distilled on images decoded with background: black, exif: false, and these are with " \
           "background: white, exif: true" in said
    own = load_split("image_folder", {"path": made / "photos", "background": "black", "exif": False}, "test")
    assert not any("decoded" in remark for remark in embed_model(model, own).reading.remarks)


def test_a_colour_that_is_none_is_refused_with_its_file(made, tmp_path):
    shutil.copytree(made / "student", tmp_path / "student")
    file = tmp_path / "student/student.json"
    file.write_text(file.read_text().replace('"black"', '"blakc"'))
    with refused(where="student.json", got="blakc"):
        load_student(tmp_path / "student")
