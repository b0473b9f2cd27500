"""A student on a Hub: fetched by its name wherever a folder is taken, pushed with its card; a Hub that refuses."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from typer.testing import CliRunner

from builders import refused
from builders.hub import MAY_READ, MAY_WRITE, Repo, running_hub
from builders.tiny import SMALL_DIM, once, save_small_student, scratch, small_files, small_student
from distillscope import StudentEncoder, audit, cli, export_student, load_artefact, load_student
from distillscope.audits.run import Images, audit_inputs
from distillscope.data.preprocess import Preprocess
from distillscope.measure.results import Value
from distillscope.students.card import _resizing, model_card
from distillscope.students.hub import pinned, student_folder
from distillscope.students.load import build_own


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
    with refused(where="hf-hub:ann/other", got=["HF_HUB_OFFLINE", "no copy of it is in the cache"]):
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


def test_a_hub_that_does_not_answer_is_out_of_reach(hub, monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
        with refused(where="hf-hub:ann/digits", got=["Timeout", "no copy of it is in the cache"]):
            load_student("hf-hub:ann/digits")


def test_a_download_that_is_cut_short_is_fetched_again(published, hub, made, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cut.add("weights.safetensors")
    with refused(where="hf-hub:ann/digits", advice="repeat it"):
        load_student("hf-hub:ann/digits", "cpu")
    hub.cut.clear()
    assert load_student("hf-hub:ann/digits", "cpu").weights_hash == load_student(made["one"], "cpu").weights_hash


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
    published.commit({"student.json": (made["one"] / "student.json").read_bytes().replace(b'"digits"', b'"photos"')})
    with refused(where=f"export {name}", got="none within reach", advice="--calibrate DATA"):
        export_student(name, tmp_path / "s.onnx")
    np.save(tmp_path / "t.npy", rows)
    with refused(where="--student", expected="--data with the images"):
        audit_inputs(str(tmp_path / "t.npy"), name)


def blocks(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_pushed_and_pulled_it_is_the_same_student(hub, made, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", MAY_WRITE)
    student = load_student(made["one"], "cpu")
    address = student.push_to_hub("ann/digits", private=True, commit_message="first", artefacts=[small_files() / "s.onnx"])
    repo = hub.repos["ann/digits"]
    assert repo.private and hub.summaries == ["first"] and address.endswith(repo.branches["main"])
    assert sorted(repo.files()) == ["README.md", "s.onnx", "student.json", "weights.safetensors"]
    assert set(hub.lfs.values()) == {repo.files()[name] for name in ("s.onnx", "weights.safetensors")}
    again = StudentEncoder.from_pretrained("ann/digits", device="cpu")
    assert np.array_equal(again.encode(images()), student.encode(images())) and again.weights_hash == student.weights_hash
    assert "load_student('hf-hub:ann/digits')" in repo.files()["README.md"].decode()


def test_a_branch_is_made_and_the_namespace_found_out(hub, made, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", MAY_WRITE)
    one, two = (load_student(made[name], "cpu") for name in ("one", "two"))
    one.push_to_hub("digits", artefacts=[small_files() / "s.onnx"])
    two.push_to_hub("hf-hub:ann/digits", branch="new")
    assert "still holds s.onnx of an earlier push" in capsys.readouterr().err
    for revision, student in ((None, one), ("new", two)):
        found = StudentEncoder.from_pretrained("ann/digits", revision=revision, device="cpu")
        assert np.array_equal(found.encode(images()), student.encode(images()))
    assert "load_student('hf-hub:ann/digits@new')" in hub.repos["ann/digits"].files("new")["README.md"].decode()


@pytest.mark.parametrize(("token", "refuse", "repo", "said"), [
    (None, {}, "ann/x", {"got": "401", "advice": ["Nothing was pushed", "hf auth login"]}),
    (None, {}, "x", {"expected": "a token", "got": "none", "advice": "owner/name"}),
    (MAY_READ, {}, "ann/x", {"got": "403 (You don't have the rights", "advice": "HF_TOKEN"}),
    (MAY_WRITE, {}, "ann/a--b", {"expected": "what the Hub takes"}),
    (MAY_WRITE, {"validate-yaml": (500, "overloaded")}, "ann/x", {"got": "500 (overloaded)"}),
    (MAY_WRITE, {"preupload": (403, "no write access")}, "ann/x", {"got": "403 (no write access)"}),
    (MAY_WRITE, {"/commit/": (500, "overloaded")}, "ann/x", {"got": "500 (overloaded)", "advice": "later"}),
    (MAY_WRITE, {"PUT /lfs": (403, "expired")}, "ann/x", {"got": "403", "advice": "Nothing was pushed"})])
def test_what_the_hub_refuses_to_take_is_one_line(hub, made, monkeypatch, token, refuse, repo, said):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.refuse |= refuse
    with refused(where=f"push to {repo}", **said):
        load_student(made["one"], "cpu").push_to_hub(repo)
    assert not any(files for found in hub.repos.values() for files in found.commits.values())


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "distillscope", "huggingface_hub"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(("file", "size"), [("s.onnx", (90, 61)), ("s.batch1.onnx", (16, 16)), ("raw.onnx", (37, 64))])
def test_the_cards_code_needs_neither_torch_nor_this_package(made, tmp_path, file, size):
    student = load_student(made["one"], "cpu")
    student.save_pretrained(tmp_path / "card", artefacts=[small_files() / file])
    code, package = blocks((tmp_path / "card" / "README.md").read_text())
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    Image.fromarray(np.stack([2 * x, 3 * y, x + y], axis=-1).astype(np.uint8)).save(tmp_path / "card" / "photo.jpg", quality=95)
    run = [sys.executable, "-c", f"{BLOCKED}{code}\nnp.save('rows.npy', embeddings)"]
    subprocess.run(run, cwd=tmp_path / "card", check=True, timeout=60)
    rows, own = np.load(tmp_path / "card" / "rows.npy"), student.embed([tmp_path / "card" / "photo.jpg"])
    assert rows.shape == own.shape == (1, SMALL_DIM)
    assert (rows * own).sum() / np.linalg.norm(rows) / np.linalg.norm(own) > 0.9999
    assert "distillscope.load_student(" in package
    assert len(blocks(model_card(student, "here"))) == 1  # without a file, the package's own


@pytest.mark.parametrize("interpolation", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest", "border"])
@pytest.mark.parametrize(("crop", "size"), [(0.875, (50, 31)), (1.0, (31, 50)), (0.6, (17, 15)), (1.0, (24, 24))])
def test_the_cards_resizing_is_that_of_the_student(interpolation, crop, size, mode):
    """Pillow against torchvision: the same grid of pixels, at most one level apart where they blend."""
    seen = Preprocess(16, interpolation=interpolation, crop_fraction=crop, resize_mode=mode)
    x, y = np.meshgrid(5 * np.arange(size[0]), 5 * np.arange(size[1]))
    pixels = np.stack([x, y, (x + y) // 3], axis=-1).astype(np.uint8)
    exec(_resizing(seen), held := {"np": np, "Image": Image, "image": Image.fromarray(pixels)})
    own = seen.resize(torch.from_numpy(pixels).permute(2, 0, 1)[None]).mul(255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(held["image"]).astype(int) - own).max() <= (0 if "nearest" in interpolation else 1)


@pytest.fixture(scope="module")
def audited(made):
    """An audit of student one with its file, on digits; without latencies but with sizes."""
    images = Images("digits", limit=80)
    found = audit_inputs(str(made["two"]), str(made["one"]), images=images, groups=["alignment", "knn"], timed=False,
                         artefacts=[str(small_files() / "s.onnx")])
    found.stages[2].values["size_bytes"] = Value((small_files() / "s.onnx").stat().st_size, None, None, 1, "", "bytes")
    return found


def test_the_card_holds_the_audits_figures_and_the_hub_reads_them(made, audited, tmp_path):
    student = load_student(made["one"], "cpu")
    audited.to_json(tmp_path / "a.json")
    student.save_pretrained(tmp_path / "card", audit=tmp_path / "a.json", artefacts=[small_files() / "s.onnx"], licence="mit")
    card = ModelCard.load(tmp_path / "card" / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "distillscope")
    assert card.data.pipeline_tag == "image-feature-extraction" and "onnx" in card.data.tags
    held = {re.split(r" \((?:95|teacher)", r.metric_name)[0]: r for r in card.data.eval_results}
    cosine, knn = held["mean cosine"], held["accuracy, nearest neighbours"]
    value = audited.measured["alignment.mean_cosine"]
    assert cosine.metric_value == pytest.approx(value.value, abs=1e-6) and cosine.metric_type == "alignment.mean_cosine"
    assert cosine.metric_name == f"mean cosine (teacher hub-other, 95 % interval {value.low:.4g} to {value.high:.4g}, n 80)"
    assert "against hub-other. " in card.text and "teacher is called hub-other" in card.text
    assert (knn.dataset_name, knn.dataset_split, knn.metric_type) == ("digits", "test", "accuracy")
    assert held["s.onnx: mean cosine to the student"].metric_value == pytest.approx(1, abs=1e-4)
    assert f"| mean cosine | cosine |  | {value.value:.4g} |" in card.text
    for given in (audited, audited.to_dict()):
        student.save_pretrained(tmp_path / "again", audit=given, artefacts=[small_files() / "s.onnx"], licence="mit")
        assert (tmp_path / "again" / "README.md").read_text() == (tmp_path / "card" / "README.md").read_text().replace(
            str(tmp_path / "card"), str(tmp_path / "again"))
    student.described |= {"name": "timm", "settings": {"model": "resnet18", "pretrained": True}, "teacher_id": "timm/x"}
    shown = ModelCard(model_card(student, "here", audit=audited)).data
    assert shown.base_model == ["timm/x", "timm/resnet18.a1_in1k"]
    assert not any("s.onnx" in r.metric_name for r in shown.eval_results)  # a file that does not go along


def test_a_wrong_audit_or_file_is_refused_before_anything_is_written(made, audited, tmp_path):
    student, files = load_student(made["two"], "cpu"), small_files()
    audited.to_json(tmp_path / "a.json")
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "s.onnx").write_bytes((files / "s.batch1.onnx").read_bytes())
    one = load_student(made["one"], "cpu")
    for found, said, given in (
            (student, {"where": "a.json", "got": "other weights"}, {"audit": tmp_path / "a.json"}),
            (one, {"where": "none.json", "advice": "audit"}, {"audit": tmp_path / "none.json"}),
            (one, {"where": "gone.json"}, {"audit": tmp_path / "gone.json"}),
            (one, {"where": "s.onnx", "expected": "bytes"}, {"audit": audited, "artefacts": [tmp_path / "s.onnx"]}),
            (student, {"where": "s.onnx", "got": "one of S"}, {"artefacts": [files / "s.onnx"]}),
            (one, {"where": "artefacts", "got": "one twice"}, {"artefacts": [files / "s.onnx", tmp_path / "s.onnx"]}),
            (one, {"where": "licence", "advice": "apache-2.0"}, {"licence": "As the teacher's"})):
        with refused(**said):
            found.save_pretrained(tmp_path / "card", **given)
    assert not (tmp_path / "card").exists()


def test_what_the_card_says_where_the_audit_cannot_know_the_student(made):
    student = load_student(made["one"], "cpu")
    card = model_card(student, "here", audit=audit(rows := np.random.default_rng(0).normal(size=(60, 4)), rows + 0.1))
    assert "that they are this student's was not checked" in card and "on embeddings, 60 items" in card


def test_a_name_without_its_head_is_no_folder():
    with refused(where="student ann/digits", advice="on the Hub hf-hub:ann/digits."):
        load_student("ann/digits")


@pytest.mark.parametrize(("name", "revision", "said"), [
    ("nowhere", None, {"expected": "owner/name", "got": "neither"}), ("ann/a@b", "c", {"got": "'c' and 'b'"}),
    (Path(__file__).parent, "v1", {"got": "'v1' for a folder"})])
def test_what_from_pretrained_does_not_take(name, revision, said):
    with refused(where=f"from_pretrained {name}", **said):
        StudentEncoder.from_pretrained(name, revision=revision)


def test_the_command_pushes_with_its_card(hub, made, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", MAY_WRITE)
    said = said_by("push", made["one"], "digits", "--artefact", small_files() / "s.onnx", "--revision", "v2",
                   "--licence", "mit")
    assert "load_student('hf-hub:ann/digits@v2')" in said and hub.repos["ann/digits"].branches["v2"][:7] in said
    assert "license: mit" in hub.repos["ann/digits"].files("v2")["README.md"].decode()
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(cli.app, ["push", str(tmp_path / "empty"), "ann/digits"])
    assert "a folder with student.json" in str(done.exception)


def test_a_refusal_by_the_real_client_is_one_line_and_exit_code_2(hub, made, tmp_path):
    """With the variables as a user sets them, which the library reads when it is imported."""
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "distillscope.cli", "push", made["one"], "ann/digits"], env=env,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert hub.requests == ["POST /api/repos/create", "GET /api/models/ann/digits"]  # nothing that counts who asks
    assert "401 (You don't have the rights" in done.stderr and hub.repos == {}


def test_a_students_own_network_is_named_where_it_is_needed(hub, made, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", MAY_WRITE)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5))
    student = build_own(network, 5, Preprocess(8), "Tiny", torch.device("cpu"))
    student.push_to_hub("ann/own")
    with refused(where="hf-hub:ann/own", advice="load_student('hf-hub:ann/own', module=Tiny())"):
        load_student("hf-hub:ann/own")
    again = StudentEncoder.from_pretrained("ann/own", module=network, device="cpu")
    assert np.array_equal(again.encode(images()), student.encode(images()))
