"""Bad input: one line that says where, what was expected, what came and what to do; exit code 2; what is done stays."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from builders.tiny import TEACHER, scratch, teacher_weights, tiny_values
from distillscope import cli


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    monkeypatch.delenv("DISTILLSCOPE_DATA", raising=False)


@pytest.fixture
def fails(monkeypatch, capfd):
    """Runs a command, wants exit code 2 and one line at the end of stderr that matches."""

    def run(*args: object, match: str) -> str:
        monkeypatch.setattr(sys, "argv", ["distillscope", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        err = capfd.readouterr().err
        assert stopped.value.code == 2, err
        lines = err.strip().splitlines()
        assert "Traceback" not in err
        assert len(lines) == 1, err
        assert re.fullmatch(r"distillscope: .+: expected .+, got .+\. .+", lines[-1]), err
        assert re.search(match, lines[-1]), f"{match!r} is not in: {lines[-1]}"
        return lines[-1]

    return run


@pytest.fixture
def config(tmp_path):
    """Writes the tiny study, changed, to a YAML file."""

    def write(**changes) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(tiny_values(**{"seeds": [1], "noise": {"sigmas": []}, **changes})))
        return path

    return write


def png(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def table(tmp_path):
    """Writes train and test parquet files; ``change`` may spoil the rows of train."""

    def write(change=lambda rows: rows, train: int = 60, classes: int = 2) -> Path:
        rng = np.random.default_rng(0)
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for split, count in (("train", train), ("test", 20)):
            rows = [{"img": {"bytes": png(rng), "path": f"{i}.png"}, "label": i % classes} for i in range(count)]
            pd.DataFrame(change(rows) if split == "train" else rows).to_parquet(folder / f"{split}.parquet")
        return folder

    return write


SMALL = {"validation": 0, "training": {"epochs": 1, "batch_size": 16}, "limit": None, "limit_test": None}


@pytest.mark.parametrize(
    "args, match",
    [
        (["run", "quickstrat"], r"run: .*preset.*'quickstrat'\. Did you mean 'quickstart'\? Known: "),
        (["run", "no/such.yaml"], r"YAML file that exists, got 'no/such.yaml'\. Presets: "),
        (["run", "quickstart", "--set", "epochs"], r"--set: expected path=value, got 'epochs'"),
        (["run", "quickstart", "--set", "trainign.epochs=3"], r"trainign.*Did you mean 'training'"),
        (
            ["run", "quickstart", "--set", "training.epoch=3"],
            r"quickstart training\.epoch: .*Did you mean 'epochs'\? Known: ",
        ),
        (["run", "quickstart", "--set", "training.epochs=none"], r"training\.epochs: expected a whole number.*'none'"),
        (["run", "quickstart", "--epochs", "0"], r"training\.epochs: expected greater than or equal to 1, got 0"),
        (["run", "quickstart", "--set", "arms.0.objective=cosin"], r"Did you mean 'cosine'\? Known: .*mse"),
        (
            ["run", "quickstart", "--set", "students.S.width=0"],
            r"student\.width: expected a whole number from 1 to 64, got 0",
        ),
        (["run", "quickstart", "--set", "students.S.widht=2"], r"students\.widht: .*'widht'\. Did you mean 'width'"),
        (["run", "quickstart", "--set", "students.XL.width=2"], r"'XL'.*Known: L, M, S"),
        (["run", "quickstart", "--set", "target.name=pac"], r"'pac'\. Did you mean 'pca'"),
        (["run", "quickstart", "--set", "seeds=[]"], r"seeds: expected at least one, got none"),
        (["run", "quickstart", "--set", "seeds=[1,1]"], r"seeds: expected each seed once"),
        (["run", "quickstart", "--set", "students.S.hidden=10000000000"],
         r"student.hidden: expected target, or a whole number from 1 to 65536"),
        (["run", "quickstart", "--set", "arms.0.seeds=[1,1]"], r"arms\.\w+\.seeds: expected each seed once, got \[1, 1\]"),
        (["run", "quickstart", "--set", "remedies=[{name: posthoc, target: {name: [1]}}]"], r"expected a known target"),
        (["run", "quickstart", "--teacher", "resnet"], r"teacher.*'resnet'.*Known: "),
        (
            ["run", "quickstart", "--teacher", "timm/resnet999"],
            r"teacher timm/resnet999: expected a model that timm knows",
        ),
        (["run", "quickstart", "--data", "nowhere"], r"data.*'nowhere'.*Known: "),
        (["run", "quickstart", "--data", "./nowhere"], r"data.*nowhere"),
        (["run", "quickstart", "--device", "tpu"], r"tpu"),
        (["run", "quickstart", "--precision", "float8"], r"float8"),
        (["run", "quickstart", "--track", "paper"], r"paper"),
        (["run", "quickstart", "--jobs", "-1"], r"jobs.*-1"),
        (["run", "quickstart", "--set", "noise.draws=0"], r"noise\.draws"),
        (["run", "quickstart", "--set", "noise.sigmas=[-0.1]"],
         r"noise\.sigmas\.0: expected greater than or equal to 0, got -0\.1"),
        (["run", "quickstart", "--set", "noise.sigmas=[.nan]"], r"noise\.sigmas\.0: expected .*, got nan"),
        (["run", "quickstart", "--set", "noise.sigmas=[0.1, .inf]"], r"noise\.sigmas\.1: expected a finite number, got inf"),
        (["run", "quickstart", "--set", "noise.std=[0, 0, 0]"], r"noise\.std\.0: expected greater than 0, got 0"),
        (["list", "kinds"], r"'kinds'.*Known: "),
        (["report", "no-such-run"], r"no-such-run: expected .*study\.yaml"),
        (["merge", "a", "b", "--out", "c"], r"a: expected a study's run directory"),
        (["cache", "prune"], r"cache prune: expected names of entries, or --all, got neither"),
        (["cache", "prune", "nothing"], r"'nothing'"),
        (["run", "quickstart", "--set", "arms.0.student={image_size: abc}"],
         r"arms\.cosine\.student\.image_size: expected a whole number, got 'abc'"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "{label: none}"], r"--data name: expected a value"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "rows.npy"], r"--data: expected images.*'rows.npy'.*csv"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "digits", "--limit", "-1"],
         r"--limit: .* of at least 1, got -1"),
        (["audit", "--teacher", "efficientnet_lite0", "--student", "timm/resnet10t", "--data", "digits", "--workers", "-1"],
         r"--workers: .* of at least 0, got -1"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "digit"], r"--data: .*Did you mean 'digits'"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "digits", "--image-size", "32"],
         r"--image-size: expected a model file"),
        (["embed", "--student", "student", "--data", "digits", "--mean", "0,0,0"], r"--mean: expected a model file"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "digits", "--out", __file__], r"--out .*: .*got a file"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "{path: x, train_split: 3}"],
         r"--data train_split: expected text, got 3"),
        (["embed", "--teacher", "efficientnet_lite0", "--data", "{path: 010}"], r"--data: expected plain YAML, got 010"),
        (["embed", "--data", "digits"], r"embed: expected one of --teacher and --student, got neither"),
        (["embed", "--data", "digits", "--teacher", "efficientnet_lite0", "--student", "x"], r"got both"),
        (
            ["embed", "--data", "digits", "--student", "no-student", "--out", "rows"],
            r"student no-student: expected a folder with",
        ),
        (["distill", "--teacher", "efficientnet", "--data", "digits", "--out", "s"], r"'efficientnet'\. Did you mean"),
        (
            [
                "distill",
                "--teacher",
                "efficientnet_lite0",
                "--data",
                "digits",
                "--out",
                "s",
                "--student",
                "timm/resnot",
            ],
            r"resnot",
        ),
        (
            ["distill", "--teacher", "efficientnet_lite0", "--data", "digits", "--out", "s", "--objective", "cos"],
            r"'cos'.*Known",
        ),
    ],
)
def test_what_is_not_known_is_said_with_what_is(fails, tmp_path, monkeypatch, args, match):
    monkeypatch.chdir(tmp_path)
    fails(*args, match=match)


def test_a_tracker_that_is_not_installed_is_no_silent_loss(fails, monkeypatch):
    from distillscope.training import loop

    monkeypatch.setattr(loop.util, "find_spec", lambda name: None)
    fails("run", "quickstart", "--track", "wandb", match=r"--track wandb: expected the package wandb, got not installed")


@pytest.mark.parametrize(
    "text, match",
    [
        ("- a\n- b\n", r"expected a mapping \(key: value lines\), got list"),
        ("just words\n", r"expected a mapping .*, got str"),
        ("", r"expected a mapping .*, got NoneType"),
        ("name: [unclosed\n", r"expected YAML, got "),
        ("name: x\n", r"data: expected a value, got nothing"),
        ("name: \x00\n", r"expected YAML, got "),
    ],
)
def test_a_yaml_that_is_no_study(fails, tmp_path, text, match):
    (tmp_path / "bad.yaml").write_text(text)
    fails("run", tmp_path / "bad.yaml", match=match)


def test_a_yaml_that_is_no_text(fails, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x81\x00name")
    fails("run", tmp_path / "bad.yaml", match="expected ")


def test_a_yaml_that_is_a_folder(fails, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    fails("run", tmp_path / "folder.yaml", match="YAML file that exists")


def test_missing_weights(fails, config, tmp_path):
    teacher = {"name": "timm", "model": TEACHER, "weights": str(tmp_path / "none.safetensors")}
    fails("run", config(teacher=[teacher]), "--out", tmp_path / "run",
          match=r"weights: expected a weights file that exists .*none\.safetensors")


def test_weights_cut_short_or_of_another_model(fails, config, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(teacher_weights().read_bytes()[:5000])
    fails("run", config(teacher=[{"name": "timm", "model": TEACHER, "weights": str(cut)}]), "--out", tmp_path / "run",
          match="cut.safetensors.*fetch it again if it was cut short")
    other = {"name": "timm", "model": "test_vit", "weights": str(teacher_weights())}
    fails("run", config(teacher=[other]), "--out", tmp_path / "run2",
          match=r"expected weights of that architecture, got \d+ missing")


def test_missing_data_and_columns(fails, config, table, tmp_path):
    folder = table()
    (folder / "test.parquet").unlink()
    fails("run", config(data=[str(folder)], **SMALL), "--out", tmp_path / "run", match="test")
    folder = table(lambda rows: [{"picture": r["img"], "label": r["label"]} for r in rows])
    fails("run", config(data=[str(folder)], **SMALL), "--out", tmp_path / "run2", match=r"picture")


def test_a_corrupt_image_in_the_middle_is_named_and_counted(fails, config, table, tmp_path):
    def spoil(rows):
        rows[30]["img"] = {"bytes": rows[30]["img"]["bytes"][:40], "path": "30.png"}
        rows[41]["img"] = {"bytes": b"no image", "path": "41.png"}
        return rows

    folder = table(spoil)
    fails("run", config(data=[str(folder)], **SMALL), "--out", tmp_path / "run",
          match=r"2 corrupt of 60: .*30.*41.*--corrupt skip")


def test_corrupt_images_are_left_out_when_asked_and_said(config, table, tmp_path, capfd, monkeypatch):
    def spoil(rows):
        rows[30]["img"] = {"bytes": b"no image", "path": "30.png"}
        return rows

    monkeypatch.setattr(
        sys,
        "argv",
        [
            "distillscope",
            "run",
            str(config(data=[str(table(spoil))], **SMALL)),
            "--out",
            str(tmp_path / "run"),
            "--corrupt",
            "skip",
            "--jobs",
            "1",
        ],
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    assert "1 corrupt image left out" in capfd.readouterr().err


def test_a_teacher_that_gives_nan_names_the_image(fails, config, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(teacher_weights())
    last = [k for k in state if k.endswith(".weight") and state[k].ndim == 4][-1]
    state[last] = torch.full_like(state[last], torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    teacher = {"name": "timm", "model": TEACHER, "weights": str(tmp_path / "nan.safetensors")}
    fails("run", config(teacher=[teacher]), "--out", tmp_path / "run", "--jobs", 1,
          match=r"teacher .*expected finite embeddings, got NaN or infinity for \d+ of \d+.*, first digits/")


def test_labels_out_of_range(fails, config, table, tmp_path):
    def spoil(rows):
        rows[7]["label"] = -3
        return rows

    fails("run", config(data=[str(table(spoil))], **SMALL), "--out", tmp_path / "run",
          match=r"labels: expected whole numbers from 0 .*-3")


def test_one_class_and_one_image(fails, config, table, tmp_path):
    fails("run", config(data=[str(table(classes=1))], **SMALL), "--out", tmp_path / "run",
          match="expected at least two classes, got one")
    fails("run", config(data=[str(table(train=1))], **SMALL), "--out", tmp_path / "run2",
          match=r"train.*(two classes|16 images)")
    fails("distill", "--teacher", "efficientnet_lite0", "--data", str(table(train=1)), "--out", tmp_path / "s", match="train")


def test_an_interrupted_download(fails, config, tmp_path, monkeypatch):
    import datasets
    import timm

    def broken(*args, **kwargs):
        raise ConnectionError("Connection broken: IncompleteRead\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    fails("run", config(data=["someone/pictures"]), "--out", tmp_path / "run",
          match=r"data 'someone/pictures': .*ConnectionError: Connection broken.*resumes when repeated")
    monkeypatch.setattr(timm, "create_model", broken)
    fails("run", config(teacher=[f"timm/{TEACHER}"]), "--out", tmp_path / "run2",
          match=r"teacher timm/test_resnet: expected weights from the Hub, or a local file")


def test_a_full_disk_keeps_what_was_finished(fails, config, tmp_path, monkeypatch):
    """The disk fills while the second trial writes its weights; with room again, the run goes on from there."""
    from distillscope.students import load

    path, out = config(seeds=[1, 2]), tmp_path / "run"
    write = load.write_atomic

    def full(target, function):
        if "seed2" in str(target):
            from distillscope.files.writing import write_atomic

            def no_room(temporary):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return write_atomic(target, no_room)
        return write(target, function)

    monkeypatch.setattr(load, "write_atomic", full)
    fails("run", path, "--out", out, "--jobs", 1,
          match=r"seed2/weights\.safetensors: expected room on the disk, got a full disk\. Free some space")
    done = next(out.glob("trials/*seed1/complete.json"))
    before = done.stat().st_mtime_ns
    monkeypatch.setattr(load, "write_atomic", write)
    monkeypatch.setattr(sys, "argv", ["distillscope", "run", str(path), "--out", str(out), "--jobs", "1", "--resume"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    assert done.stat().st_mtime_ns == before
    assert len(list(out.glob("trials/*/complete.json"))) == 2


def test_a_disk_full_outside_of_our_own_writes_is_one_line_too(fails, config, monkeypatch):
    from distillscope.study import plan

    def no_room(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/lock")

    monkeypatch.setattr(plan, "plan_study", no_room)
    fails("run", config(), "--dry-run", match=r"/cache/lock: expected room on the disk")


def test_a_file_that_cannot_be_made(fails, config, tmp_path):
    (tmp_path / "file").write_text("")
    fails("run", config(), "--out", tmp_path / "file", "--jobs", 1, match="file")
    fails("run", config(), "--out", tmp_path / "file" / "run", "--jobs", 1, match="file")


def test_a_damaged_run_directory(fails, tmp_path):
    (tmp_path / "study.yaml").write_text("- no\n")
    fails("report", tmp_path, match="expected a mapping, got list")


def test_a_study_under_a_launcher_of_several_processes_is_refused(fails, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    fails("run", "quickstart", "--out", tmp_path / "run", match="run: expected one process.*torchrun")
    assert not (tmp_path / "run").exists()
