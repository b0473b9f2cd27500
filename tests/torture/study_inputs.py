"""Studies, and the runs they make, damaged: read by everything that takes one.

YAML and --set: hostile scalars at every place, tags, bombs, nesting, damage, names that share a folder. Files of a finished run
or of its archive: read by report, claims, compare, recommend, resume, merge and --serve.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from distillscope.files.folders import PACKED
from torture import commands
from torture.fuzz import HOSTILE_NAMES, Reader, damaged, distorted, nested_json, paths

SCALARS = (
    "", "x", "-1", "0", "1", "2.5", ".nan", ".inf", "-.inf", "1e309", "1" * 400, "1e-320", "null", "true", "[]", "{}", "[[]]",
    "[1]", "{a: 1}", "'\\0'", '"\\0"', '"\\uD800"',
    "2024-13-45", "2024-02-30 25:61:61", "0b_", "0x_", "1_000", "1:2:3", "!!int foo", "!!float x", "!!binary '*'",
    "!!timestamp x", "!!bool x", "!!null x",
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!set {a}", "!!omap [a: 1]", "&a [*a]",
    "&a {x: *a}", "<<: 5", "{<<: 5}", "=", "~", "[.nan]", "[1, 1]", "-0",
    "9223372036854775808", "{name: cosine, weight: .nan}", "{name: cosine, weight: 1e308}", "!!str 5", "!!seq {a: 1}",
    "[" * 3000, "{a: " * 2000, "a" * 100_000, "100000000", "1000000000000",
    "{name: [1]}", "{name: {a: 1}}", "[null]", "[{}]", "? [a, b]\n: c", "? {a: 1}\n: c", "*missing", "@x", "`x", "%x", "!x y",
    "- a\n- b", "|\n  text", "'..'", "../../x", "/etc/passwd",
    '"a\\nb"', "'<script>alert(1)</script>'", '"\\x1b[31m"', "小", "'😀'", "[" + ", ".join(map(str, range(3000))) + "]",
)
SET_PATHS = (
    "name", "training.epochs", "training.batch_size", "seeds", "seeds.0", "seeds.9", "seeds.²", "seeds.٣", "students.0.width",
    "students.S.width", "students.-1.width", "students.S", "arms",
    "arms.0.objective.0.weight", "arms.cosine.objective", "teacher.size", "teacher.path", "data", "data.name", "data.path", "",
    ".", "..", "a.b.c", "noise.sigmas", "noise.sigmas.0.x", "training",
    "training.epochs.x", "x" * 3000, "a." * 3000 + "b", "limit", "validation", "probes.cs", "remedies.0", "remedies.bn.sigma",
    "stresses", "target.dim", "target", "published", "arms.0.view",
    "arms.0.view.sigma", "streams", "corrupt", "description", "spread", "students.0.label", "arms.0.name",
)
FILES = ("study.yaml", "provenance.json", "trials/*/complete.json", "trials/*/results.csv", "trials/*/curves.json",
         "trials/*/metrics.jsonl",
         "trials/*/keepsakes/keepsakes.json", "references/*/results.csv", "references/*/complete.json",
         "references/*/curves.json",
         "references/*/keepsakes/keepsakes.json")
FOLDERS = ("", ".", "..", "trials", "trials/", "trials/..", "trials/../../x", "../../x", "/etc/passwd", "other/x",
           "trials/x" * 60, "trials/\0", "trials/a b", "references/\x1b[31m", "trials/CON")
"""What the column `folder` of an archive may be made to say."""


def readers(work: Path) -> dict[str, Reader]:
    run, base = commands.truth("run", work), yaml.safe_load(commands.study_file(work).read_text(encoding="utf-8"))
    base |= {"target": {"name": "pca", "dim": 8}, "stresses": [{"name": "latency"}], "spread": "sample",
             "published": [{"student": "S", "measure": "x", "value": 1.0}]}
    base["arms"][0]["objective"] = [{"name": "cosine", "weight": 1.0}]
    return {"study": Reader(15, "YAML studies: hostile scalars, tags, bombs, nesting, damaged bytes, names that share a folder",
                            partial(study, base, _fixed(base))),
            "set": Reader(6, "`--set path=value` of the same", partial(override, base)),
            "run": Reader(2.5, "files of a finished run (study.yaml, provenance, complete, results, curves, metrics, "
                               "keepsakes) read by the report's parts", partial(damage, run, reported)),
            "resume": Reader(4, "the same before `run --resume`, `merge`, `compare` and `load_study`",
                             partial(damage, run, opened)),
            "archive": Reader(2, "files of a packed run: gone, cut, damaged, or packed again with hostile names, other columns "
                                 "or values, before report, `compare` and `merge`", partial(damage_archive, run))}


def study(base: dict, fixed: dict[str, bytes], rng: random.Random, number: int,
          folder: Path) -> tuple[str, Callable[[], str | None]]:
    if number < len(fixed):
        title = list(fixed)[number]
        return title, partial(planned, fixed[title], folder, [])
    kind = rng.random()
    if kind < 0.55:
        *steps, last = rng.choice(paths(base))
        title, content = f"{'.'.join(map(str, (*steps, last)))} = {(leaf := rng.choice(SCALARS))[:40]!r}", _with(base,
                                                                                                                 [*steps, last],
                                                                                                                 leaf)
    elif kind < 0.8:
        values, title = distorted(base, rng)
        content = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    elif kind < 0.9:
        title, content = "bytes damaged", damaged(yaml.safe_dump(base, sort_keys=False).encode(), rng)
    else:
        first, second = rng.sample(HOSTILE_NAMES, 2)
        title = f"students called {first[:12]!r} and {second[:12]!r}"
        values = {**base, "students": [{**base["students"][0], "label": first}, {**base["students"][0], "label": second}]}
        content = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    return title, partial(planned, content, folder, [])


def override(base: dict, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    path = rng.choice(SET_PATHS)
    text = path if rng.random() < 0.05 else f"{path}={rng.choice((*SCALARS, *HOSTILE_NAMES))}"
    return f"--set {text[:60]!r}", partial(planned, yaml.safe_dump(base, sort_keys=False).encode(), folder, [text])


def planned(content: bytes, folder: Path, overrides: list[str]) -> str | None:
    """Load it, dump it, and lay out its folders: each trial and remedy has its own, inside the run."""
    from distillscope.config.load import load_preset
    from distillscope.files.folders import folder_name
    from distillscope.results.run_files import trials_of
    from distillscope.results.rundir import check_names
    from distillscope.students.load import check_student

    path = folder / "study.yaml"
    path.write_bytes(content)
    found = load_preset(str(path), overrides)
    check_names(found)
    yaml.safe_load(yaml.safe_dump(found.dump()))
    for spec in found.students:
        check_student(spec.name, spec.settings, spec.image_size, spec.label)
    trials = trials_of(found)
    if len(trials) > 20_000:
        return None
    for what, names in (("trials", [t.id for t in trials]), ("remedies", [folder_name(r.title) for r in found.remedies])):
        twice = [n for n, times in Counter(n.casefold() for n in names).items() if times > 1]
        if twice:
            return f"two {what} share the folder {twice[0][:60]}"
        odd = [n for n in names if n in ("", ".", "..") or "/" in n or len(n.encode()) > 255]
        if odd:
            return f"{what} in a folder called {odd[0][:60]!r}"
    return None


def _with(base: dict, place: list, leaf: str) -> bytes:
    """The study with raw YAML at a place."""
    value = yaml.safe_load(yaml.safe_dump(base))
    at = value
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = "@@LEAF@@"
    raw = "\n" + " " * 12 + leaf if "\n" in leaf or leaf.startswith("- ") else leaf
    return yaml.safe_dump(value, sort_keys=False).replace("'@@LEAF@@'", raw).encode("utf-8", "surrogatepass")


def _fixed(base: dict) -> dict[str, bytes]:
    text = yaml.safe_dump(base, sort_keys=False)
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n"
                                                   for i in range(9))
    aliased = {f"bomb in {'.'.join(map(str, p))}": bomb + _with(base, list(p), "*j").decode()
               for p in (("seeds",), ("data", ), ("arms", 0, "objective"), ("students", 0, "width"), ("name",))}
    named = {f"students {a} and {b}": yaml.safe_dump({**base, "arms": base["arms"][:1],
                                                      "students": [{**base["students"][0], "label": n} for n in (a, b)]},
                                                      allow_unicode=True)
             for a, b in (("小", "大"), ("x 1", "x_1"), ("S", "s"), (".", ".."), ("a/b", "a_b"), ("é", "e\u0301"))}
    odd = {"bomb alone": bomb, "bomb beside": bomb + text, "deep list": "[" * 100_000, "deep mapping": "{a: " * 20_000,
           "deep indent": "".join(" " * i + "a:\n" for i in range(1500)), "empty": "", "a number": "5",
           "a list": "[1]", "two documents": text + "\n---\n" + text,
           "keys that are no text": text + "\n5: 6\nnull: 1\n1.5: 2\n? [1]\n: 2", "a key twice": text + "\nname: other",
           "200,000 seeds": text.replace("seeds:\n- 1\n- 2", f"seeds: {list(range(200_000))}"),
           "a tag that runs": "!!python/object/apply:os.system ['true']", "BOM": "\ufeff" + text,
           "a label of 300 letters": text.replace("label: S", f"label: {'s' * 300}"),
           "a name of 5,000": text.replace("name: small", f"name: {'n' * 5000}"),
           "name ../../x": text.replace("name: small", "name: ../../x"),
           "width 1e9": text.replace("width: 1\n", "width: 1000000000\n"),
           "width 20,000": text.replace("width: 1\n", "width: 20000\n"),
           "size 1e9": text.replace("image_size: 16", "image_size: 1000000000"),
           **{f"remedy called {n!r}": text.replace("- bn", f"- {{name: bn, label: '{n}'}}")
              for n in (".", "..", "../x", "小", "")}, **{f"json {i}": nested_json(random.Random(i)) for i in range(12)}}
    raw = {"UTF-16": text.encode("utf-16"), "NUL": b"\0" * 100, "latin-1": "name: é".encode("latin-1")}
    return {**{k: v.encode("utf-8", "surrogatepass") for k, v in {**aliased, **named, **odd}.items()}, **raw}


@functools.cache
def _template(run: str, folder: str) -> Path:
    """The run without weights and embeddings, which these readers do not open."""
    clean = Path(folder) / "clean-run"
    if not clean.exists():  # of the process before this one, which a case ended
        left_out = shutil.ignore_patterns("img_emb", "metadata", "weights*", "predictions*", "figures", "report.html")
        shutil.copytree(run, clean, ignore=left_out)
    return clean


def damage(run: Path, read: Callable, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    here = folder / "run"
    shutil.copytree(_template(str(run), str(folder.parent)), here)
    pattern = FILES[number % len(FILES)]
    files = sorted(here.glob(pattern))
    if not files:
        return f"{pattern} as it is", partial(read, here, number)
    path, kind = rng.choice(files), rng.random()
    if number < 1:
        title = "as it is"
    elif kind < 0.08:
        path.unlink()
        title = "gone"
    elif kind < 0.14:
        path.unlink()
        path.mkdir()
        title = "a folder"
    elif kind < 0.4:
        path.write_bytes(damaged(path.read_bytes(), rng))
        title = "damaged"
    elif kind < 0.5:
        path.write_text(nested_json(rng), encoding="utf-8")
        title = "other JSON"
    elif path.suffix == ".csv":
        text, title = _cells(path.read_text(), rng)
        _put(path, text)
    elif path.suffix == ".yaml":
        title = _study(path, rng)
    else:
        lines = path.suffix == ".jsonl"
        values = [json.loads(row) for row in path.read_text().splitlines()] if lines else json.loads(path.read_text())
        values, title = distorted(values, rng)
        path.write_text("".join(json.dumps(v) + "\n" for v in values) if lines else json.dumps(values))
    return f"{pattern} {title}"[:150], partial(read, here, number)


def _cells(text: str, rng: random.Random) -> tuple[str, str]:
    """A table with cells of one column, or the column itself, made hostile, and what was done in words."""
    table = list(csv.reader(io.StringIO(text)))
    column = rng.randrange(len(table[0]))
    value = rng.choice((*HOSTILE_NAMES, "inf", "nan", "-1", "1e999", "9" * 400, "1e30", "1.5", "x"))
    rows = table[1:] if rng.random() < 0.4 else rng.sample(table[1:], 3) if rng.random() < 0.8 else table[:1]
    for row in rows:
        row[column] = value
    return _as_csv(table), f"{table[0][column][:20]} = {value[:30]!r} in {len(rows)} rows"


def _as_csv(table: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue()


def _put(path: Path, text: str) -> None:
    """Written as it is."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def _study(path: Path, rng: random.Random) -> str:
    values = yaml.safe_load(path.read_text())
    if rng.random() < 0.5:
        values, title = distorted(values, rng)
        path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        return title
    key, scalar = rng.choice(list(values)), rng.choice(SCALARS)
    rest = {k: v for k, v in values.items() if k != key}
    path.write_text(yaml.safe_dump(rest) + f"{key}: {scalar}\n", encoding="utf-8", errors="surrogatepass")
    return f"{key}: {scalar[:30]!r}"


