"""A study from end to end, on a random teacher and a few digits."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
import yaml
from PIL import Image
from threadpoolctl import threadpool_limits

from builders import refused
from builders.image_sets import write_parquet
from builders.tiny import TEACHER, finished_run, scratch, sorted_rows, teacher_weights, tiny_study, tiny_values
from distillscope import cli, load_student, load_study
from distillscope.audits.run import Images, audit_inputs
from distillscope.config.load import load_preset, study_from
from distillscope.errors import UserError
from distillscope.report.study_page import write_report
from distillscope.results.merge import merge_runs
from distillscope.results.rows import COLUMNS
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import trial_folder
from distillscope.study.embedding import embed_dataset
from distillscope.study.preflight import Work
from distillscope.study.prepared import load_data
from distillscope.study.run import run_study
from distillscope.study.student import distill_one


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    """The random teacher embeds once for all of these tests."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


def test_a_run_directory_explains_itself():
    run = finished_run()
    for name in (
        "study.yaml",
        "provenance.json",
        "results.csv",
        "summary.json",
        "report.html",
        "tables/table.md",
        "tables/table.tex",
        "tables/table.csv",
    ):
        assert (run / name).stat().st_size > 0, name
    provenance = json.loads((run / "provenance.json").read_text())
    assert {"versions", "commit", "device", "hardware", "command", "seconds"} <= set(provenance)
    assert len(list((run / "trials").iterdir())) == 3


def test_results_are_tidy_and_hold_the_teachers_own_rows():
    results = pd.read_csv(finished_run() / "results.csv")
    assert tuple(results.columns) == COLUMNS
    teacher = results[results.student == "teacher"]
    assert {"teacher.effective_rank", "paper.probe.teacher.accuracy"} <= set(teacher.measure)
    assert teacher.seed.isna().all()
    students = results[results.student == "S"]
    assert set(students.condition) == {"clean", "noise=0.1"}
    assert {"student.effective_rank", "paper.probe.student.accuracy", "capacity.parameters"} <= set(students.measure)
    assert set(zip(students.arm, students.seed, strict=True)) == {("cosine", 1), ("cosine", 2), ("augmented", 1)}
    assert np.isfinite(results.value).all()
    keys = [c for c in COLUMNS if c not in ("value", "n", "unit")]
    assert not results.duplicated(keys).any()


def test_a_trial_keeps_what_a_later_audit_needs_and_ends_with_its_mark():
    run = load_study(finished_run())
    for trial in trials_of(run.study):
        folder = trial_folder(run.path, trial)
        z = np.load(folder / "embeddings_test" / "img_emb" / "img_emb_0.npy")
        meta = pd.read_parquet(folder / "embeddings_test" / "metadata" / "metadata_0.parquet")
        predictions = pd.read_parquet(folder / "predictions.parquet")
        assert z.dtype == np.float16
        assert z.shape == (60, 96)
        assert len(meta) == len(predictions) == 60
        assert list(meta.image_path) == list(predictions.id)
        assert {"paper|clean|", "paper|noise=0.1|0"} <= set(predictions.columns)
        accuracy = (predictions["paper|noise=0.1|0"] == predictions.label).mean()
        row = run.results.query(
            "arm == @trial.arm and seed == @trial.seed and condition == 'noise=0.1' "
            "and measure == 'paper.probe.student.accuracy'"
        )
        assert row.value.item() == pytest.approx(accuracy)
        files = [f for f in folder.rglob("*") if f.is_file() and "keepsakes" not in f.parts]  # made after all trials
        assert max(files, key=lambda f: f.stat().st_mtime_ns).name == "complete.json"
        assert not any(f.name == "checkpoint.pt" or f.suffix == ".tmp" for f in files)


def test_a_loaded_student_gives_the_embeddings_that_were_saved():
    run = load_study(finished_run())
    trial = trials_of(run.study)[0]
    test = load_data(run.study, run.study.data[0]).test
    z = load_student(trial_folder(run.path, trial), device="cpu").embed(test)
    saved = np.load(trial_folder(run.path, trial) / "embeddings_test" / "img_emb" / "img_emb_0.npy")
    assert np.array_equal(z.astype(np.float16), saved)
    assert np.array_equal(run.student("S", 1, "cosine").embed(test), z)
    with pytest.raises(UserError, match="expected a known student of the run, got 'XL'. Known: S"):
        run.student("XL")
    with refused(expected="seed of the run", got="9"):
        run.student("S", 9)


def test_a_run_reads_back_as_data_frames():
    run = load_study(finished_run())
    assert repr(run).endswith("3 of 3 trials finished)")
    assert len(run.all_results) == len(pd.read_csv(run.path / "results.csv")) > len(run.results)
    assert len(run.summary) > 0


