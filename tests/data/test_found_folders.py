"""Data sets as they are found: hidden files, classes that a split lacks, links, sizes that differ, broken files."""

import io
import json
import os
import shutil

import datasets as hf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders import refused
from builders.image_sets import load, tar
from distillscope.audits.run import Images
from distillscope.config.resolve import named_dataset
from distillscope.data import decode, looking
from distillscope.data import source as sources
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import content_hash
from distillscope.data.splits import load_split, load_splits
from distillscope.errors import UserError
from distillscope.teachers.cache import row_keys


def image(number, size=(8, 8)):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8))


def encoded(number, kind="PNG", **options):
    out = io.BytesIO()
    image(number).save(out, kind, **options)
    return out.getvalue()


def folder(root, classes=("ant", "bee", "cat"), splits=("train", "test"), count=3):
    for split in splits:
        for c, name in enumerate(classes):
            place = root / split / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image(100 * c + i + (50 if split == "test" else 0)).save(place / f"{i}.png")
    return root


def names(source):
    """Of the images of a source, as the cache has them."""
    return [name.tobytes() for name in row_keys(source, False)[0]]


def both(path, **options):
    part = named_dataset(path if isinstance(path, dict) else str(path))
    return load_splits(part.title, part.name, part.settings, **options)


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_built_in_name_that_is_a_folder_here_too_says_which_is_read(tmp_path, monkeypatch, capfd, request, name):
    if name == "cifar10":
        request.getfixturevalue("cifar10_dir")
    monkeypatch.chdir(tmp_path)
    assert load(name, limit=9).note == ""
    folder(tmp_path / name)
    found = load(name, limit=9)
    assert found.note == f"the data set that is built in, not {name} in this folder: ./{name} names that"
    assert f"{name}/test: {found.note}" in capfd.readouterr().err
    for other in (f"./{name}", f"{name}/", {"path": name}):
        assert load(other).class_names == ("ant", "bee", "cat") and not load(other).note


# ---- what is passed over

def test_hidden_files_and_folders_of_systems_are_no_part_of_a_folder(tmp_path):
    root = folder(tmp_path / "photos")
    plain = load(root)
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        shutil.copytree(root / "test" / "ant", root / "test" / name)
        shutil.copytree(root / "test" / "ant", root / "test" / "bee" / name)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", ".hidden.png"):
        (root / "test" / "ant" / name).write_bytes(b"\0\5\x16\7")
    again = load(root)
    assert again.ids.tolist() == plain.ids.tolist() and again.class_names == ("ant", "bee", "cat") and not again.note


def test_hidden_members_of_tars_and_hidden_parquet_files_are_passed_over(tmp_path):
    shards = tar(tmp_path / "shards" / "test-0.tar", [
        ("./a.png", encoded(0)), ("./a.cls", b"0"), ("./._a.png", b"\0\5"), ("__MACOSX/b.png", b"\0\5"),
        ("./b.PNG", encoded(1)), ("./b.cls", b"1")])
    (shards / "._test-0.tar").write_bytes(b"\0\5")
    found = load(shards)
    assert found.ids.tolist() == ["test/./a", "test/./b"] and found.labels.tolist() == [0, 1]
    table = tmp_path / "table"
    table.mkdir()
    (table / "._test.parquet").write_bytes(b"\0\5")
    assert named_dataset(str(table)).name == "image_folder"
    pq.write_table(pa.table({"image": [encoded(0)], "label": [0]}), table / "test-00000-of-00001.parquet")
    (table / "._test-00000-of-00001.parquet").write_bytes(b"\0\5")
    assert len(load(table)) == 1


