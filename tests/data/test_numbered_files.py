"""Sets in numbered files: which are of a split, and what is said or refused where some are missing."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders import refused
from builders.image_sets import load, tar
from distillscope.files.folders import gaps_said


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_files_that_say_how_many_they_are_must_all_be_there(tmp_path, kind):
    """One of three was missing, and its images with it, unsaid."""
    kept = io.BytesIO()
    Image.new("RGB", (4, 4)).save(kept, "PNG")
    for number in (0, 2):
        file = tmp_path / "set" / f"train-0000{number}-of-00003.{kind}"
        if kind == "tar":
            tar(file, [(f"{number}.png", kept.getvalue())])
        else:
            file.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table({"image": [{"bytes": kept.getvalue(), "path": None}]}), file)
    for data in (str(tmp_path / "set"), f"file://{tmp_path}/set"):
        with refused(expected=f"3 parts, as train-00000-of-00003.{kind} says", got="2"):
            load(data, "train")
    assert len(load(file, "train")) == 1


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_gap_in_the_numbers_of_a_sets_files_is_said(tmp_path, kind):
    """train-3 was lost, or left out because it holds nothing: nobody can tell, and so it is said."""
    kept = io.BytesIO()
    Image.new("RGB", (4, 4)).save(kept, "PNG")
    for number in (0, 1, 2, 4, 10, 11):
        file = tmp_path / "set" / f"train-{number}.{kind}"
        if kind == "tar":
            tar(file, [(f"{number}.png", kept.getvalue())])
        else:
            file.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table({"image": [{"bytes": kept.getvalue(), "path": None}]}), file)
    said = f"no file has number 3, 5, 6, 7 and 2 more between train-0.{kind} and train-11.{kind}"
    for data in (str(tmp_path / "set"), f"file://{tmp_path}/set"):
        assert load(data, "train").note == said
    assert load(tmp_path / "set" / f"train-4.{kind}", "train").note == ""


@pytest.mark.parametrize("names", [["a-0", "a-1"], ["a-1", "a-2", "a-3"], ["a-0", "b-2"], ["train-20200101", "train-20250101"],
                                   ["a-0-1", "a-1-3"], ["a"], [], ["a-0", "a-x"], ["a-" + "9" * 200, "a-0"]])
def test_no_gap_is_said_where_numbers_count_nothing(names):
    assert gaps_said([f"{name}.tar" for name in names]) == ""


def test_a_split_whose_name_begins_alike_is_another_one(tmp_path):
    kept = io.BytesIO()
    Image.new("RGB", (4, 4)).save(kept, "PNG")
    for name in ("test-0", "test-1", "test_hard-0"):
        tar(tmp_path / "set" / f"{name}.tar", [(f"{name}.png", kept.getvalue())])
    for data in (str(tmp_path / "set"), f"file://{tmp_path}/set"):
        assert (len(load(data, "test")), len(load(data, "test_hard"))) == (2, 1)
