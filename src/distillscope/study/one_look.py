"""Each image of a set that memory does not hold is read and decoded once, for all models that a command shows it to.

While the set is scanned its images are kept at the students' sizes, and the first teacher embeds them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distillscope.config.study import Arm
from distillscope.data.looking import Keeper, fits_memory
from distillscope.data.preprocess import Preprocess, reduced_for
from distillscope.data.source import Source
from distillscope.study.preflight import Work, check_encoder
from distillscope.teachers.encoder import TeacherRows
from distillscope.teachers.one_pass import row_keeper
from distillscope.training.stored_images import keeper_for, sees_stored


@dataclass
class OneLook:
    """The first teacher, the students with their arms, and the split that students are trained on.

    ``load`` gives the teacher, when it is first needed; None says that it is made of the images, and must wait.
    """

    work: Work
    load: Callable[[], TeacherRows] | None
    students: Iterable[tuple[Preprocess, Arm]]
    train_split: str

    @functools.cached_property
    def teacher(self) -> TeacherRows | None:
        """Loaded, and tried against what is asked of it; an error comes before any image is read."""
        found = self.load and self.load()
        if found:
            check_encoder(self.work, found)
        return found or None

    def reduced(self, source: Source) -> Source:
        """The source with large JPEGs decoded as small as these models allow; as it is where one sees the stored images."""
        if source.in_memory or source.encoded is None or self.load is None or any(sees_stored(arm) for _, arm in self.students):
            return source
        network, seen = self.teacher.network if self.teacher else None, [preprocess for preprocess, _ in self.students]
        if network is None:
            return source.for_models(*reduced_for(seen))
        return source if network.sees is None else source.for_models(*reduced_for([*seen, network.sees]))

    def keepers(self, source: Source) -> list[Keeper]:
        """What keeps the images' rows by the teacher, and of train the images at the students' sizes."""
        if fits_memory(source):
            return []
        sizes: dict[Preprocess, Keeper] = {}
        for preprocess, arm in self.students if source.split == self.train_split else ():
            if preprocess not in sizes and (keeper := keeper_for(source, preprocess, arm, self.work.keep_images)):
                sizes[preprocess] = keeper
        rows = row_keeper(self.teacher, source) if self.teacher else None
        return [*([rows] if rows else []), *sizes.values()]