def test_the_view_arm_trains_on_targets_of_views():
    from distillscope.teachers.inventory import list_entries

    run = load_study(finished_run())
    views = [e for e in list_entries() if (e["perturbation"] or {}).get("name") == "crop_flip"
             and e["perturbation"]["settings"]["padding"] == 4]  # other tests keep views of theirs in this cache
    assert {e["perturbation"]["epoch"] for e in views} == {0, 1}
    assert {e["rows"] for e in views} == {160}  # train less validation, each view once
    plain, augmented = (
        np.load(trial_folder(run.path, t) / "embeddings_test/img_emb/img_emb_0.npy")
        for t in (trials_of(run.study)[0], trials_of(run.study)[2])
    )
    assert not np.array_equal(plain, augmented)


def test_every_image_goes_through_the_teacher_once(monkeypatch, tmp_path):
    from distillscope.students.load import StudentEncoder
    from distillscope.teachers.encoder import Encoder

    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    seen = []
    encode = Encoder.encode

    def counted(self, images, ids, perturbation=None):
        if not isinstance(self, StudentEncoder):
            seen.append(len(ids))
        return encode(self, images, ids, perturbation)

    monkeypatch.setattr(Encoder, "encode", counted)
    arms = [{"name": "cosine"}, {"name": "mse", "objective": "mse"}]
    few = {"limit": 80, "validation": 16, "limit_test": 30, "seeds": [1]}
    run_study(tiny_study(arms=arms, **few), tmp_path / "run", jobs=1, report=False)
    assert sum(seen) == 80 + 30 + 30  # train, test, one noise draw; two trials of two epochs


def test_an_existing_directory_is_refused_and_resuming_runs_nothing_twice(tmp_path):
    run = tmp_path / "run"
    run_study(tiny_study(seeds=[1]), run, jobs=1, report=False)
    with pytest.raises(UserError, match="expected a new or empty folder, got one with files. Add --resume"):
        run_study(tiny_study(seeds=[1]), run, jobs=1)
    before = {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in run.glob("[rt]*/*/**/*")
              if f.is_file() and "keepsakes" not in f.parts}  # those are of all seeds
    run_study(tiny_study(seeds=[1, 2]), run, resume=True, jobs=1, report=False)
    after = {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in before}
    assert after == before
    assert len(list((run / "trials").iterdir())) == 2


def test_resuming_with_another_config_is_refused(tmp_path):
    run = tmp_path / "run"
    run_study(tiny_study(seeds=[1]), run, jobs=1, report=False)
    kept = (run / "study.yaml").read_text()
    with pytest.raises(
        UserError, match=r"training: expected .*\"epochs\": 2.* as when it started, got .*\"epochs\": 3"
    ):
        run_study(tiny_study(seeds=[1], training={"epochs": 3, "batch_size": 32}), run, resume=True)
    with pytest.raises(UserError, match="students: expected"):  # another network under a name that is taken
        run_study(
            tiny_study(seeds=[1], students=[{"name": "paper_cnn", "label": "S", "width": 2, "image_size": 16}]),
            run,
            resume=True,
        )
    assert (run / "study.yaml").read_text() == kept
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--resume .*expected a study's directory"):
        run_study(tiny_study(), other, resume=True)


@pytest.mark.slow
def test_two_jobs_give_what_one_gives(tmp_path):
    study = tiny_study(limit=100, limit_test=30)
    run_study(study, tmp_path / "two", jobs=2, report=False)
    threads, each = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // 2)  # what each of two processes is given
    torch.set_num_threads(each)
    try:
        with threadpool_limits(each):
            run_study(study, tmp_path / "one", jobs=1, report=False)
    finally:
        torch.set_num_threads(threads)
    a, b = (sorted_rows(load_study(tmp_path / name).results.query("measure != 'train.seconds'")) for name in ("one", "two"))
    assert list(a.measure) == list(b.measure)
    # With as many threads the sums are added in the same order; with more, two epochs blow the rounding up to 0.4 %.
    assert np.allclose(a.value, b.value, rtol=1e-3, atol=1e-4)


def test_a_partial_run_reports_and_reads(tmp_path):
    import shutil

    run = tmp_path / "partial"
    shutil.copytree(finished_run(), run)
    for trial in trials_of(load_study(run).study)[1:]:
        (trial_folder(run, trial) / "complete.json").unlink()
    assert write_report(run).is_file()
    assert "1 of 3 trials" in repr(load_study(run))
    assert set(load_study(run).results.query("student == 'S'").seed) == {1}


def test_a_run_that_was_begun_before_a_setting_existed_goes_on(tmp_path):
    from distillscope.results.rundir import load_config, open_run

    study, config = tiny_study(), tmp_path / "run" / "study.yaml"
    open_run(study, tmp_path / "run", resume=False)
    older = yaml.safe_load(config.read_text())
    for arm in older["arms"]:
        del arm["student"]
    del older["remedies"]
    config.write_text(yaml.safe_dump(older))
    assert load_config(tmp_path / "run") == study.dump()
    open_run(study, tmp_path / "run", resume=True)
    assert yaml.safe_load(config.read_text()) == study.dump()


