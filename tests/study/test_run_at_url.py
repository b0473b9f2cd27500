"""A run whose directory is at a URL: what is finished is there, and any machine goes on from it."""

import fsspec
import pytest
import yaml
from typer.testing import CliRunner

from builders.stores import KEYS, s3_server
from builders.tiny import tiny_study, tiny_values
from distillscope import cli
from distillscope.errors import UserError
from distillscope.files import remote
from distillscope.results.run_files import trials_of
from distillscope.study import run
from distillscope.study.run import run_study
from distillscope.study.run_at_url import RunAtUrl

OUT = "s3://runs/tiny"
SMALL = {"noise": {"sigmas": []}, "training": {"epochs": 1, "batch_size": 32}, "limit": 100, "limit_test": 30, "validation": 0}


@pytest.fixture
def store(monkeypatch):
    """An S3 server with an empty bucket."""
    for key, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server()}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0)
    system = fsspec.filesystem("s3", **remote.OPTIONS["s3"])
    system.invalidate_cache()
    if system.exists("runs"):
        system.rm("runs", recursive=True)
    system.mkdir("runs")
    return system


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(name)``: a cache of its own, as another machine has."""
    def use(name):
        monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / name))
    use("first")
    return use


def there(store):
    store.invalidate_cache()
    return {path.removeprefix("runs/tiny/") for path in store.find("runs/tiny")}


def test_another_machine_goes_on_with_what_is_finished_at_the_url(store, machine, monkeypatch, tmp_path):
    study = tiny_study(**SMALL)
    first, second = trials_of(study)
    whole = run_study(study, OUT, device="cpu", jobs=1)
    found = there(store)
    assert {"study.yaml", "provenance.json", "report.html", f"trials/{first.id}/complete.json"} <= found
    assert not any("/." in name or name.startswith(".") for name in found)
    with pytest.raises(UserError, match=f"--out {OUT}: expected a new or empty place, got one with files. Add --resume"):
        run_study(study, OUT, device="cpu", jobs=1)
    store.rm(f"runs/tiny/trials/{second.id}/complete.json")
    machine("second")
    ran, trial = [], run.run_trial
    monkeypatch.setattr(run, "run_trial", lambda study, one, *rest, **more:
                        ran.append(one.id) or trial(study, one, *rest, **more))
    again = run_study(study, OUT, resume=True, device="cpu", jobs=1, report=False)
    assert ran == [second.id] and there(store) >= found and again.path != whole.path
    columns = ["measure", "student", "seed", "condition"]
    one, other = (r.results[r.results.measure != "train.seconds"].sort_values(columns).reset_index(drop=True)
                  for r in (whole, again))
    assert one.equals(other)
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(tiny_values(**{**SMALL, "limit": 90})))
    store.put(str(tmp_path / "other.yaml"), "runs/tiny/study.yaml")
    with pytest.raises(UserError, match="expected the run that was begun in .*, got another one .limit differs.. Remove"):
        run_study(study, OUT, resume=True, device="cpu", jobs=1)


def test_what_was_begun_here_and_finished_elsewhere_is_whole(machine):
    """Its log of the first epochs stayed here, under the other machine's complete.json, and went to the URL again."""
    store, url = fsspec.filesystem("memory"), "memory://begun/run"
    for name, content in (("metrics.jsonl", "1\n2\n3\n"), ("complete.json", "{}")):
        store.pipe(f"/begun/run/trials/a/{name}", content.encode())
    store.pipe("/begun/run/study.yaml", b"name: x")
    ours = RunAtUrl(url)
    log = ours.folder / "trials" / "a" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("1\n")
    ours.fetch(resume=True)
    assert log.read_text() == "1\n2\n3\n"
    log.write_text("1\n2\n3\n4\n")
    ours.fetch(resume=True)
    assert log.read_text() == "1\n2\n3\n4\n", "what is finished here stays"


def test_a_store_that_goes_down_loses_nothing(store, machine, monkeypatch, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny_values(**{**SMALL, "seeds": [1]})))
    words = ["run", str(tmp_path / "study.yaml"), "--out", OUT, "--device", "cpu", "--jobs", "1"]
    planned = CliRunner().invoke(cli.app, [*words, "--dry-run"], catch_exceptions=False).output
    assert f"into {OUT}" in planned and not there(store)
    with monkeypatch.context() as patch:
        patch.setattr(remote, "_put", lambda path, url: (_ for _ in ()).throw(ConnectionError("down")))
        with pytest.raises(UserError, match=r"expected an answer, got ConnectionError: down \(5 tries\)"):
            CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert not there(store)
    with pytest.raises(UserError, match="got one whose files are gone, but not those in .*Add --resume"):
        CliRunner().invoke(cli.app, words, catch_exceptions=False)
    said = CliRunner().invoke(cli.app, [*words, "--resume"], catch_exceptions=False).output
    assert f"and in {OUT}" in said and "report.html" in there(store)


def test_what_is_no_run_is_refused(store, machine):
    store.pipe("runs/tiny/photo.jpg", b"x")
    with pytest.raises(UserError, match=f"--out {OUT}: expected a run .with study.yaml., got other files. Name another"):
        run_study(tiny_study(**SMALL), OUT, resume=True, device="cpu")