@functools.cache
def _packed(run: str, folder: str) -> Path:
    """The archive of the run, with claims.json in it."""
    from distillscope.report.claims import decide_claims, write_claims
    from distillscope.results.archive import write_archive

    clean, packed = _template(run, folder), Path(folder) / "packed"
    if not packed.exists():
        write_claims(decide_claims([clean]), clean)
        write_archive(clean, packed)
    return packed


def damage_archive(run: Path, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    """An archive with one file damaged as it lies there, or unpacked, changed and packed again."""
    here = folder / "run"
    shutil.copytree(_packed(str(run), str(folder.parent)), here)
    with zipfile.ZipFile(here / PACKED) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    files = [*sorted(p.name for p in here.iterdir()), *members]
    name, kind = files[number % len(files)], rng.random()
    path = here / (PACKED if name in members else name)
    if number < 1:
        title = "as it is"
    elif kind < 0.1:
        path.unlink()
        title = "gone"
    elif kind < 0.2:
        path.write_bytes(path.read_bytes()[:rng.randrange(path.stat().st_size)])
        title = "cut"
    elif kind < 0.35:
        path.write_bytes(damaged(path.read_bytes(), rng))
        title = "damaged"
    elif name in members:
        text, title = _repacked(members[name].decode(), name, rng)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for other, content in {**members, name: text.encode("utf-8", "surrogateescape")}.items():
                packed.writestr(other, content)
    elif name == PACKED:
        path.write_bytes(b"")
        title = "empty"
    else:
        text, title = _repacked(path.read_text(encoding="utf-8"), name, rng)
        _put(path, text)
    return f"{name} {title}"[:150], partial(unpacked, here, number)


def _repacked(text: str, name: str, rng: random.Random) -> tuple[str, str]:
    """What a file of an archive holds, changed, and what was done in words."""
    if rng.random() < 0.15:
        return damaged(text.encode(), rng).decode("utf-8", "surrogateescape"), "damaged inside"
    if ".csv" not in name:
        values, title = distorted(yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text), rng)
        return yaml.safe_dump(values, allow_unicode=True) if name.endswith(".yaml") else json.dumps(values), title
    table, kind = list(csv.reader(io.StringIO(text))), rng.random()
    if kind < 0.4:
        return _cells(text, rng)
    if kind < 0.7:
        value = rng.choice(FOLDERS)
        for row in table[1:] if rng.random() < 0.3 else table[1:2]:
            row[table[0].index("folder")] = value
        return _as_csv(table), f"folder = {value[:40]!r}"
    column = rng.randrange(len(table[0]))
    if kind < 0.85:
        return _as_csv([[*row[:column], *row[column + 1:]] for row in table]), f"without {table[0][column]}"
    return _as_csv([[*row, "x" if n else "foreign"] for n, row in enumerate(table)]), "a foreign column"


