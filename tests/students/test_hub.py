"""A student on a Hub: fetched by its name wherever a folder is taken, pushed with its card; a Hub that refuses."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
from typer.testing import CliRunner

from builders import refused
from builders.hub import MAY_READ, Repo, running_hub
from builders.tiny import SMALL_DIM, once, save_small_student, scratch, small_files, small_student
from distillscope import cli, export_student, load_artefact, load_student
from distillscope.audits.run import audit_inputs
from distillscope.students.hub import pinned, student_folder


@pytest.fixture(scope="module")
def made():
    """Folders of two students, one and two."""
    one, other = small_student(), once(scratch() / "hub-other", lambda folder: save_small_student(folder, seed=1))
    return {"one": one, "two": other}


@pytest.fixture(scope="module")
def server():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """An empty Hub that huggingface_hub takes for the real one, with an empty cache and nobody logged in."""
    from huggingface_hub import constants

    server.clear()
    for name, value in {"ENDPOINT": server.endpoint,
                        "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
                        "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache"),
                        "HF_TOKEN_PATH": str(tmp_path / "token"), "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return server


@pytest.fixture
def published(hub, made):
    """ann/digits on the Hub: student one on main and as v1, two on the branch new."""
    repo = hub.repos["ann/digits"] = Repo()
    repo.commit({file.name: file.read_bytes() for file in made["one"].iterdir()})
    repo.branches["v1"] = repo.branches["main"]
    repo.commit({file.name: file.read_bytes() for file in made["two"].iterdir()}, "new")
    return repo


def images(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3), dtype=np.uint8)


def test_a_name_on_the_hub_is_the_student_of_that_revision(published, hub, made):
    for spec, name in (("hf-hub:ann/digits", "one"), ("hf-hub:ann/digits@v1", "one"), ("hf-hub:ann/digits@new", "two"),
                       (f"hf-hub:ann/digits@{published.branches['new']}", "two")):
        found = load_student(spec, "cpu")
        assert np.array_equal(found.encode(images()), load_student(made[name], "cpu").encode(images()))
        assert pinned(spec) == f"hf-hub:ann/digits@{published.branches['main' if name == 'one' else 'new']}"
    hub.requests.clear()
    assert student_folder(f"hf-hub:ann/digits@{published.branches['new']}").is_dir() and hub.requests == []


def test_out_of_reach_the_copy_in_the_cache_is_used_and_said(published, hub, made, monkeypatch, capsys):
    from huggingface_hub import constants

    rows = load_student("hf-hub:ann/digits", "cpu").encode(images())
    hub.refuse[r"GET /api/models"] = 500, "overloaded"
    assert np.array_equal(load_student("hf-hub:ann/digits", "cpu").encode(images()), rows)
    commit = published.branches["main"]
    assert f"commit {commit[:7]}" in (said := capsys.readouterr().err) and "500 (overloaded)" in said
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pinned("hf-hub:ann/digits") == f"hf-hub:ann/digits@{commit}" and hub.requests == []
    assert "the copy in the cache is used" in capsys.readouterr().err
    with refused(where="hf-hub:ann/other", got="no copy of it is in the cache", advice="HF_HUB_OFFLINE"):
        load_student("hf-hub:ann/other")
    with refused(where="hf-hub:ann/digits@new", got="no copy of it is in the cache"):
        load_student("hf-hub:ann/digits@new")


@pytest.mark.parametrize(("spec", "refuse", "said"), [
    ("hf-hub:ann/digits", {"/api/models": (401, "Invalid credentials in Authorization header")},
     {"got": "401 (Invalid credentials", "advice": "hf auth login"}),
    ("hf-hub:ann/digits", {"/api/models": (403, "Forbidden")}, {"got": "403 (Forbidden)", "advice": "HF_TOKEN"}),
    ("hf-hub:ann/digits", {"/api/models": (500, "overloaded")}, {"got": "no copy of it is in the cache", "advice": "later"}),
    ("hf-hub:ann/digits", {"/resolve/": (403, "Forbidden")}, {"got": "403"}),
    ("hf-hub:ann/secret", {}, {"got": "401", "advice": ["Check the name", "hf auth login"]}),
    ("hf-hub:ann/digits@v9", {}, {"where": "hf-hub:ann/digits@v9", "expected": "a revision", "advice": "a branch"}),
    ("hf-hub:ann/a--b", {}, {"where": "hf-hub:ann/a--b", "expected": "what the Hub takes"}),
    ("hf-hub:ann", {}, {"where": "hf-hub:ann", "expected": "hf-hub:owner/name"}),
    ("hf-hub:ann/digits@", {}, {"expected": "hf-hub:owner/name@revision"})])
def test_what_the_hub_refuses_to_give_is_one_line(published, hub, spec, refuse, said, tmp_path):
    hub.repos["ann/secret"] = Repo(private=True)
    hub.refuse |= refuse
    with refused(**said):
        load_student(spec, "cpu")
    assert not list(tmp_path.rglob("snapshots/*/*"))


def test_a_private_student_is_opened_by_a_token(published, hub, monkeypatch):
    published.private = True
    monkeypatch.setenv("HF_TOKEN", MAY_READ)
    assert load_student("hf-hub:ann/digits", "cpu").dim == SMALL_DIM


def test_nobody_answers(hub, monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with refused(where="hf-hub:ann/digits", got="no copy of it is in the cache", advice="Check the connection"):
            load_student("hf-hub:ann/digits")


def test_a_repository_of_something_else(hub):
    hub.repos["ann/bert"] = Repo()
    hub.repos["ann/bert"].commit({"config.json": b"{}", "pytorch_model.bin": b"\x80\x02x"})
    with refused(where="hf-hub:ann/bert", got="without them", advice="distillscope push"):
        load_student("hf-hub:ann/bert")
    assert not any("pytorch_model" in line for line in hub.requests)


def test_weights_that_are_not_the_students(published, hub, made):
    """Another student's, or cut short where they are kept: said with the name on the Hub."""
    own = (made["one"] / "weights.safetensors").read_bytes()
    for content, said in (((made["two"] / "weights.safetensors").read_bytes(), "others"), (own[:2000], "Safetensor")):
        published.commit({"weights.safetensors": content})
        with refused(where="hf-hub:ann/digits/weights.safetensors", got=said, advice="remove"):
            load_student("hf-hub:ann/digits", "cpu")