def test_a_run_without_finished_trials_says_so(tmp_path):
    from distillscope.results.rundir import open_run

    open_run(tiny_study(), tmp_path / "run", resume=False)
    with pytest.raises(UserError, match="expected finished trials, got none. Finish it with"):
        _ = load_study(tmp_path / "run").results
    with pytest.raises(UserError, match="study.yaml"):
        load_study(tmp_path)


def test_data_without_labels_runs_and_says_what_is_left_out(tmp_path, capsys):
    bare = write_parquet(tmp_path / "bare", label=None)
    run = run_study(
        tiny_study(data=[str(bare)], seeds=[1], validation=10, training={"epochs": 1, "batch_size": 16}),
        tmp_path / "run",
        jobs=1,
    )
    assert "has no labels: probes, kNN and accuracy under noise are left out" in capsys.readouterr().err
    measures = set(run.results.measure)
    assert "student.effective_rank" in measures
    assert [m for m in measures if "accuracy" in m] == []
    done = json.loads((next((run.path / "trials").iterdir()) / "complete.json").read_text())
    assert any("no labels" in s for s in done["skipped"])
    assert run.page.is_file()


def test_pictures_in_folders_without_classes_run(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        (tmp_path / "bare" / split).mkdir(parents=True)
        for i in range(count):
            picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            picture.save(tmp_path / "bare" / split / f"{i:02}.png")
    changes = {"seeds": [1], "validation": 10, "training": {"epochs": 1, "batch_size": 16}}
    study = tiny_study(data=[str(tmp_path / "bare")], **changes)
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    assert not load_data(study, study.data[0]).labelled
    assert "student.effective_rank" in set(run.results.measure)


def test_labels_can_be_left_out_of_a_parquet(tmp_path):
    folder = write_parquet(tmp_path / "tables", label="label")
    study = load_preset("quickstart", [f"data={folder}", "data.label=none", "validation=10"])
    assert not load_data(study, study.data[0]).labelled


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
    named = r"1 corrupt of \d+: t\w+/a/1.png \(an empty file\)\. Fix them, or leave them out with --corrupt skip\."
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


def test_parts_of_a_run_joined_are_the_run(tmp_path, monkeypatch):
    """Of three trials the parts have one and two; each says which part it is, and none does the other's work."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    study = tiny_study(arms=[{"name": "cosine"}, {"name": "augmented", "view": "crop_flip", "seeds": [1]}])
    for part in (1, 2):
        done = run_study(study, tmp_path / f"part{part}", jobs=1, report=False, shard=f"{part}/2")
        assert len(done.trials) == part and done.provenance["shard"] == f"{part}/2"
    joined = load_study(merge_runs([tmp_path / "part1", tmp_path / "part2"], tmp_path / "all"))
    pd.testing.assert_frame_equal(sorted_rows(joined.results), sorted_rows(load_study(finished_run()).results))
    for shard, where in (("3/2", "i/n"), ("0/2", "i/n"), ("1/4", "at most as many parts as trials, 3")):
        with refused(where="--shard", expected=where, got=shard):
            run_study(study, tmp_path / "none", shard=shard)
    assert not (tmp_path / "none").exists()


def test_the_array_job_of_the_docs_gives_each_task_its_part(tmp_path):
    """Slurm's part is played by the shell."""
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    scripts = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    script, = (block for block in scripts if "distillscope run" in block)
    (tmp_path / "study.slurm").write_text(script)
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", 'exec "$@"'), ("distillscope", 'printf "%s\\n" "$@" "$DISTILLSCOPE_CACHE"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    told = {"STUDY": str(tmp_path / "tiny.yaml"), "OUT": str(tmp_path / "out"), "SLURM_ARRAY_TASK_COUNT": "2",
            "DISTILLSCOPE_CACHE": str(scratch() / "cache"), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    parts = []
    for task in ("2", "1"):
        said = subprocess.run(["bash", tmp_path / "study.slurm"], env={**os.environ, **told, "SLURM_ARRAY_TASK_ID": task},
                              check=True, capture_output=True, text=True).stdout
        _, *words, cache = said.splitlines()
        given = typer.main.get_command(cli.app).commands["run"].make_context("run", words).params
        assert given["out"] == str(tmp_path / "out" / f"part-{task}") and given["resume"]
        assert cache == told["DISTILLSCOPE_CACHE"]
        parts += Work(load_preset(given["preset"]), shard=given["shard"]).trials
    assert sorted(t.seed for t in parts) == [1, 2]
