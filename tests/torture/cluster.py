"""A Ray cluster of three nodes on this machine, of which nodes, processes and the command itself are killed at random moments.

The numbers must be those of a run on one machine, bit by bit; what a node lacks must be a line that names it. Nodes keep to
loopback addresses; they share the folder that the attack works in.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import util
from pathlib import Path

from builders.ray_nodes import Nodes, descendants, does_tasks, keep_to_loopback
from torture import Case, Options, commands

WHAT = {
    "cluster-node": "`run --engine ray` on three nodes: one is killed at a random moment, with or without the processes of its "
                    "tasks, and another joins",
    "cluster-nodes": "the same in a longer run: ten nodes, one after another",
    "cluster-process": "the same: the process of a trial is killed",
    "cluster-driver": "the command itself: SIGKILL, SIGINT, SIGTERM at a random moment, gone on with by --resume",
    "cluster-embed": "`embed --engine ray`: a node is killed, and another joins",
    "cluster-lacks": "a node without the run's folder, with other sources, without the package, without the teacher's weights, "
                     "whose disk may not be written; a shared disk that fills up",
}
ROUNDS = {"cluster-node": 10, "cluster-nodes": 1, "cluster-process": 4, "cluster-driver": 6, "cluster-embed": 3}
LASTS = 600.0
"""Seconds that a command may take on a busy machine."""
LONGER = ("--set", "training.epochs=60")
EMBED = ("embed", "--teacher", "efficientnet_lite0", "--data", "digits", "--split", "train", "--limit", 240, "--files", 8,
         "--device", "cpu")


def cases(options: Options) -> Iterator[Case]:
    if util.find_spec("ray") is None:
        print("no ray: the attack on a cluster is left out (pip install 'distillscope[ray]')", flush=True)
        return
    attempts = {"cluster-node": _node, "cluster-process": _process, "cluster-driver": _driver, "cluster-embed": _embed,
                "cluster-lacks": _lacks, "cluster-nodes": _ten_nodes}
    rounds = {part: max(1, count * min(options.rounds, 60) // 60) for part, count in ROUNDS.items()}
    rounds["cluster-lacks"] = len(LACKS)
    try:
        for part, attempt in attempts.items():
            for number in range(rounds[part]):
                if options.wants(part, number):
                    rng = random.Random(f"{options.seed} {part} {number}")
                    title = list(LACKS)[number] if part == "cluster-lacks" else f"round {number}"
                    yield Case(part, number, title, partial(_in_folder, options.work, part, number,
                                                            partial(attempt, rng=rng, number=number)))
    finally:
        if nodes.cache_info().currsize:
            nodes().close()


@cache
def nodes() -> Nodes:
    """Three; the head, which is never killed, has as much room as the others."""
    found = Nodes()
    for _ in range(2):
        found.add()
        found.wait()
    return found


def _in_folder(work: Path, part: str, number: int, attempt: Callable[[Path, Path], str | None]) -> str | None:
    folder = work / "cluster" / f"{part}-{number}"
    commands.remove(folder)
    folder.mkdir(parents=True)
    fault = attempt(work, folder)
    if not fault:
        commands.remove(folder)
    return fault


def truth(work: Path, *words: object) -> Path:
    """What the command writes on this machine, made once; ``seconds`` beside it is what it takes on the cluster."""
    folder = work / "truth" / f"cluster-{'file' if words[1] == '--teacher' and words[2] != EMBED[2] else words[0]}"
    if (folder / "seconds").exists():
        return folder / "out"
    commands.remove(folder)
    folder.mkdir(parents=True)
    here = ("--jobs", 2) if words[0] == "run" else ("--shard", "1/1")
    for out, more in ((folder / "out", here), (folder / "there", _there())):
        began = time.monotonic()
        found = commands.run(_command(*words, "--out", out, *more, cache=folder / f"cache-{out.name}"), folder / "log", LASTS)
        wrong = ""
        if found or (wrong := commands.differences(folder / "out", out)):
            raise RuntimeError(f"the small {words[0]} ends with {found}, {wrong}: {(folder / 'log').read_text()[-2000:]}")
    (folder / "seconds").write_text(str(time.monotonic() - began))
    return folder / "out"


def _command(*words: object, cache: Path) -> Callable[[], None]:
    called = commands.command(*words, cache=cache)

    def call() -> None:
        keep_to_loopback()
        called()

    return call


def _there() -> tuple:
    return "--engine", "ray", "--address", nodes().address


def _run(work: Path, *more: object) -> tuple:
    return "run", commands.study_file(work), *LONGER, *more


def _seconds(right: Path) -> float:
    return float((right.parent / "seconds").read_text())


def _begin(words: tuple, folder: Path, *more: object) -> int:
    return commands.begin(_command(*words, "--out", folder / "out", *_there(), *more, cache=folder / "cache"), folder / "log")


def _ended(pid: int, right: Path, folder: Path, codes: tuple[int, ...] = (0,)) -> str | None:
    """How the command ends, and whether its numbers are right where it ends well."""
    code = commands.wait(pid, LASTS)
    said = (folder / "log").read_text(errors="replace")
    if code is None:
        commands.kill_session(pid)
        commands.wait(pid, 10)
    if code not in codes or "Traceback" in said:
        how = f"{code}{' and a traceback' * ('Traceback' in said)}"
        return f"ends with {how}: {' / '.join(said.strip().splitlines()[-3:])[-600:]}"
    return None if code else commands.differences(right, folder / "out") or commands.leftovers(folder / "out")


def _lose_a_node(rng: random.Random) -> None:
    victim = rng.choice([node for node in nodes().nodes if node is not nodes().head and node.has_joined])
    nodes().kill(victim, wholly=rng.random() < 0.7)
    nodes().add()


def _node(work: Path, folder: Path, rng: random.Random, number: int) -> str | None:
    return _losing(_run(work), truth(work, *_run(work)), folder, rng)


def _embed(work: Path, folder: Path, rng: random.Random, number: int) -> str | None:
    return _losing(EMBED, truth(work, *EMBED), folder, rng)


def _losing(words: tuple, right: Path, folder: Path, rng: random.Random) -> str | None:
    nodes().wait()
    pid = _begin(words, folder)
    if commands.wait(pid, rng.uniform(0.1, 0.9) * _seconds(right)) is not None:
        return f"ended before it was hit: {(folder / 'log').read_text()[-300:]}"
    _lose_a_node(rng)
    return _ended(pid, right, folder)


def _ten_nodes(work: Path, folder: Path, rng: random.Random, number: int) -> str | None:
    """Each is lost some seconds after one has joined that can be lost."""
    words, lost = _run(work, "--set", f"seeds={list(range(1, 31))}"), 0
    nodes().wait()
    pid = _begin(words, folder)
    while lost < 10 and commands.wait(pid, rng.uniform(3, 12)) is None:
        if any(node.has_joined for node in nodes().nodes if node is not nodes().head):
            _lose_a_node(rng)
            lost += 1
    if lost < 10:
        return f"ended after {lost} of ten nodes were lost: {(folder / 'log').read_text()[-300:]}"
    found = commands.wait(pid, LASTS)
    here = folder / "here"
    again = commands.run(_command(*words, "--out", here, "--jobs", 2, cache=folder / "cache-here"), folder / "log-here", LASTS)
    if (found, again) != (0, 0):
        return f"ends with {found}, on this machine with {again}: {(folder / 'log').read_text()[-300:]}"
    return commands.differences(here, folder / "out") or commands.leftovers(folder / "out")


def _places() -> list[int]:
    """Processes of trials, of all nodes."""
    return [pid for node in nodes().nodes for pid in descendants(node.process.pid) if does_tasks(pid)]


def _process(work: Path, folder: Path, rng: random.Random, number: int) -> str | None:
    right = truth(work, *_run(work))
    nodes().wait()
    pid = _begin(_run(work), folder)
    time.sleep(rng.uniform(0.3, 0.8) * _seconds(right))
    until = time.monotonic() + LASTS
    while not (places := _places()):
        if time.monotonic() > until or commands.wait(pid, 0.1) is not None:
            return f"no process of a trial was found: {(folder / 'log').read_text()[-300:]}"
    commands.send(signal.SIGKILL, [rng.choice(places)])
    return _ended(pid, right, folder)


def _driver(work: Path, folder: Path, rng: random.Random, number: int) -> str | None:
    right = truth(work, *_run(work))
    nodes().wait()
    pid, (blow, code) = _begin(_run(work), folder), (("KILL", -9), ("INT", 130), ("TERM", 143))[number % 3]
    if commands.wait(pid, rng.uniform(0.1, 0.9) * _seconds(right)) is not None:
        return f"ended before it was hit: {(folder / 'log').read_text()[-300:]}"
    commands.send(getattr(signal, f"SIG{blow}"), [pid])
    if fault := _ended(pid, right, folder, (code,)):
        return f"after SIG{blow} it {fault}"
    until = time.monotonic() + 60
    while places := _places():
        if time.monotonic() > until:
            return f"{len(places)} processes live on 60 s after SIG{blow}"
        time.sleep(0.2)
    return _ended(_begin(_run(work), folder, *["--resume"] * (folder / "out" / "study.yaml").exists()), right, folder)


def _refused(work: Path, folder: Path, words: tuple, wanted: str, before: tuple[str, ...] = (), alone: bool = False,
             **environment: str) -> str | None:
    """With one node more, that is begun so, the command ends in a line that names that node; without it all goes on."""
    right = truth(work, *words)
    nodes().wait()
    odd = nodes().add(2 if alone else 1, before=before, **environment)
    try:
        nodes().wait()
        code = commands.wait(_begin(words, folder, *("--task-cpus", 2) * alone), LASTS)
    finally:
        nodes().kill(odd)
    last = ((folder / "log").read_text(errors="replace").strip().splitlines() or [""])[-1]
    if code != 2 or f"node {odd.address}" not in last or wanted not in last:
        return f"ends with {code}: {last[-500:]}"
    return _ended(_begin(words, folder, *["--resume"] * (folder / "out").exists()), right, folder)


def _lacks(work: Path, folder: Path, rng: random.Random, number: int) -> str | None:
    return list(LACKS.values())[number](work, folder)


def _elsewhere(folder: Path, *mount: str) -> tuple[str, ...]:
    """Words before a command that let it see another folder there, alone (as root)."""
    folder.mkdir(parents=True, exist_ok=True)
    return "unshare", "--mount", "sh", "-c", f'mount {" ".join(mount)} && exec "$@"', "sh"


def _no_folder(work: Path, folder: Path) -> str | None:
    out = folder / "out"
    return _refused(work, folder, _run(work), "got another one", _elsewhere(out, "-t tmpfs none", str(out)))


def _read_only(work: Path, folder: Path) -> str | None:
    (folder / "out").mkdir()
    shared = str(folder / "out")
    mount = f"--bind {shared} {shared} && mount -o remount,ro,bind {shared}"
    return _refused(work, folder, EMBED, "read-only", _elsewhere(folder / "out", mount), alone=True)


def _other_sources(work: Path, folder: Path) -> str | None:
    import distillscope

    own = shutil.copytree(Path(distillscope.__file__).parent, folder / "src" / "distillscope")
    with open(own / "errors.py", "a") as handle:
        handle.write("# another version\n")
    return _refused(work, folder, _run(work), "distillscope: expected", PYTHONPATH=str(folder / "src"))


def _no_package(work: Path, folder: Path) -> str | None:
    (folder / "src" / "distillscope").mkdir(parents=True)
    (folder / "src" / "distillscope" / "__init__.py").write_text("raise ImportError('not here')\n")
    return _refused(work, folder, _run(work), "not here", PYTHONPATH=str(folder / "src"))


def _no_weights(work: Path, folder: Path) -> str | None:
    teacher = commands.make_teacher(work / "own" / "teacher.ts")
    words = (*EMBED[:2], teacher, "--image-size", 16, *EMBED[3:])
    place = teacher.parent
    return _refused(work, folder, words, "teacher.ts", _elsewhere(place, "-t tmpfs none", str(place)), alone=True)


def _full(work: Path, folder: Path) -> str | None:
    """The folder of the run, which all nodes share, fills up; with room again the run goes on."""
    right, disk = truth(work, *_run(work)), folder / "out"
    nodes().wait()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "none", str(disk)], check=True)
    try:
        code = commands.wait(_begin(_run(work), folder), LASTS)
        last = ((folder / "log").read_text(errors="replace").strip().splitlines() or [""])[-1]
        if code != 2 or "node 127.0.0." not in last or "full disk" not in last:
            return f"ends with {code}: {last[-500:]}"
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        return _ended(_begin(_run(work), folder, "--resume"), right, folder)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


LACKS = {"without the run's folder": _no_folder, "with other sources": _other_sources, "without the package": _no_package,
         "without the teacher's weights": _no_weights, "whose disk may not be written": _read_only,
         "a shared disk that fills up": _full}
