"""The HTML of a run's keepsakes: images that were lost, neighbours of the same queries, and the card below the map."""

from __future__ import annotations

from typing import Any

from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import ABSENT, Album, Kept
from distillscope.report.sections import escape, swatch
from distillscope.report.sentences.numbers import NBSP, number, percent
from distillscope.results.models import CLASS_COLOURS


def sheet(kept: int, album: int) -> str:
    """The style class of an album's thumbnails."""
    return f"sheet-{kept}-{album}"


def styles(albums: list[Kept]) -> str:
    """Every sprite once, as a background that tiles refer to."""
    rules = []
    for i, kept in enumerate(albums):
        pictures = [(sheet(i, j), a.picture("tiles.webp"), a.said["sprite"]) for j, a in enumerate(kept.albums)]
        pictures.append((f"sheet-{i}-map", kept.teacher.picture("map.webp"), kept.teacher.said["map"]["sprite"]))
        rules += [f'.{name}{{background-image:url("{data}");--columns:{int(place["columns"])};--rows:{int(place["rows"])}}}'
                  for name, data, place in pictures if data]
    return f"<style>{''.join(rules)}</style>" if rules else ""


def tile(style: str, album: Album, place: int, text: str, kind: str = "") -> str:
    """One thumbnail; ``text`` describes it to readers who cannot see it."""
    columns = album.said["sprite"]["columns"]
    return (f'<i class="tile {style}{f" {kind}" if kind else ""}" style="--c:{place % columns};--r:{place // columns}" role="img" '
            f'aria-label="{escape(text)}" title="{escape(text)}"></i>')


def _name(kept: Kept, value: int | None) -> str:
    return "" if value is None else kept.classes[value]


def _of(values: list | None, place: int) -> int | None:
    return values[place] if values else None


def absent_html(key: str, title: str, text: str) -> str:
    return f'<figure class="absent" id="figure-{key}"><h3>{escape(title)}</h3><p>{escape(text)}</p></figure>'


def _framed(key: str, title: str, content: str, caption: str) -> str:
    return (f'<figure id="figure-{key}"><div class="bar-top"><h3>{escape(title)}</h3><div class="tools">'
            f'<button class="tool" type="button" data-do="csv">CSV</button></div></div>{content}<figcaption><p>{caption}</p></figcaption></figure>')


def _model_head(album: Album) -> str:
    m = album.model
    return f'{swatch(m.colour, m.marker, m.dash)} <strong>{escape(m.label)}</strong>'


def lost_html(albums: list[Kept]) -> str:
    """A contact sheet for each student."""
    title, parts = "Images that the students lost", []
    for i, kept in enumerate(albums):
        shown = [(j, a) for j, a in enumerate(kept.albums) if "lost" in a.said]
        if shown and len(albums) > 1:
            parts.append(f'<p class="setting">{escape(kept.setting.title)}</p>')
        for j, album in shown:
            lost, said = album.said["lost"], album.said["tiles"]
            cells = "".join(_lost_cell(kept, album, sheet(i, j), place) for place in lost["tiles"])
            share = lost["count"] / lost["teacher_right"] if lost["teacher_right"] else float("nan")
            text = (f"{number(lost['count'], 0)} of the {number(lost['teacher_right'], 0)} images that the teacher gets right ({percent(share)}); it gets "
                    f"{number(lost['won'], 0)} right that the teacher gets wrong. Seed {album.said['seeds'][0]}.")
            seen = f" Shown: {len(lost['tiles'])}." if len(lost["tiles"]) < lost["count"] else ""
            parts.append(f'<div class="album" data-model="{escape(album.model.highlight)}"><p class="head">{_model_head(album)} loses '
                         f"{escape(text + seen)}</p><ul class=\"tiles\">{cells}</ul></div>" if said["ids"] else "")
    if not parts:
        return absent_html("lost", title, ABSENT if not albums else "Nothing to show: without labels there is no right and wrong.")
    return _framed("lost", title, "".join(parts),
                   "Test images that the teacher's probe gets right and the student's gets wrong, drawn at random, evenly over the true classes, in "
                   "their order. Below each: the true class, and what the student takes it for." + _left_out(albums))


def _lost_cell(kept: Kept, album: Album, style: str, place: int) -> str:
    said = album.said["tiles"]
    true, taken = _name(kept, _of(said["labels"], place)), _name(kept, _of(said.get("predicted"), place))
    text = f"{true}, taken for {taken} ({said['ids'][place]})"
    return f'<li>{tile(style, album, place, text)}<span>{escape(true)}</span><span class="wrong">{escape(taken)}</span></li>'


def _left_out(albums: list[Kept]) -> str:
    names = [n for kept in albums for n in kept.left_out]
    return f" Not shown, for room: {escape(', '.join(names))}; their thumbnails are in the run's folder." if names else ""


