"""YAML studies and --set values: hostile scalars at every place, tags, bombs, nesting, damage, names that share a folder."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from torture import small
from torture.fuzz import Reader
from torture.mutate import HOSTILE_NAMES, damaged, distorted, nested_json, paths

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


def readers(work: Path) -> dict[str, Reader]:
    base = yaml.safe_load(small.study_file(work).read_text(encoding="utf-8"))
    base |= {"target": {"name": "pca", "dim": 8}, "stresses": [{"name": "latency"}], "spread": "sample",
             "published": [{"student": "S", "measure": "x", "value": 1.0}]}
    base["arms"][0]["objective"] = [{"name": "cosine", "weight": 1.0}]
    fixed = _fixed(base)
    return {"study": Reader(15, "YAML studies: hostile scalars, tags, bombs, nesting, damaged bytes, names that share a folder",
                            partial(study, base, fixed)),
            "set": Reader(6, "`--set path=value` of the same", partial(override, base))}


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
    from distillscope.files.folder_names import folder_name
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
