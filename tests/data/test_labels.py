"""Labels of images, wherever a set keeps them: the column that is read is said, what is not used too, and no two are one."""

import io
import json

import datasets as hf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders import refused
from builders.image_sets import load, tar
from distillscope.files import remote

NAMES = [["ant", "bee", "cat"][i % 3] for i in range(6)]


def encoded(number):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_folders", [])


# ---- which column

def parquet(root, columns):
    root.mkdir()
    pq.write_table(pa.table({"image": [{"bytes": encoded(i), "path": None} for i in range(6)], **columns}),
                   root / "test.parquet")
    return root


def at_url(root, columns):
    return parquet(root, columns).as_uri()


def saved(root, columns):
    images = {"image": [{"bytes": encoded(i), "path": None} for i in range(6)]}
    table = hf.Dataset.from_dict(images | {k: list(v) for k, v in columns.items()}).cast_column("image", hf.Image())
    hf.DatasetDict(test=table).save_to_disk(root)
    return root


def shards(root, columns):
    rows = [{k: v[i] for k, v in columns.items()} for i in range(6)]
    return tar(root / "test-0.tar", [m for i, row in enumerate(rows)
                                     for m in ((f"{i}.png", encoded(i)), (f"{i}.json", json.dumps(row).encode()))])


def shards_at_url(root, columns):
    return shards(root, columns).as_uri()


def manifest(root, columns):
    root.mkdir()
    for i in range(6):
        (root / f"{i}.png").write_bytes(encoded(i))
    (root / "list.csv").write_text("\n".join(",".join(row) for row in [
        ("path", *columns), *((f"{i}.png", *(str(v[i]) for v in columns.values())) for i in range(6))]))
    return root / "list.csv"


WRITERS = (parquet, at_url, saved, shards, shards_at_url, manifest)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "cls", "class", "class_name", "Category", "target"])
def test_a_column_of_labels_is_read_under_every_usual_name_and_said(tmp_path, write, name):
    found = load(write(tmp_path / "set", {name: NAMES}))
    assert found.class_names == ("ant", "bee", "cat") and found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert f"classes from '{name}'" in found.note or (name == "label" and not found.note)


@pytest.mark.parametrize("write", WRITERS)
def test_columns_that_are_not_used_are_named_the_first_eight_of_many(tmp_path, write):
    found = load(write(tmp_path / "few", {"species": NAMES, "width": range(6)}))
    assert found.labels is None and "no labels" in found.note and "not used: species, width" in found.note
    many = load(write(tmp_path / "many", {f"c{i}": range(6) for i in range(9)} | {"label": NAMES}))
    assert "not used: c0, c1, c2, c3, c4, c5, c6, c7 ..." in many.note and "classes from 'label'" in many.note


@pytest.mark.parametrize("write", WRITERS)
def test_a_column_called_label_is_taken_before_others(tmp_path, write):
    found = load(write(tmp_path / "set", {"category": ["x"] * 6, "class": ["y"] * 6, "label": NAMES}))
    assert found.class_names == ("ant", "bee", "cat") and "not used: category, class" in found.note


def test_a_split_without_labels_keeps_none_from_being_read_of_another(tmp_path):
    parquet(tmp_path / "set", {})
    pq.write_table(pa.table({"image": [encoded(i) for i in range(6)], "class": NAMES}), tmp_path / "set" / "train.parquet")
    assert load(tmp_path / "set", "train").labels.tolist() == [0, 1, 2, 0, 1, 2] and load(tmp_path / "set").labels is None


# ---- columns that are called so and hold something else

TABLES = (parquet, at_url, saved)
NO_CLASSES = {
    "List": [[1, 2]] * 6, "struct": [{"id": 1}] * 6, "float64": [0.5 * i for i in range(6)], "bool": [True, False] * 3,
    "1 of 6 without": [None, *NAMES[1:]], "2 of 6 without": [None, 1, 0, None, 1, 0], "numbers below 0": [-1, 0, 1] * 2,
    "another value for most images": [f"a photo of {i}" for i in range(6)], "'001' and '1'": ["001", "1", "2"] * 2,
}


