"""Students on the Hugging Face Hub, fetched by their names; whatever it refuses is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType

from distillscope import progress
from distillscope.config.parts import COMMIT, DESCRIPTION, HUB, WEIGHTS, OnHub, on_hub
from distillscope.errors import UserError
from distillscope.files.writing import said_of
from distillscope.inputs.formats import split_key
from distillscope.students.description import AGAIN
from distillscope.teachers.encoder import plain_line

FILES = [DESCRIPTION, WEIGHTS]
"""All that is ever fetched: nothing that is pickled can come with it."""
LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may."


def student_folder(spec: Path | str, token: str | bool | None = None) -> Path:
    """The folder that ``spec`` names; of a student on the Hub (hf-hub:owner/name[@revision]) the copy in the Hub's own cache.

    Fetched are the description and the weights, nothing else. Out of reach of the Hub the copy that the cache has is used, and
    a line says so. ``token``: as huggingface_hub takes it; by default that of `hf auth login` or HF_TOKEN.
    """
    name = on_hub(spec)
    if name is None:
        return split_key(spec)[0]
    from huggingface_hub import HfApi, snapshot_download

    try:
        with asking(str(spec)):
            if not COMMIT.fullmatch(name.revision or ""):  # asked first: by itself a snapshot that is refused is a cached one
                HfApi(token=token).model_info(name.repo, revision=name.revision)
            folder = Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=FILES, token=token))
    except UserError as error:
        if not _out_of_reach(error.__cause__):
            raise
        folder = _cached(name, error)
    if not all((folder / file).is_file() for file in FILES):
        there = [file for file in FILES if (folder / file).is_file()]
        raise UserError(str(spec), f"a student of distillscope ({DESCRIPTION} and {WEIGHTS})",
                        f"a repository with {there[0]} alone" if there else "a repository without them",
                        "Name one that `distillscope push` made.")
    return folder


def _cached(name: OnHub, why: UserError) -> Path:
    """The copy in the cache, where the Hub is out of reach."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        raise UserError(why.where, why.expected, f"{why.got}; no copy of it is in the cache", why.todo) from None
    progress.say(f"{why.where}: the Hub is out of reach ({why.got}); the copy in the cache is used, commit {found.name[:7]}")
    return found


def is_folder(spec: Path | str) -> bool:
    """Whether ``spec`` names a student's folder, here or on the Hub."""
    return on_hub(spec) is not None or split_key(spec)[0].is_dir()


def title_of(spec: Path | str) -> str:
    """What tables call the model that ``spec`` names.

    >>> title_of("hf-hub:ann/digits"), title_of("runs/student.onnx")
    ('digits', 'student.onnx')
    """
    name = on_hub(spec)
    return split_key(spec)[0].name if name is None else name.title


def pinned(spec: Path | str, token: str | bool | None = None) -> str:
    """The name of a student on the Hub with the commit that it stands for now, which is fetched; any other name as it is."""
    name = on_hub(spec)
    return str(spec) if name is None else f"{HUB}{name.repo}@{student_folder(spec, token).name}"


@contextmanager
def asking(where: str) -> Iterator[None]:
    """Whatever comes of asking the Hub is one line; its retries are no news, and no bars are drawn where nobody watches."""
    from huggingface_hub.utils import (
        LocalEntryNotFoundError,
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if bars and not progress.console.is_terminal:
        disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the library passes on what its HTTP client raises, which has changed twice
        cause = error.__cause__  # of what is not in the cache either: why it was looked for there
        reason = cause if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, Exception) else error
        raise refusal(where, reason) from reason
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


@contextmanager
def named_by_hub(spec: Path | str, folder: Path) -> Iterator[None]:
    """What is wrong with a fetched student is said with its name on the Hub, and not with a place in the cache."""
    try:
        yield
    except UserError as error:
        parts = [text.replace(str(folder), str(spec)) for text in (error.where, error.expected, error.got, error.todo)]
        if error.todo == AGAIN:
            parts[3] = f"Push it again; if others can load it, remove {folder}, and it is fetched anew."
        raise UserError(*parts) from None


def _status(error: BaseException | None) -> int | None:
    """The Hub's answer, where there was one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _out_of_reach(error: BaseException | None) -> bool:
    """Whether the Hub gave no answer of its own: no connection, none allowed, or a fault on its side."""
    status = _status(error)
    return status >= 500 if status is not None else not isinstance(error, (ValueError, NoneType))


def refusal(where: str, error: Exception) -> UserError:
    """What the Hub, its client or the way to it raised, as the one line for the user."""
    from huggingface_hub import constants
    from huggingface_hub.utils import GatedRepoError, RevisionNotFoundError

    status = _status(error)
    said = str(getattr(error, "server_message", None) or "").strip().split("\n")[0][:200].rstrip(".")
    got = f"{status}{f' ({said})' if said else ''}"
    if isinstance(error, GatedRepoError):
        return UserError(where, "access to the repository", f"{got}: it is gated", f"Ask for access on its page. {LOG_IN}")
    if isinstance(error, RevisionNotFoundError):
        return UserError(where, "a revision that is there", f"none of that name ({got})", "Name a branch, a tag or a commit.")
    if status in (401, 404):
        return UserError(where, "a model repository that is there and that you may see", got, f"Check the name. {LOG_IN}")
    if status == 403:
        return UserError(where, "a token that may do this", got, LOG_IN)
    if status is not None:
        fault = status >= 500
        return UserError(where, f"an answer of {constants.ENDPOINT}", got, "Repeat it later." if fault else "")
    if isinstance(error, OSError) and (told := said_of(error, where)):  # a full disk, closed permissions
        return told
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return UserError(where, "what the Hub takes", plain_line(error), "Mend it.")
    todo = ("HF_HUB_OFFLINE is set: unset it to go online." if constants.HF_HUB_OFFLINE else
            "Check the connection, and repeat it.")
    return UserError(where, f"an answer of {constants.ENDPOINT}", plain_line(error), todo)