def test_every_suffix_is_read_by_every_source_in_any_case_and_what_is_none_is_counted(tmp_path):
    kinds = {"a.JPG": "JPEG", "b.jpe": "JPEG", "c.jfif": "JPEG", "d.gif": "GIF", "e.bmp": "BMP", "f.TIFF": "TIFF",
             "g.webp": "WEBP", "h.ppm": "PPM"}
    (tmp_path / "flat" / "test").mkdir(parents=True)
    for i, (name, kind) in enumerate(kinds.items()):
        (tmp_path / "flat" / "test" / name).write_bytes(encoded(i, kind))
    (tmp_path / "flat" / "test" / "notes.txt").write_text("x")
    shards = tar(tmp_path / "shards" / "test.tar",
                 [(n, (tmp_path / "flat" / "test" / n).read_bytes()) for n in [*kinds, "notes.txt"]])
    for place in (tmp_path / "flat", shards):
        found = load(place)
        assert len(found) == len(kinds) and found.note == "1 file of other kinds passed over (.txt 1)"


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_photos_in_heic_say_what_reads_them_where_pillow_does_not(tmp_path, monkeypatch):
    """Some of an iPhone's photos were left out as files of another kind, and the rest studied."""
    monkeypatch.setattr(decode, "known_formats", lambda: ("PNG",))
    monkeypatch.setattr(decode, "suffixes", lambda: frozenset({".png"}))
    root = folder(tmp_path / "photos", splits=("test",))
    (root / "test" / "ant" / "x.HEIC").write_bytes(HEIC)
    assert "(.heic 1); .heic are photos" in load(root).note and load(root).note.endswith("pip install pillow-heif")
    (tmp_path / "iphone" / "test").mkdir(parents=True)
    (tmp_path / "iphone" / "test" / "x.heic").write_bytes(HEIC)
    for split in ("test", "train", "."):
        with refused(got="pip install pillow-heif"):
            load(tmp_path / "iphone", split)
    with refused(got="no images", advice="the split's name"):
        load((tmp_path / "iphone").as_uri())
    (tmp_path / "list.csv").write_text("path\niphone/test/x.heic\n")
    with refused(got="a HEIC photo, of which this Pillow can read none: pip install pillow-heif"):
        load(tmp_path / "list.csv")


def test_images_of_one_pixel_are_images(tmp_path):
    for i, size in enumerate(((1, 1), (1, 300), (300, 1))):
        image(i, size).save(tmp_path / f"{i}.png")
    found = load(tmp_path)
    assert [found.image(i).shape for i in range(3)] == [(1, 1, 3), (1, 300, 3), (300, 1, 3)]
    assert Preprocess(16)(found.read([0, 1, 2])).shape == (3, 3, 16, 16)


# ---- classes

def test_a_class_that_a_split_lacks_moves_no_number(tmp_path, capfd):
    root = folder(tmp_path / "photos")
    shutil.rmtree(root / "test" / "ant")
    assert load(root).class_names == ("ant", "bee", "cat") and load(root).labels.min() == 1
    shutil.rmtree(root / "train" / "bee")
    folder(root, ("zebra",), ("unrelated",))  # shares no class: none of the splits of this set
    splits = both(root)
    assert splits.train.class_names == splits.test.class_names == ("ant", "bee", "cat")
    assert splits.train.labels.tolist() == [0] * 3 + [2] * 3 and splits.test.labels.tolist() == [1] * 3 + [2] * 3
    assert "1 class without an image in train, which no probe can name: bee (3 of 6 images)" in capfd.readouterr().err
    assert "bee" in splits.test.note


def test_texts_as_classes_are_numbered_by_name_over_all_splits(tmp_path):
    for split, names in (("train", "cab"), ("test", "bc")):
        tar(tmp_path / "shards" / f"{split}.tar",
            [m for i, n in enumerate(names) for m in ((f"{i}.png", encoded(i)), (f"{i}.cls", n.encode()))])
        (tmp_path / "table").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": [encoded(i) for i in range(len(names))], "label": list(names)}),
                       tmp_path / "table" / f"{split}.parquet")
    for place in (tmp_path / "shards", tmp_path / "table"):
        assert load(place).labels.tolist() == [1, 2] and load(place, "train").labels.tolist() == [2, 0, 1]
        assert load(place).class_names == ("a", "b", "c")