@pytest.mark.parametrize("write", TABLES)
@pytest.mark.parametrize("why", NO_CLASSES)
@pytest.mark.parametrize("name", ["class", "Category", "target"])
def test_a_column_that_is_found_by_its_name_and_holds_no_classes_is_named_and_not_used(tmp_path, write, why, name):
    found = load(write(tmp_path / "set", {name: NO_CLASSES[why], "width": range(6)}))
    assert found.labels is None and len(found) == 6 and f"no labels; not used: {name} ({why}), width" in found.note


@pytest.mark.parametrize("write", TABLES)
def test_the_next_of_the_usual_names_is_read_instead(tmp_path, write):
    found = load(write(tmp_path / "set", {"class": [[1.0]] * 6, "target": NAMES}))
    assert found.class_names == ("ant", "bee", "cat") and "classes from 'target'; not used: class (List)" in found.note


@pytest.mark.parametrize("write", TABLES)
@pytest.mark.parametrize("name", ["label", "labels", "breed"])
def test_what_is_surely_meant_for_labels_is_refused_where_it_holds_none(tmp_path, write, name):
    path = str(write(tmp_path / "set", {name: [[1, 2]] * 6}))
    with refused(where=f"column {name}", expected="whole numbers without gaps, or names", got="List", advice="label: none"):
        load({"path": path, "label": name} if name == "breed" else path)
    assert load({"path": path, "label": "none"}).labels is None


def test_a_second_image_that_is_called_target_is_not_even_read(tmp_path):
    images = [{"bytes": encoded(i), "path": None} for i in range(6)]
    table = hf.Dataset.from_dict({"image": images, "target": [{"bytes": b"broken", "path": None}] * 6},
                                 hf.Features({"image": hf.Image(), "target": hf.Image()}))
    table.to_parquet(tmp_path / "test.parquet")
    for path in (tmp_path, tmp_path.as_uri()):
        assert load(path).labels is None and "not used: target (Image)" in load(path).note


@pytest.mark.parametrize("write", WRITERS[:3])
@pytest.mark.parametrize("names", [["ant", "bee", "cat"], [0, 1, 2]])
def test_one_image_of_each_class_is_enough_where_another_split_has_more(tmp_path, write, names):
    few = {"image": [{"bytes": encoded(i), "path": None} for i in range(3)], "class": names}
    path = write(tmp_path / "set", {"class": names * 2})
    if write is saved:
        whole = hf.load_from_disk(tmp_path / "set")
        hf.DatasetDict(test=hf.Dataset.from_dict(few).cast_column("image", hf.Image()),
                       train=whole["test"]).save_to_disk(tmp_path / "both")
        path = tmp_path / "both"
    else:
        (tmp_path / "set" / "test.parquet").rename(tmp_path / "set" / "train.parquet")
        pq.write_table(pa.table(few), tmp_path / "set" / "test.parquet")
    assert load(path).labels.tolist() == [0, 1, 2] and load(path, "train").labels.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("write", [shards, shards_at_url])
@pytest.mark.parametrize("values", [[["a"]] * 6, [{"id": 1}] * 6, [""] * 6, [0, None, 1] * 2,
                                    [f"a photo {i}" for i in range(6)]])
def test_a_key_that_is_found_by_its_name_and_holds_no_classes_is_named_and_not_used(tmp_path, write, values):
    path = write(tmp_path / "set", {"labels": values})
    found = load(path)
    assert found.labels is None and found.note.startswith("no labels; not used: labels (")


@pytest.mark.parametrize("name", ["cls", "fine_label"])
def test_a_manifest_that_was_read_without_labels_still_is_where_a_new_name_holds_none(tmp_path, name):
    path = manifest(tmp_path / "set", {name: ["", *NAMES[1:]]})
    assert load(path).labels is None and f"not used: {name} (1 of 6 without)" in load(path).note
    with refused(got="1 of 6 without"):
        load({"path": str(path), "label": name})


# ---- tars

def test_what_stands_beside_labels_in_a_json_needs_to_be_none(tmp_path):
    """Only where labels are read must they be labels: a list of objects is no reason to stop."""
    rows = {"label": list(range(6)), "category": [["a", "b"]] * 6, "target": [0.5] * 6}
    assert load(shards(tmp_path / "set", rows)).labels.tolist() == list(range(6))
    del rows["label"]
    found = load(shards(tmp_path / "other", rows))
    assert found.labels is None and found.note == "no labels; not used: category (['a', 'b']), target (0.5) of KEY.json"
    with refused(where="0.json 'category'", expected="a whole number or a name", got="['a', 'b']", advice="label: none"):
        load({"path": str(tmp_path / "other"), "label": "category"})
    assert load({"path": str(tmp_path / "other"), "label": "none"}).labels is None


