"""Tasks on the nodes of a Ray cluster of this machine: what is killed goes on elsewhere, what fails is a line with its node."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
from importlib import util
from pathlib import Path

import pytest

from builders import refused
from builders.tiny import TEACHER, finished_run, scratch, teacher_weights, tiny_study
from distillscope import progress
from distillscope.errors import UserError
from distillscope.processes import cluster, node, places
from distillscope.processes.cluster import connected
from distillscope.processes.engine import LOCAL, Engine

HERE = "127.0.0."


def begin(folder: Path) -> None:
    (folder / f"began-{os.getpid()}").touch()


def work(count, folder: Path, name: str) -> str:
    """What it does is in its name; a killed one goes on from what it wrote."""
    mark = folder / name
    count(1)
    if name.startswith("dies") or (name.startswith("killed") and not mark.exists()):
        mark.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("taken") and not mark.exists():
        mark.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if name.startswith("refused"):
        raise UserError("task", "another", name, "Try it.")
    if name.startswith("full"):
        raise OSError(errno.ENOSPC, "No space left on device", "/data")
    if name.startswith("waits"):
        mark.touch()
        try:
            while not (folder / "go").exists():
                time.sleep(0.05)
        except KeyboardInterrupt:
            mark.write_text("interrupted")
            raise
    progress.say("all say this")
    count(1)
    mark.write_text(mark.read_text() + " and half" if mark.exists() else "whole")
    return name.upper()


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes, with one core each."""
    if util.find_spec("ray") is None:
        pytest.skip("needs the extra ray: pip install 'distillscope[ray]'")
    from builders.ray_nodes import Nodes, keep_to_loopback

    found = Nodes()
    keep_to_loopback()
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    found.other = found.add()
    found.wait()
    yield found
    found.close()


@pytest.fixture
def engine(nodes) -> Engine:
    return Engine("ray", nodes.address)


def run(found: cluster.Cluster, folder: Path, *names: str, most: int | None = None, advance=lambda count: None) -> dict:
    return found.run("task", [(n, (folder, n)) for n in names], begin, (folder,), work, most, advance)


