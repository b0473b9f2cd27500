"""What tells an archive from a run directory, and the line that refuses one."""

from __future__ import annotations

from pathlib import Path

from distillscope.errors import UserError

TRIALS = "trials.csv"
"""Of an archive: written last, so that the archive is complete where this is there."""


def is_archive(path: Path) -> bool:
    """Whether a folder is an archive that was written to its end."""
    return (path / TRIALS).is_file() and not (path / "trials").is_dir()


def refuse_archive(path: Path, where: str) -> None:
    """A `UserError` where ``path`` is an archive, or would be in one, and what a whole run holds is needed."""
    if any(map(is_archive, (path, *path.parents))):
        raise UserError(where, "a whole run directory", "an archive, which holds no weights and no embeddings",
                        "Name the run that it was packed from.")