@pytest.mark.parametrize("last", ["json", "cls"])
def test_two_labels_of_one_image_that_differ_are_refused_whichever_stands_last(tmp_path, last):
    def write(name, of_json):
        both = {"cls": lambda i: str(i % 3).encode(), "json": lambda i: json.dumps({"label": of_json(i)}).encode()}
        order = [k for k in both if k != last] + [last]
        return tar(tmp_path / name / "test-0.tar", [m for i in range(6) for m in (
            (f"k{i}.png", encoded(i)), *((f"k{i}.{k}", both[k](i)) for k in order))])

    assert load(write("same", lambda i: i % 3)).labels.tolist() == [0, 1, 2, 0, 1, 2]
    odd = write("odd", lambda i: 2 if i == 3 else i % 3)
    with refused(expected="one label for each image", got="'0' in k3.cls and '2' in k3.json",
                 advice="label: cls"):
        load(odd)
    assert load({"path": str(odd), "label": "cls"}).labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert load({"path": str(odd), "label": "label"}).labels.tolist() == [0, 1, 2, 2, 1, 2]


def paired(root, files, names):
    """A tar of images with KEY.cls and `label` in KEY.json; None where there is none."""
    return tar(root / "test-0.tar", [m for i, (one, two) in enumerate(zip(files, names, strict=True)) for m in (
        (f"k{i}.png", encoded(i)), *([] if one is None else [(f"k{i}.cls", str(one).encode())]),
        *([] if two is None else [(f"k{i}.json", json.dumps({"label": two}).encode())]))])


def test_numbers_and_names_of_the_same_classes_are_no_contradiction(tmp_path):
    found = load(paired(tmp_path / "set", [2, 0, 1, 2, 0, None], ["cat", "dog", "ant", "cat", None, "ant"]))
    assert found.labels.tolist() == [2, 0, 1, 2, 0, 1] and found.class_names == ("dog", "ant", "cat")
    assert found.note == "classes from KEY.cls, with the names that are 'label' of KEY.json"
    gaps = load(paired(tmp_path / "gaps", [7, 3] * 3, ["cat", "dog"] * 3))
    assert gaps.class_names == ("cat", "dog") and gaps.labels.tolist() == [0, 1] * 3
    assert gaps.note == "classes from 'label' of KEY.json, which has the same as KEY.cls"
    other = load(paired(tmp_path / "other", ["n2", "n1"] * 3, ["cat", "dog"] * 3))
    assert other.class_names == ("n1", "n2") and other.labels.tolist() == [1, 0] * 3
    assert "the same classes under other names" in other.note


@pytest.mark.parametrize("files, names, got", [
    ([0, 0, 1, 1, 1], ["a", "a", "b", "b", "a"], "'1' in k4.cls and 'a' in k4.json"),
    ([0, 0, 0, 1], ["a", "a", "a", "a"], "'1' in k3.cls and 'a' in k3.json"),
    ([0, 1, 0, None], ["a", "b", "a", "c"], "'0' in k0.cls and 'a' in k0.json"),
    ([0, 1, 0, 1], [1, 0, 1, 0], "'0' in k0.cls and '1' in k0.json")])
def test_numbers_and_names_of_other_classes_are_one(tmp_path, files, names, got):
    with refused(expected="one label for each image", got=got, advice="label: label"):
        load(paired(tmp_path / "set", files, names))


def test_names_in_a_json_are_not_held_against_numbers_in_a_cls(tmp_path):
    root = tar(tmp_path / "set" / "test-0.tar", [m for i in range(6) for m in (
        (f"{i}.png", encoded(i)), (f"{i}.cls", str(i % 3).encode()),
        (f"{i}.json", json.dumps({"class_name": NAMES[i]}).encode()))])
    found = load(root)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2] and found.class_names is None
    assert found.note == "classes from KEY.cls; not used: class_name of KEY.json"
    assert load({"path": str(root), "label": "class_name"}).class_names == ("ant", "bee", "cat")
    with refused(expected="a label column 'breed'", got="columns KEY.cls, class_name"):
        load({"path": str(root), "label": "breed"})