def said_by(*words, exit_code=0):
    """What a command prints."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == exit_code, (done.output, done.exception)
    return done.output


def test_every_command_takes_a_name_where_it_takes_a_folder(published, hub, made, tmp_path, monkeypatch):
    from distillscope.audits.models import embed_model

    monkeypatch.setattr("distillscope.audits.artefacts.SECONDS", 0.01)
    monkeypatch.setattr("distillscope.students.export.bench.peak_memory", lambda *_: 1.5)
    commit, name = published.branches["main"], "hf-hub:ann/digits"
    said_by("embed", "--student", name, "--data", "digits", "--limit", 20, "--out", tmp_path / "rows")
    rows = np.load(next((tmp_path / "rows" / "img_emb").glob("*.npy")))
    assert np.array_equal(rows, embed_model(str(made["one"]), "digits", limit=20).rows)
    said_by("audit", "--teacher", f"{name}@new", "--student", name, "--data", "digits", "--limit", 60, "--no-intervals",
            "--only", "alignment", "--artefact", small_files() / "s.onnx", "--json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["inputs"]["student"]["file"] == f"{name}@{commit}"
    assert [stage["name"] for stage in found["stages"]] == [f"digits@{published.branches['new'][:7]}", f"digits@{commit[:7]}",
                                                            "s.onnx"]
    assert found["stages"][2]["values"]["mean_cosine"]["value"] > 0.9999
    assert f"digits@{commit[:7]}" in said_by("bench", name, "--seconds", 0.01, "--batch", 1)
    assert load_artefact(small_files() / "s.onnx", name).dim == SMALL_DIM
    with refused(where="s.onnx", got="one of S"):
        load_artefact(small_files() / "s.onnx", f"{name}@new")
    with refused(where="--calibrate", got="'nowhere'"):
        export_student(name, tmp_path / "s.onnx", calibrate="nowhere")
    np.save(tmp_path / "t.npy", rows)
    with refused(where="--student", expected="--data with the images"):
        audit_inputs(str(tmp_path / "t.npy"), name)
