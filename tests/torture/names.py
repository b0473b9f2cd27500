"""Names that are code elsewhere, in a run and in an audit: text on the page, in tables, Markdown, LaTeX, figures, terminal."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import xml.dom.minidom
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import yaml

from torture import Case, Options, commands

WHAT = {
    "names-run": "`report` (with --paper where names are LaTeX), `claims`, `compare` and `recommend` of a run in which every "
                 "name is hostile",
    "names-audit": "`audit --out` of files, ids and labels with hostile names",
    "names-distill": "`distill` on a folder and with a label of hostile names: its model card",
    "names-study": "`run` with hostile labels, through to its page: own folders, nothing outside",
}
RAN = "document.documentElement.dataset.ran=1"
PAYLOADS = {
    "HTML": f"\"'><img src=x onerror=\"{RAN}\"></script></title><script>{RAN}</script>"
            f"<svg onload=\"{RAN}\"><a href=\"javascript:{RAN}\">]]>--><!--{{}}",
    "spreadsheet and Markdown": "=1+{}|[a](javascript:x)\n# b\n---\n<b onclick=x>`$(id)`**c**",
    "LaTeX and terminal": "\\input{{/etc/passwd}}${{x}}$%{}&#_~^\x1b]0;owned\x07\x1b[31m\u202e[bold]",
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def cases(options: Options) -> Iterator[Case]:
    made = {"names-run": hostile_run, "names-audit": hostile_audit, "names-distill": hostile_card, "names-study": hostile_study}
    for part, attempt in made.items():
        for number, (kind, payload) in enumerate(PAYLOADS.items()):
            if options.wants(part, number):
                yield Case(part, number, f"{kind}{', in Chromium' * bool(CHROMIUM and part != 'names-distill')}",
                           partial(_in_folder, attempt, options.work, f"{part}-{number}",
                                   lambda name, payload=payload: payload.replace("{}", name)))


def _in_folder(attempt: Callable, work: Path, name: str, hostile: Callable[[str], str]) -> str | None:
    folder = work / "names" / name
    commands.remove(folder)
    folder.mkdir(parents=True)
    found = [f for f in attempt(work, folder, hostile) if f]
    if not found:
        commands.remove(folder)
    return "; ".join(found) or None


def say(folder: Path, *arguments: object, codes: tuple[int, ...] = (0,)) -> list[str]:
    """Run a command; a fault where it ends otherwise, shows a traceback, or sends escapes to the terminal."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    code = commands.run(commands.command(*arguments, cache=folder / "cache", report=True), log)
    said = log.read_text(encoding="utf-8", errors="replace")
    last = (said.strip().splitlines() or [""])[-1][:200]
    found = [] if code in codes and "Traceback" not in said else [f"{arguments[0]} ends with {code}: {last}"]
    return found + [f"{arguments[0]} sends {mark!r} to the terminal" for mark in ("\x1b]0;owned", "\u202e") if mark in said]


def hostile_run(work: Path, folder: Path, hostile: Callable[[str], str]) -> Iterator[str]:
    plain, run = commands.truth("report", work), folder / "run"
    rename(commands.truth("run", work), run, hostile)
    yield from say(folder, "report", run, *["--paper"] * ("input" in hostile("")))
    yield from say(folder, "claims", run)
    yield from say(folder, "recommend", run, "--yaml", folder / "next.yaml", codes=(0, 2))
    yield from say(folder, "compare", run, plain, "--out", folder / "compared", codes=(0, 2))
    if (run / "report.html").exists():
        yield from written(run, plain)
    if (folder / "compared").exists():
        yield from written(folder / "compared", None)