def neighbours_html(albums: list[Kept]) -> str:
    """The same queries, each model's five nearest test images."""
    title, cards, findings = "The same query, each model's nearest images", [], []
    for i, kept in enumerate(albums):
        teacher = kept.teacher
        queries = teacher.said["queries"]
        if len(albums) > 1:
            cards.append(f'<p class="setting">{escape(kept.setting.title)}</p>')
        for q, place in enumerate(queries):
            label = _of(teacher.said["tiles"]["labels"], place)
            own = {teacher.said["tiles"]["ids"][p] for p in teacher.said["neighbours"][q]}
            rows = "".join(_row(kept, album, sheet(i, j), q, label, own) for j, album in enumerate(kept.albums))
            name = _name(kept, label)
            cards.append(f'<div class="query"><div class="asked">{tile(sheet(i, 0), teacher, place, f"query: {name}".strip(": "))}'
                         f"<span>{escape(name) or 'query'}</span></div><div class=\"answers\">{rows}</div></div>")
        findings += _shares(kept)
    if not cards:
        return absent_html("neighbours", title, ABSENT)
    listed = f'<ul class="findings">{"".join(f"<li>{escape(f)}</li>" for f in findings)}</ul>' if findings else ""
    return _framed("neighbours", title, f'<div class="queries">{"".join(cards)}</div>',
                   "Left the query, drawn at random; each row one model's five nearest test images by cosine, nearest first. "
                   '<span class="mark same"></span> is of another class than the query; <span class="mark shared"></span> is among the teacher’s '
                   "five too. Few shared images with the right class: the student kept the classes and lost the items.") .replace(
                       "</figcaption>", f"{listed}</figcaption>")


def _row(kept: Kept, album: Album, style: str, query: int, label: int | None, own: set[str]) -> str:
    said, cells = album.said["tiles"], []
    for place in album.said["neighbours"][query]:
        found, shared = _of(said["labels"], place), not album.model.is_teacher and said["ids"][place] in own
        other = label is not None and found != label
        text = " ".join(t for t in (_name(kept, found) or "image", f"({said['ids'][place]})", "of another class" if other else "",
                                    "shared with the teacher" if shared else "") if t)
        cells.append(tile(style, album, place, text, " ".join(["other"] * other + ["shared"] * shared)))
    name = "teacher" if album.model.is_teacher else album.model.label
    return (f'<div class="row" data-model="{escape(album.model.highlight)}"><span class="who">{swatch(album.model.colour, album.model.marker, album.model.dash)} '
            f"{escape(name)}</span>{''.join(cells)}</div>")


def _shares(kept: Kept) -> list[str]:
    """How many of the neighbours shown are of the query's class, and how many are the teacher's too."""
    teacher, right, shared, total = kept.teacher, [], [], 0
    for album in kept.albums:
        name = "teacher" if album.model.is_teacher else album.model.label
        tiles, same, common, total = album.said["tiles"], 0, 0, 0
        for q, row in enumerate(album.said["neighbours"]):
            own = {teacher.said["tiles"]["ids"][p] for p in teacher.said["neighbours"][q]}
            label = _of(teacher.said["tiles"]["labels"], teacher.said["queries"][q])
            common += sum(tiles["ids"][p] in own for p in row)
            same += sum(label is not None and _of(tiles["labels"], p) == label for p in row)
            total += len(row)
        right.append(f"{name}{NBSP}{same}")
        shared += [] if album.model.is_teacher else [f"{name}{NBSP}{common}"]
    said = [f"of the query's class {', '.join(right)}"] if teacher.said["tiles"]["labels"] else []
    said += [f"shared with the teacher {', '.join(shared)}"] if shared else []
    return [f"Of the {total} neighbours shown of each model, {'; '.join(said)}."]


def map_card(albums: list[Kept], figure: Figure) -> str:
    """The names of the classes, and what the dot under the pointer is; the slider shows the same without a pointer."""
    if not figure.panels:
        return ""
    parts = []
    for i, kept in enumerate(albums):
        shared = kept.teacher.said["map"]["shared"]
        named = "" if len(kept.classes) > len(CLASS_COLOURS) or not shared["labels"] else "".join(
            f'<span class="class" style="--l:{light};--d:{dark}">{escape(c)}</span>'
            for c, (light, dark) in zip(kept.classes, CLASS_COLOURS, strict=False))
        parts.append(
            f'<div class="classes">{named}</div><div class="card" data-map="{i}"><i class="tile sheet-{i}-map" aria-hidden="true"></i>'
            f'<div><p class="said" role="status">Point at a dot, or walk through the images.</p><input type="range" min="0" '
            f'max="{len(shared["ids"]) - 1}" value="0" aria-label="image of the map"></div></div>')
    return "".join(parts)


def picture_data(albums: list[Kept]) -> dict[str, Any]:
    """What the page's script needs of them: the map's items, and the rows of the downloads."""
    lost, near = [], []
    for kept in albums:
        for album in kept.albums:
            said, head = album.said["tiles"], [kept.setting.dataset, kept.setting.teacher, album.model.label]
            for place in album.said.get("lost", {}).get("tiles", []):
                lost.append([*head, said["ids"][place], _name(kept, _of(said["labels"], place)), _name(kept, _of(said.get("predicted"), place))])
            for q, row in enumerate(album.said["neighbours"]):
                query = kept.teacher.said["tiles"]["ids"][kept.teacher.said["queries"][q]]
                near += [[*head, query, rank + 1, said["ids"][p], _name(kept, _of(said["labels"], p))] for rank, p in enumerate(row)]
    head = ["dataset", "teacher", "model"]
    items = [{"ids": k.teacher.said["map"]["shared"]["ids"],
              "labels": [k.classes[v] for v in k.teacher.said["map"]["shared"]["labels"] or []],
              "columns": k.teacher.said["map"]["sprite"]["columns"], "panels": len(k.albums),
              "answers": [[k.classes[v] for v in a.said["map"].get("predicted") or []] for a in k.albums]} for k in albums]
    return {"maps": items, "tables": {"lost": {"columns": [*head, "id", "true", "taken_for"], "rows": lost},
                                      "neighbours": {"columns": [*head, "query", "rank", "id", "class"], "rows": near}}}