def test_save_to_disk_is_read_with_its_splits_and_class_names(tmp_path):
    features = [hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=names)})
                for names in (["cat", "dog"], ["dog", "cat"])]
    parts = [hf.Dataset.from_dict({"image": [image(i) for i in range(4)], "label": [0, 0, 1, 1]}, features=f) for f in features]
    hf.DatasetDict(train=parts[0], validation=parts[1]).save_to_disk(tmp_path / "both")
    parts[0].save_to_disk(tmp_path / "one")
    assert (load(tmp_path / "one").pixels == np.stack([np.asarray(image(i)) for i in range(4)])).all()
    splits = both(tmp_path / "both", test_split="validation")
    assert splits.test.labels.tolist() == [1, 1, 0, 0] and splits.test.class_names == ("cat", "dog")
    with refused(got="splits train, validation", advice="--split validation"):
        load(tmp_path / "both")


def test_an_audit_numbers_classes_of_both_splits_alike_and_notes_what_train_lacks(tmp_path, capfd):
    """Two splits whose class names stand in another order, as a table's features may have them."""
    features = [hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=names)})
                for names in (["cat", "dog"], ["emu", "dog", "cat"])]
    parts = [hf.Dataset.from_dict({"image": [image(i) for i in range(4)], "label": [0, 0, 1, 1]}, features=f) for f in features]
    hf.DatasetDict(train=parts[0], test=parts[1]).save_to_disk(tmp_path / "both")
    images = Images(str(tmp_path / "both"))
    images.load_both("train")
    assert images.loaded["train"].labels.tolist() == [0, 0, 1, 1] and images.loaded["test"].labels.tolist() == [2, 2, 1, 1]
    assert "which no probe can name: emu (2 of 4 images)" in images.loaded["test"].note and "emu" in capfd.readouterr().err


# ---- splits

@pytest.mark.parametrize(("arrange", "words"), [
    (lambda root: (root / "test").rename(root / "val"), "Add --split val to read that."),
    (lambda root: [shutil.move(root / "test", root.parent / "gone"), shutil.move(root / "train", root.parent / "kept"),
                   root.rmdir(),
                   shutil.move(root.parent / "kept", root)], r"Add --split \. to take these folders as classes of one split."),
])
def test_a_split_that_is_not_there_is_answered_with_words_that_work(tmp_path, arrange, words):
    root = folder(tmp_path / "photos")
    arrange(root)
    with pytest.raises(UserError, match=words) as told:
        load(root)
    typed = str(told.value).split("--split ")[1].split(" ")[0]
    assert load(root, typed).class_names == ("ant", "bee", "cat")
    with pytest.raises(UserError, match=r"Add --set data.test_split=|Add --set data.train_split=\."):
        both(root)


def test_a_flat_folder_is_a_set_without_labels_of_any_split(tmp_path):
    for i in range(4):
        image(i).save(tmp_path / f"{i}.png")
    assert load(tmp_path).labels is None
    assert load(tmp_path).ids.tolist() == load(tmp_path, "train").ids.tolist() == [f"{i}.png" for i in range(4)]