def rename(source: Path, run: Path, hostile: Callable[[str], str]) -> None:
    """A finished run in which every name is hostile."""
    import pandas as pd

    shutil.copytree(source, run)
    study = yaml.safe_load((run / "study.yaml").read_text())
    new = {name: hostile(name) for name in ("small", "digits", "T", "S", "cosine", "noise")}
    study |= {"name": new["small"], "description": hostile("description")}
    study["data"][0]["alias"], study["teacher"][0]["label"], study["students"][0]["label"] = new["digits"], new["T"], new["S"]
    for arm in study["arms"]:
        arm["name"] = new[arm["name"]]
    (run / "study.yaml").write_text(yaml.safe_dump(study, allow_unicode=True))
    for path in run.glob("*/*/results.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table.assign(study=new["small"], dataset=new["digits"], teacher=new["T"], objective=hostile("objective"))
        table["student"] = [new.get(v, v) for v in table["student"]]
        table["arm"] = ["+".join(new.get(x, x) for x in v.split("+")) for v in table["arm"]]
        table.to_csv(path, index=False)
    for path in run.glob("*/*/keepsakes/keepsakes.json"):
        kept = json.loads(path.read_text())
        if "classes" in kept:
            kept["classes"] = [hostile(f"c{i}") for i in range(len(kept["classes"]))]
        kept["tiles"]["ids"] = [hostile(str(i)) for i in kept["tiles"]["ids"]]
        path.write_text(json.dumps(kept))
    for path in run.glob("*/*/complete.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "skipped": [hostile("skipped")],
                                    "warnings": [hostile("warning")]}))
    said = json.loads((run / "provenance.json").read_text())
    said |= {name: hostile(name) for name in ("command", "hardware", "commit", "device", "started", "distillscope")}
    (run / "provenance.json").write_text(json.dumps({**said, "versions": {hostile("package"): hostile("version")}}))


def hostile_audit(work: Path, folder: Path, hostile: Callable[[str], str]) -> Iterator[str]:
    draws, names = np.random.default_rng(0), [hostile(n).replace("/", "").replace("\0", "")[:100] for n in "ts"]
    for name, dim in zip(names, (16, 8), strict=True):
        np.savez(folder / f"{name}.npz", embeddings=draws.standard_normal((120, dim)),
                 ids=np.array([hostile(str(i)) for i in range(120)]),
                 labels=np.array([hostile(f"c{i % 4}") for i in range(120)]))
    yield from say(folder, "audit", "--teacher", folder / f"{names[0]}.npz", "--student", folder / f"{names[1]}.npz", "--out",
                   folder / "out")
    yield from written(folder / "out", None)


def _folder_of_images(path: Path, hostile: Callable[[str], str]) -> Path:
    from PIL import Image

    data = path / hostile("data").replace("/", "").replace("\0", "")[:100]
    for label in (hostile("a").replace("/", "")[:100], "b"):
        (data / "train" / label).mkdir(parents=True)
        for i in range(24):
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (12, 12, 3),
                                                              np.uint8)).save(data / "train" / label / f"{i}.png")
    return data


def hostile_card(work: Path, folder: Path, hostile: Callable[[str], str]) -> Iterator[str]:
    arguments = commands.arguments("distill", work, folder / "student")
    arguments = ["1" if before == "--epochs" else a for before, a in zip(("", *arguments), arguments, strict=False)]
    arguments = ["16" if before == "--batch-size" else a for before, a in zip(("", *arguments), arguments, strict=False)]
    arguments[arguments.index("digits")] = str(_folder_of_images(folder, hostile))
    label = json.dumps(hostile("label"))
    yield from say(folder, *arguments, "--set", f"student.label={label}", codes=(0, 2))
    if (folder / "student" / "README.md").exists():
        card = (folder / "student" / "README.md").read_text(encoding="utf-8")
        front = card.split("---\n")[1]
        if set(yaml.safe_load(front)) - {"license", "tags", "library_name", "pipeline_tag"}:
            yield f"README.md: front matter with more than ours: {front[:100]!r}"
        yield from markdown(folder / "student" / "README.md")


