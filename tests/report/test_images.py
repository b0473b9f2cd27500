"""Names of classes and models come from data: the pictures of a page hold them as text."""

from pathlib import Path
from types import SimpleNamespace

from distillscope.report.context.study.images import cards, lost_images, neighbours
from distillscope.report.figures.keepsakes import Album, Kept
from distillscope.report.render import environment

NAME, ESCAPED = '<b>"x"</b>', "&lt;b&gt;&#34;x&#34;&lt;/b&gt;"


def _album(teacher: bool) -> Album:
    model = SimpleNamespace(label=NAME, highlight=NAME, colour=("#000", "#fff"), marker="circle", dash="solid",
                            is_teacher=teacher)
    said = {"seeds": [1], "classes": [NAME, "cat"], "sprite": {"columns": 2, "rows": 1}, "queries": [0], "neighbours": [[1]],
            "tiles": {"ids": [NAME, "b"], "labels": [0, 1], "predicted": [1, 0]},
            "map": {"shared": {"ids": [NAME], "labels": [0]}}}
    if not teacher:
        said["lost"] = {"tiles": [0, 1], "count": 2, "teacher_right": 2, "won": 0}
    return Album(model, Path("nowhere"), said, SimpleNamespace())


def test_names_from_data_are_escaped_in_every_picture():
    kept = [Kept(SimpleNamespace(title=NAME), _album(True), (_album(False),), (NAME,))]
    macros = environment().get_template("study/_images.html").module
    for made in (macros.lost(lost_images(kept)), macros.neighbours(neighbours(kept)), macros.card(cards(kept)[0])):
        assert ESCAPED in made
        assert "<b>" not in made and '"x"' not in made


def test_where_there_are_no_labels_the_lost_images_say_so():
    album = _album(True)
    assert "without labels" in environment().get_template("study/_images.html").module.lost(
        lost_images([Kept(SimpleNamespace(title=NAME), album, ())]))