def unpacked(run: Path, number: int) -> str | None:
    """What takes an archive in a run's place; one that nothing hit gives the run's own rows."""
    from distillscope.compare.runs import compare_runs
    from distillscope.results.run import read_run

    clean = run.parent.parent / "clean-run"
    if number == 0:
        rows, own = (read_run(r).all_results.drop(columns="study", errors="ignore") for r in (run, clean))
        return None if rows.equals(own) else "other rows than the run's"
    which = number // 7 % 3
    if which == 0:
        return reported(run, number)
    if which == 1:
        merged_unreported([run, clean], run.parent / "merged")
    else:
        compare_runs([run, clean])
    return None


def merged_unreported(runs: list[Path], out: Path) -> None:
    """What merging computes, without a page."""
    from distillscope.report import study_page
    from distillscope.results.merge import merge_runs

    study_page.write_report = lambda path: path
    merge_runs(runs, out)


def reported(run: Path, number: int) -> str | None:
    """What a report computes: its tables, and in turn the claims with the advice, the page, or nothing more; no drawing."""
    from distillscope.report.study_page import Findings
    from distillscope.results.run import read_run

    found = Findings.of(read_run(run))
    assert found.table
    if number % 3 == 0:
        assert found.claims and found.advice
    elif number % 3 == 1:
        from distillscope.report.study_page import study_page

        study_page(found)
    return None


def opened(run: Path, number: int) -> str | None:
    """What begins with a run that is there already."""
    from distillscope.compare.runs import compare_runs
    from distillscope.config.load import load_preset
    from distillscope.report.serve import Watch
    from distillscope.results.rundir import open_run
    from distillscope.study.run import load_study

    clean = run.parent.parent / "clean-run"
    which = number // len(FILES) % 5
    if which == 0:
        open_run(load_preset(str(clean / "study.yaml")), run, True)
    elif which == 1:
        repr(load_study(run)), load_study(run).results
    elif which == 2:
        Watch(run)
    elif which == 3:
        merged_unreported([run, clean], run.parent / "merged")
    else:
        compare_runs([run, clean])
    return None