def test_two_ways_to_write_a_number_are_not_one_class_without_a_word(tmp_path):
    def write(name, texts):
        return tar(tmp_path / name / "test-0.tar", [m for i, t in enumerate(texts) for m in (
            (f"{i}.png", encoded(i)), (f"{i}.cls", t.encode()))])

    assert load(write("padded", ["001", "002", "001"])).labels.tolist() == [1, 2, 1]
    with refused(expected="written alike", got="'001' and '1'"):
        load(write("mixed", ["001", "2", "1"]))


# ---- missing ones, and one written in two ways

def listed(tmp_path, rows, kind="csv"):
    """A manifest of (path, label)."""
    tmp_path.mkdir(exist_ok=True)
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    path = tmp_path / f"list.{kind}"
    lines = ([json.dumps(dict(zip(("path", "label"), row, strict=True))) for row in rows] if kind == "jsonl" else
             [",".join(row) for row in [("path", "label"), *rows]])
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("text", ["NA", "nan", "NaN", "n/a", "null", "None", ""])
@pytest.mark.parametrize("numbers", ["0123", ["0.0", "1.0", "2.0", "3.0"]])
def test_a_missing_label_beside_numbers_is_a_blank_one(tmp_path, text, numbers):
    """It was a class of its own."""
    path = listed(tmp_path, [(f"{i}.png", label) for i, label in enumerate([*numbers, text])])
    with refused(expected="a label for every image, or for none", got=["1 of 5 without", text], advice="label: none"):
        load(path)


def test_a_name_may_be_na_where_labels_are_names(tmp_path):
    assert load(listed(tmp_path, [("0.png", "EU"), ("1.png", "NA"), ("2.png", "EU")])).class_names == ("EU", "NA")


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("names", ["abc", [0, 1, 2]])
def test_what_json_has_for_a_missing_value_is_a_blank_beside_any_labels(tmp_path, missing, names):
    rows = [(f"{i}.png", label) for i, label in enumerate([*names, missing])]
    with refused(expected="a label for every image, or for none", got="1 of 4 without"):
        load(listed(tmp_path, rows, "jsonl"))


def test_missing_labels_of_tables_and_tars_are_blank_too(tmp_path):
    with refused(got="2 of 6 without, 'nan'"):
        load(parquet(tmp_path / "table", {"label": ["0", "1", "nan"] * 2}))
    with refused(got="2 of 6 without, 'NA'"):
        load(shards(tmp_path / "shards", {"label": [0, 1, "NA"] * 2}))


def test_whole_numbers_of_a_json_are_one_class_however_they_are_written(tmp_path):
    found = load(listed(tmp_path, [("0.png", 0), ("1.png", 0.0), ("2.png", 1.0), ("3.png", 1)], "jsonl"))
    assert found.class_names == ("0", "1") and found.labels.tolist() == [0, 0, 1, 1]
    assert load(listed(tmp_path, [("0.png", 0.0), ("1.png", 1.0)], "jsonl")).class_names == ("0.0", "1.0")


@pytest.mark.parametrize("two", [("001", "1"), ("0", "0.0"), ("1", "+1")])
def test_two_spellings_of_a_number_are_asked_about(tmp_path, two):
    rows = [(f"{i}.png", label) for i, label in enumerate([*two, "7"])]
    with refused(expected="written alike", got=[f"'{text}'" for text in two]):
        load(listed(tmp_path, rows))
    assert len(load(listed(tmp_path, [*rows, ("3.png", "a")])).class_names) == 4  # beside names they are names


def test_a_list_is_no_label(tmp_path):
    with refused(expected="a whole number or a name", got="[0, 1]", advice="label: none"):
        load(listed(tmp_path, [("0.png", [0, 1]), ("1.png", [1])], "jsonl"))


@pytest.mark.parametrize("again", ["./0.png", "x/../0.png", "{0}/0.png"])
def test_one_file_in_two_spellings_is_a_repeated_one(tmp_path, again):
    again = again.format(tmp_path)
    with refused(expected="each image once", got=f"'0.png' and '{again}'"):
        load(listed(tmp_path, [("0.png", "a"), ("1.png", "b"), (again, "a")]))