def test_one_set_of_images_is_not_both_train_and_test(tmp_path):
    root = folder(tmp_path / "photos")
    flat = root / "train" / "ant"
    pq.write_table(pa.table({"image": [encoded(i) for i in range(10)], "label": [i % 2 for i in range(10)]}),
                   tmp_path / "one.parquet")
    for place in (flat, tmp_path / "one.parquet"):
        with refused(got="the same images for both", advice="--set screen"):
            both(place)
    assert len(both(tmp_path / "one.parquet", screen=3).test) == 3
    same = both(tmp_path / "one.parquet", test_split="train", validation=lambda count: count // 5)
    assert len(same.validation) == 2 and same.test is same.whole_train


def test_loose_images_beside_class_folders_are_taken_when_asked(tmp_path):
    root = folder(tmp_path / "photos")
    image(9).save(root / "test" / "loose.png")
    with refused(advice="--data"):
        load(root)
    assert load(f"{{path: {root}, label: none}}").labels is None


# ---- broken files

def test_broken_files_are_named_left_out_and_decoded_once_whatever_the_sizes_and_the_memory(tmp_path, monkeypatch):
    root = folder(tmp_path / "photos")
    image(1, (9, 5)).save(root / "test" / "ant" / "1.png")
    (root / "test" / "bee" / "2.png").write_bytes(encoded(0)[:50])
    (root / "test" / "cat" / "0.png").write_bytes(b"")
    with refused(got=("2 corrupt of 9: test/bee/2.png", "truncated", "), test/cat/0.png (an empty file)"),
                 advice="--corrupt skip"):
        load(root)
    kept = load(root, corrupt="skip")
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 500)
    streamed = load(root, corrupt="skip")
    assert kept.in_memory and not streamed.in_memory and len(kept) == len(streamed) == 7
    assert "2 corrupt images left out: test/bee/2.png" in kept.note and kept.note == streamed.note
    assert all((kept.image(i) == streamed.image(i)).all() for i in range(7))
    assert names(kept) == names(streamed) == [content_hash(streamed.image(i)) for i in range(7)]
    part = streamed.take([3, 1])
    monkeypatch.setattr(sources, "decode", None)  # the names of the images are known: none is decoded again
    assert names(part) == [names(streamed)[3], names(streamed)[1]]


def test_another_process_is_handed_what_was_found_in_a_set_that_memory_does_not_hold(tmp_path, monkeypatch):
    root = folder(tmp_path / "photos")
    (root / "train" / "bee" / "2.png").write_bytes(b"")
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 500)
    first = both(root, corrupt="skip", validation=2)
    monkeypatch.setattr(sources, "decode", None)
    again = both(root, corrupt="skip", validation=2, known=first.looked)
    assert len(again.whole_train) == 8 and again.whole_train.note == first.whole_train.note != ""
    for name in ("train", "validation", "test"):
        one, other = getattr(first, name), getattr(again, name)
        assert one.ids.tolist() == other.ids.tolist() and names(one) == names(other) and (one.labels == other.labels).all()