def hostile_study(work: Path, folder: Path, hostile: Callable[[str], str]) -> Iterator[str]:
    values = yaml.safe_load(commands.study_file(work).read_text())
    values |= {"name": hostile("study"), "seeds": [1], "remedies": [{"name": "bn", "label": hostile("bn")}]}
    values["arms"] = [{"name": hostile("arm"), "objective": "cosine"}]
    values["students"] = [{**values["students"][0], "label": hostile("student")}]
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    yield from say(folder, "run", path, "--out", folder / "deep" / "run", "--jobs", 1, codes=(0, 2))
    if strangers := [p.name for p in folder.iterdir()
                     if p.name not in ("study.yaml", "deep", "cache",
                                       "log")] + [p.name for p in (folder / "deep").glob("*") if p.name != "run"]:
        yield f"written outside the run: {strangers[:3]}"
    if (folder / "deep" / "run" / "report.html").exists():
        yield from written(folder / "deep" / "run", commands.truth("report", work))


class Seen(HTMLParser):
    """Elements that data must not make."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.odd, self.scripts = [], 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.scripts += tag == "script"
        self.odd += [f"<{tag} {k}>" for k, v in attrs if k.startswith("on")
                     or (k in ("src", "href") and v and (v == "x" or v.strip().lower().startswith("javascript")))]


def written(folder: Path, plain: Path | None) -> Iterator[str]:
    """What of a folder that was written is more than text."""
    for path in folder.glob("*.html"):
        seen = Seen(path.read_text(encoding="utf-8"))
        if seen.odd or (plain and seen.scripts != Seen((plain / path.name).read_text(encoding="utf-8")).scripts):
            yield f"{path.name}: {seen.scripts} scripts, {seen.odd[:3]}"
        if "Content-Security-Policy" not in path.read_text(encoding="utf-8"):
            yield f"{path.name}: without a policy"
        yield from opened(path)
    for path in folder.rglob("*.svg"):
        try:
            drawn = xml.dom.minidom.parse(str(path))
        except Exception as error:
            yield f"{path.name}: no XML ({error})"
            continue
        if drawn.getElementsByTagName("script") or drawn.getElementsByTagName("img"):
            yield f"{path.name}: a script or image from data"
    for path in folder.rglob("*.tex"):
        if re.search(r"(?<!\\)(?<!backslash\{\})\\(input|write)\b", path.read_text(encoding="utf-8")):
            yield f"{path.name}: a command from data"
    for path in folder.rglob("*.md"):
        yield from markdown(path)
    for path in folder.rglob("*.csv"):
        if path.parent.name not in ("trials", "references") and path.parents[1].name not in ("trials", "references"):
            yield from sheet(path)


def markdown(path: Path) -> Iterator[str]:
    """Raw HTML, links that run, or a name that breaks a line into a heading."""
    text = path.read_text(encoding="utf-8")
    code = r"```.*?```|(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)"  # a span ends with as many backticks as it began with
    outside = re.sub(code, "", text, flags=re.S)
    for mark in ("<img", "<script", "<svg", "<b onclick", "](javascript:", "\n# b", "\x1b"):
        if mark in outside:
            yield f"{path.name}: {mark!r} from data"


def sheet(path: Path) -> Iterator[str]:
    """Cells that a spreadsheet would run."""
    number = re.compile(r"[+-]?[\d.,]+%?([eE][+-]?\d+)?|[+-]?(inf|nan)|[+-]")
    with open(path, newline="", encoding="utf-8") as handle:
        cells = [c for row in csv.reader(handle) for c in row if c and c[0] in "=@\t\r+-" and not number.fullmatch(c.strip())]
    if cells:
        yield f"{path.name}: {len(cells)} cells that a spreadsheet runs, first {cells[0][:40]!r}"


def opened(page: Path) -> Iterator[str]:
    """The page in headless Chromium, where it is there: nothing from data ran, and the page's policy had nothing to stop."""
    if CHROMIUM is None:
        return
    try:
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                               "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
                               f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=8000", "--dump-dom",
                               page.resolve().as_uri()],
                              capture_output=True, text=True, timeout=180, errors="replace")
    except subprocess.TimeoutExpired:
        yield f"{page.name}: Chromium does not end"
        return
    finally:
        commands.remove(page.parent / "profile")
    if 'data-ran="1"' in done.stdout:
        yield f"{page.name}: a name ran as script in Chromium"
    if said := [line for line in done.stderr.splitlines() if "CONSOLE" in line]:
        yield f"{page.name}: its console says {said[0][-200:]}"