class TestTasks:
    """With one connection for all."""

    @pytest.fixture(scope="class")
    def found(self, nodes, tmp_path_factory):
        shared = tmp_path_factory.mktemp("shared")
        with connected(Engine("ray", nodes.address), 1, 0, [shared]) as connection:
            assert len(list(shared.glob(".seen-*"))) == 1
            yield connection
        assert not list(shared.iterdir())

    def test_a_killed_task_goes_on_elsewhere_and_what_is_done_is_counted_once(self, found, tmp_path, capsys):
        counted = []
        done = run(found, tmp_path, "a", "killed", "b", advance=counted.append)
        assert done == {"a": "A", "killed": "KILLED", "b": "B"}
        assert [(tmp_path / n).read_text() for n in done] == ["whole", "half and half", "whole"]
        assert sum(counted) == 2 * len(done)
        said = capsys.readouterr().err
        assert said.count("all say this") == 1 and said.count("finished ") == 3
        assert re.search(rf"task killed: its process on node {HERE}[12] died; it goes on in another place", said)

    @pytest.mark.minutes
    def test_what_fails_is_one_line_with_its_node_and_nothing_more_is_begun(self, found, tmp_path, monkeypatch):
        assert run(found, tmp_path, "taken away", most=1) == {"taken away": "TAKEN AWAY"}
        assert (tmp_path / "taken away").read_text() == "half and half"
        with refused(where=[f"node {HERE}", ", task"], got="refused"):
            run(found, tmp_path, "refused", "a", most=1)
        assert not (tmp_path / "a").exists()
        with refused(where=[f"node {HERE}", ", /data"], got="a full disk"):
            run(found, tmp_path, "full", most=1)
        monkeypatch.setattr(places, "MOST_DEATHS", 2)
        with refused(where=f"task dies, node {HERE}", got="2 that died at the same place", advice="--resume"):
            run(found, tmp_path, "dies", most=1)

    @pytest.mark.minutes
    def test_an_interrupt_ends_the_tasks_with_what_they_write_then(self, found, tmp_path):
        def interrupt(done: int) -> None:
            if (tmp_path / "waits").exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(found, tmp_path, "waits", advance=interrupt)
        assert (tmp_path / "waits").read_text() == "interrupted"

    @pytest.mark.minutes
    def test_the_process_that_gathers_progress_may_die(self, found, nodes, tmp_path):
        from builders.ray_nodes import descendants, does_tasks

        def kill(done: int) -> None:
            if (tmp_path / "waits").exists() and not (tmp_path / "go").exists():
                tellers = [pid for pid in descendants(nodes.head.process.pid) if does_tasks(pid, "Teller")]
                assert tellers
                for pid in tellers:
                    os.kill(pid, signal.SIGKILL)
                (tmp_path / "go").touch()

        assert run(found, tmp_path, "waits", "a", most=1, advance=kill) == {"waits": "WAITS", "a": "A"}

    @pytest.mark.minutes
    def test_where_no_node_has_room_that_is_said_and_then_refused(self, found, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(places, "ROOM_SECONDS", 0.0)
        monkeypatch.setattr(found, "cores", 9000)
        with refused(where="--engine ray", expected="9000 cores", got="at most 1 cores and 0 GPUs on one of 2"):
            run(found, tmp_path, "a")
        assert "waiting for a node with 9000 cores" in capsys.readouterr().err


@pytest.mark.minutes
def test_a_node_that_differs_is_named_before_any_work(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "versions", lambda: {"distillscope": "0.0"})
    with refused(where=[f"node {HERE}", ", distillscope"], expected="0.0, as where", advice="same on every node"), \
            connected(engine, 1, 0, [tmp_path]):
        pass
    with refused(where=f"--address {HERE}1:1", advice="ray start --head"), connected(Engine("ray", f"{HERE}1:1"), 1, 0, []):
        pass


def test_trials_give_the_digits_of_this_machine(engine, tmp_path, monkeypatch):
    from distillscope.study.run import run_study

    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    run_study(tiny_study(arms=[{"name": "cosine"}]), tmp_path / "run", report=False, engine=engine)
    names = [path.name for path in sorted((tmp_path / "run" / "trials").iterdir())]
    assert len(names) == 2
    for name in names:
        found, wanted = (folder / "trials" / name for folder in (tmp_path / "run", finished_run()))
        assert (found / "weights.safetensors").read_bytes() == (wanted / "weights.safetensors").read_bytes()
        rows = [[row for row in (folder / "results.csv").read_text().splitlines() if "train.seconds" not in row]
                for folder in (found, wanted)]
        assert rows[0] == rows[1] and len(rows[0]) > 10


@pytest.mark.minutes
def test_files_of_embeddings_have_the_bytes_of_this_machine_and_what_is_there_is_kept(engine, tmp_path, monkeypatch, capsys):
    from distillscope.study.embedding import embed_dataset

    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    here, there = tmp_path / "here", tmp_path / "there"
    asked = {"teacher": f"timm/{TEACHER}:{teacher_weights()}", "device": "cpu", "limit": 100}
    embed_dataset("digits", "test", out=here, files=3, shard="1/1", **asked)
    said = embed_dataset("digits", "test", out=there, files=3, engine=engine, **asked)
    assert said.startswith("100 x ") and capsys.readouterr().err.count("finished ") == 3
    names = [path.relative_to(here) for path in here.rglob("*") if path.is_file()]
    assert len(names) == 7 and all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
    (there / "metadata" / "metadata_1.parquet").unlink()
    assert embed_dataset("digits", "test", out=there, engine=engine, resume=True, **asked) == said
    assert capsys.readouterr().err.count("finished ") == 1
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(teacher_weights().read_bytes())

    asked["teacher"] = f"timm/{TEACHER}:{weights}"
    monkeypatch.setattr(cluster, "Pool", lambda *given, **more: weights.unlink(missing_ok=True) or places.Pool(*given, **more))
    with refused(where=[f"node {HERE}", str(weights)]):
        embed_dataset("digits", "test", out=tmp_path / "new", engine=engine, **asked)


@pytest.mark.minutes
def test_a_node_that_dies_or_joins_in_the_middle(engine, nodes, tmp_path):
    """The last test: its cluster has other nodes afterwards."""
    def kill(done: int) -> None:
        if len(list(tmp_path.glob("waits*"))) == 2 and nodes.other is not None:
            nodes.kill(nodes.other)
            nodes.other = None
            nodes.add()
            (tmp_path / "go").touch()

    with connected(engine, 1, 0, [tmp_path]) as found:
        assert len(run(found, tmp_path, "waits1", "waits2", "a", advance=kill)) == 3


def test_what_a_node_lacks_is_named(tmp_path):
    (tmp_path / ".seen").write_text("here")
    node.look(node.versions(), {tmp_path / ".seen": "here"})
    with refused(where=str(tmp_path), expected="that the other nodes write to", got="another one"):
        node.look({}, {tmp_path / ".seen": "there"})
    with refused(where=str(tmp_path / "none"), got="none", advice="--out"):
        node.look({}, {tmp_path / "none" / ".seen": "here"})
    with refused(where="torch", expected="0.1", advice="same on every node"):
        node.look({**node.versions(), "torch": "0.1"}, {})


@pytest.mark.parametrize(("engine", "device", "where", "got"), [
    (Engine("slurm"), "auto", "--engine", "slurm"), (Engine(address="auto"), "auto", "--address", "the local engine"),
    (Engine(cpus=2), "auto", "--task-cpus", "the local engine"), (Engine("ray", "ray://a:1"), "auto", "--address", "ray://"),
    (Engine("ray", cpus=0), "auto", "--task-cpus", "0"), (Engine("ray", gpus=1.5), "auto", "--task-gpus", "1.5"),
    (Engine("ray"), "cuda:1", "--device", "cuda:1"), (Engine("ray", gpus=0), "cuda", "--device", "cuda"),
    (Engine("ray", gpus=0.5), "cpu", "--device", "cpu")])
def test_what_cannot_be_is_refused_before_a_cluster_is_asked(engine, device, where, got, monkeypatch):
    monkeypatch.setattr("distillscope.processes.engine.util.find_spec", lambda name: object())
    with refused(where=where, got=got):
        engine.check(device)


def test_without_ray_one_line_says_how_to_get_it_and_the_local_engine_needs_none(monkeypatch):
    monkeypatch.setattr("distillscope.processes.engine.util.find_spec", lambda name: None)
    LOCAL.check()
    with refused(where="--engine ray", got="not installed", advice="distillscope[ray]"):
        Engine("ray").check()


def test_what_a_process_is_given():
    assert (Engine("ray").gpus_on("cuda"), Engine("ray").gpus_on("cpu"), Engine("ray", gpus=0.5).gpus_on("cpu")) == (1, 0, 0.5)
    assert (Engine("ray").cores(), Engine("ray").cores(4), Engine("ray", cpus=2).cores(4)) == (1, 4, 2)
    assert [Engine("ray", gpus=g).device_on(d) for g, d in ((None, "cpu"), (0.5, "cpu"), (0, "cuda"), (0, "mps"))] == [
        "cpu", "cuda", "cpu", "mps"]