def test_links_and_what_is_no_file(tmp_path):
    root = folder(tmp_path / "photos")
    os.symlink("/nowhere/x.png", root / "test" / "ant" / "link.png")
    os.mkfifo(root / "test" / "bee" / "pipe.png")
    with refused(got=("link.png", "/nowhere/x.png", "test/bee/pipe.png")):
        load(root)
    os.remove(root / "test" / "ant" / "link.png")
    os.remove(root / "test" / "bee" / "pipe.png")
    shutil.move(root / "test" / "cat", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", root / "test" / "cat")
    os.symlink(root / "test", root / "test" / "ant" / "circle")
    assert load(root).labels.tolist()[-3:] == [2, 2, 2]


@pytest.mark.parametrize("path", ["/dev/zero", "../secret.png", "link.png", None])
def test_a_parquet_cell_reads_no_path_outside_its_folder(tmp_path, path):
    (tmp_path / "table").mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(1))
    os.symlink("/dev/zero", tmp_path / "table" / "link.png")
    (tmp_path / "table" / "own.png").write_bytes(encoded(0))
    cells = [{"bytes": None, "path": p} for p in ("own.png", path)]
    pq.write_table(pa.table({"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}),
                   tmp_path / "table" / "test.parquet")
    with refused(got="1 corrupt of 2: table/test/000001"):
        load(tmp_path / "table")
    assert len(load(tmp_path / "table", corrupt="skip")) == 1


# ---- manifests

@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolons", "jsonl"])
def test_a_manifest_lists_images_with_labels_and_splits(tmp_path, kind):
    root = folder(tmp_path / "photos", splits=("all",))
    rows = [(f"photos/all/{c}/{i}.png", c, "train" if i else "test") for c in ("cat", "ant", "bee") for i in range(3)]
    rows[0] = (str(root / "all" / "cat" / "0.png"), "cat", "test")
    path = tmp_path / f"list.{'csv' if kind == 'semicolons' else kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"path": p, "label": c, "split": s, "width": 8}) + "\n" for p, c, s in rows))
    else:
        mark = {"csv": ",", "tsv": "\t", "semicolons": ";"}[kind]
        path.write_text("\ufeff" + "\n".join(mark.join(r) for r in [("Path", "Label", "Split", "width"),
                                                                    *((*r, "8") for r in rows)]) + "\n\n")
    found = load(path)
    assert found.labels.tolist() == [2, 0, 1] and found.class_names == ("ant", "bee", "cat") and len(load(path, "train")) == 6
    assert "not used: width" in found.note and found.ids[1] == "photos/all/ant/0.png"
    with refused(got="splits test, train", advice="--split test"):
        load(path, "val")


@pytest.mark.parametrize(("text", "words"), [
    ("a.png,cat\nb.png,dog\n",
     r"an image column \(path or .*\), got columns a.png, cat. Name it: --data '\{path: .*, image: COLUMN\}'"),
    ("path,label\nnone.png,x\n", r"no file there for any row. Name the folder .*root: FOLDER"),
    ("path,label\na.png,x,y\n", "row 2 has 3 cells, the header 2"), ("path\n", "no rows"),
    ("path,label\na.png,x\nb.png,\n", "a label for every image, or for none, got 1 of 2 without. .*label: none"),
    ("path,label\na.png,0\nb.png,-1\n", "whole numbers from 0, or names, got -1"),
    ("path,label\na.png,x\na.png,x\n", "ids that differ, got duplicates"),
    ("path,label\na.png,x\n../b.png,y\n", r"1 corrupt of 2: ../b.png \(a path outside"),
    ("path,label\na.png,x\nc.png,y\n", r"1 corrupt of 2: c.png \(no such file"),
])
def test_what_a_manifest_may_get_wrong(tmp_path, text, words):
    (tmp_path / "m").mkdir()
    for name in ("m/a.png", "m/b.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(0))
    (tmp_path / "m" / "list.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        load(tmp_path / "m" / "list.csv")


def test_a_manifest_must_have_a_column_of_images(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,cat\n")
    with pytest.raises(UserError) as error:
        load({"path": str(tmp_path / "list.csv"), "image": "none"})
    assert (error.value.expected, error.value.got) == ("an image column 'none'", "columns path, label")


def test_a_manifest_from_another_root_with_columns_of_other_names(tmp_path):
    (tmp_path / "m").mkdir()
    for i, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(encoded(i))
    (tmp_path / "m" / "list.csv").write_text("where,what\na.png,10\nb.png,9\n")
    found = load(f"{{path: {tmp_path}/m/list.csv, image: where, label: what, root: {tmp_path}}}")
    assert found.class_names == ("9", "10") and found.labels.tolist() == [1, 0]


def test_background_and_exif_are_settings_of_every_source(tmp_path):
    clear = io.BytesIO()
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(clear, "PNG")
    (tmp_path / "x.png").write_bytes(clear.getvalue())
    assert load(tmp_path).pixels.min() == 255 and load(tmp_path).note.endswith("1 with transparency put on white")
    assert load(f"{{path: {tmp_path}, background: black}}").pixels.max() == 0


def test_a_label_of_a_tar_that_fits_no_number_is_named(tmp_path):
    kept = io.BytesIO()
    Image.new("RGB", (4, 4)).save(kept, "PNG")
    tar(tmp_path / "train.tar", [("0.png", kept.getvalue()), ("0.cls", b"9" * 5000)])
    with refused(expected="64", got="99999999999999999999... of 5000 digits"):
        load_split("webdataset", {"path": str(tmp_path)}, "train")


@pytest.mark.parametrize("says", ["{", '{"info": {"features": {"img": {"_type": "Evil"}}}}'])
def test_what_a_parquet_file_says_of_its_own_columns_may_be_damaged(tmp_path, says):
    table = pa.table({"img": [b"x"] * 3, "label": [0, 1, 0]}).replace_schema_metadata({"huggingface": says})
    pq.write_table(table, tmp_path / "train.parquet")
    with refused(where="train.parquet"):
        load_split("parquet", {"path": str(tmp_path)}, "train")
