"""Students on the Hugging Face Hub: fetched by their names, pushed with their card; whatever it refuses is one line."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from distillscope import progress
from distillscope.config.parts import COMMIT, DESCRIPTION, HUB, MODEL_FILES, WEIGHTS, OnHub, model_file, on_hub
from distillscope.errors import UserError
from distillscope.files.writing import said_of, write_atomic, write_text
from distillscope.inputs.formats import split_key
from distillscope.measure.results import Audit
from distillscope.results.audit_file import audit_of, read_audit
from distillscope.students.card import model_card
from distillscope.students.description import AGAIN
from distillscope.teachers.artefacts import Artefact
from distillscope.teachers.encoder import plain_line

if TYPE_CHECKING:
    from distillscope.students.load import StudentEncoder

CARD = "README.md"

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
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        with asking(str(spec)):
            if not COMMIT.fullmatch(name.revision or ""):  # asked first: by itself a snapshot that is refused is a cached one
                HfApi(token=token).model_info(name.repo, revision=name.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            folder = Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=FILES, token=token))
    except UserError as error:
        if not _out_of_reach(error.__cause__):
            raise
        folder = _cached(name, error)
    if not all((folder / file).is_file() for file in FILES):
        there = [file for file in FILES if (folder / file).is_file()]
        raise UserError(str(spec), f"a student of distillscope ({DESCRIPTION} and {WEIGHTS})",
                        f"a repository with only {there[0]}" if there else "a repository without them",
                        "Name one that `distillscope push` made.")
    return folder


def _cached(name: OnHub, why: UserError) -> Path:
    """The copy in the cache, where the Hub is out of reach."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    found = None
    with suppress(LocalEntryNotFoundError):
        found = Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=FILES, local_files_only=True))
    if found is None or not all((found / file).is_file() for file in FILES):
        raise UserError(why.where, why.expected, f"{why.got}; no copy of it is in the cache", why.todo)
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
    return str(spec) if name is None else spec_of(name.repo, student_folder(spec, token).name)


def pretrained_name(name_or_path: Path | str, revision: str | None) -> str:
    """What `load_student` takes for a folder, or for owner/name on the Hub, with or without its prefix.

    >>> pretrained_name("ann/digits", "v1"), pretrained_name("hf-hub:ann/digits@v1", None)
    ('hf-hub:ann/digits@v1', 'hf-hub:ann/digits@v1')
    """
    text = str(name_or_path)
    folder = on_hub(text) is None and Path(text).expanduser().is_dir()
    if not folder and "/" not in text:
        raise UserError(f"from_pretrained {text}", "a student's folder, or owner/name on the Hub", "neither", "Check the name.")
    name = None if folder else on_hub(text if text.startswith(HUB) else f"{HUB}{text}")
    if revision is not None and (name is None or name.revision not in (None, revision)):
        got = f"'{revision}' for a folder" if name is None else f"'{revision}' and '{name.revision}'"
        raise UserError(f"from_pretrained {text}", "one revision, of a student on the Hub", got, "Leave one out.")
    return text if name is None else spec_of(name.repo, revision or name.revision)


def spec_of(repo: str, revision: str | None) -> str:
    """The name of a student on the Hub, as `load_student` and every command take it."""
    return f"{HUB}{repo}" + (f"@{revision}" if revision else "")


def write_pretrained(student: StudentEncoder, folder: Path, place: str, *, audit: Any, artefacts: Sequence[Path | str],
                     licence: str) -> list[str]:
    """The student, its card and its files into ``folder``, after every check; the names of what was written.

    ``place`` is what the card says to load it from.
    """
    from distillscope.students.export.load import load_artefact
    from distillscope.students.load import save_student

    opened = [load_artefact(path, student) for path in artefacts]
    files = [file for artefact in opened for file in artefact.module.files()]
    if len({file.name for file in files}) < len(files):
        raise UserError("artefacts", "files of different names", "one twice", "Rename it, or leave it out.")
    found = None if audit is None else _audit_of(audit, student, opened)
    card = model_card(student, place, audit=found, artefacts=opened, licence=licence)
    save_student(student, folder)
    for file in files:
        write_atomic(folder / file.name, partial(shutil.copyfile, file))
    write_text(folder / CARD, card)
    return [*FILES, CARD, *(file.name for file in files)]


def _audit_of(given: Any, student: StudentEncoder, artefacts: Sequence[Artefact]) -> Audit:
    """The audit, refused where it says that it is of other weights or of other files."""
    from distillscope.students.export.load import name_of_weights

    where = f"audit {given}" if isinstance(given, (str, Path)) else "audit"
    if isinstance(given, Audit):
        found = given
    elif isinstance(given, (str, Path)):
        found = read_audit(Path(given).expanduser(), where)
    else:
        found = audit_of(json.dumps(given, default=str), where)
    own, said = name_of_weights(student), found.inputs.get("student", {}).get("weights")
    if said and said != own:
        raise UserError(where, f"an audit of student {student.name} ({own[:12]})", f"one of other weights ({str(said)[:12]})",
                        "Audit this student: `distillscope audit --teacher T --student DIR --data D --json FILE`.")
    read = found.inputs.get("student", {})
    if said and model_file(str(read.get("file", ""))):
        raise UserError(where, "an audit of the student's own weights, whose figures the card shows",
                        f"one of its file {Path(str(read['file'])).name}", "Audit both: `distillscope audit --teacher T "
                        "--student DIR --artefact FILE --data D --json FILE`.")
    stages = {stage.name: stage for stage in found.stages if stage.kind == "artefact"}
    for artefact in artefacts:
        stage = stages.get(artefact.path.name)
        size = stage.values.get("size_bytes") if stage else None
        if size is not None and size.value != artefact.size_bytes:
            raise UserError(f"{where}, {artefact.path.name}", f"{artefact.size_bytes:,} bytes, as the file has",
                            f"{size.value:,.0f}", "Audit this file: --artefact FILE.")
        if stage and stage.content and stage.content != artefact.weights_hash:
            raise UserError(f"{where}, {artefact.path.name}", f"an audit of this file ({artefact.weights_hash[:12]})",
                            f"one of another of its name ({stage.content[:12]})", "Audit this file: --artefact FILE.")
    return found


def push(student: StudentEncoder, repo_id: str, *, private: bool | None, token: str | bool | None, message: str,
         revision: str | None, create_pr: bool, audit: Any, artefacts: Sequence[Path | str], licence: str) -> str:
    """The student, its card and its files as one commit on the Hub, all of it or nothing; the commit's address."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    api, repo = HfApi(token=token), repo_id.removeprefix(HUB)
    with tempfile.TemporaryDirectory(prefix="distillscope-push-") as scratch:
        try:
            with asking(f"push to {repo_id}"):
                repo = repo if "/" in repo else f"{api.whoami()['name']}/{repo}"
                validate_repo_id(repo)
                files = write_pretrained(student, Path(scratch), spec_of(repo, revision), audit=audit, artefacts=artefacts,
                                         licence=licence)
                api.create_repo(repo, private=private, exist_ok=True)
                if revision and not revision.startswith("refs/"):
                    api.create_branch(repo, branch=revision, exist_ok=True)
                there = api.list_repo_files(repo, revision=revision)
                made = api.upload_folder(repo_id=repo, folder_path=scratch, commit_message=message, revision=revision,
                                         create_pr=create_pr)
        except UserError as error:
            raise UserError(error.where, error.expected, error.got, f"Nothing was pushed. {error.todo}") from None
    older = [file for file in there if Path(file).suffix.lower() in MODEL_FILES and file not in files]
    if older:
        progress.say(f"{repo}: still holds {', '.join(older)} of an earlier push, maybe of other weights: push it with this "
                     "student, or delete it there")
    return str(made.commit_url)


@contextmanager
def asking(where: str) -> Iterator[None]:
    """Whatever comes of asking the Hub is one line. Its client retries without a word, draws no bars where nobody watches, and
    does not look for a coding agent, nor name it or torch's version, in order to tell its makers."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        LocalEntryNotFoundError,
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    told = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    logging.set_verbosity_error()
    if bars and not progress.console.is_terminal:
        disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the library passes on what its HTTP client raises, which has changed twice
        if isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # of "not in the cache either", and of "error while uploading"
        raise refusal(where, error) from error
    finally:
        logging.set_verbosity(verbosity)
        constants.HF_HUB_DISABLE_TELEMETRY = told
        if bars:
            enable_progress_bars()


@contextmanager
def named_by_hub(spec: Path | str, folder: Path) -> Iterator[None]:
    """What is wrong with a fetched student is said with its name on the Hub, and not with a place in the cache."""
    try:
        yield
    except UserError as error:
        if on_hub(spec) is None:
            raise
        parts = [text.replace(str(folder), str(spec)) for text in (error.where, error.expected, error.got, error.todo)]
        if error.todo == AGAIN:
            parts[3] = f"Push it again; if others can load it, remove {folder}, and it is fetched again."
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
    from huggingface_hub.utils import (
        GatedRepoError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = _status(error)
    said = str(getattr(error, "server_message", None) or "").strip().split("\n")[0][:200].rstrip(".")
    got = f"{status}{f' ({said})' if said else ''}"
    if isinstance(error, GatedRepoError):
        return UserError(where, "access to the repository", f"{got}: it is gated", f"Ask for access on its page. {LOG_IN}")
    if isinstance(error, RevisionNotFoundError):
        return UserError(where, "a revision that is there", f"none of that name ({got})", "Name a branch, a tag or a commit.")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return UserError(where, "a model repository that is there and that you may see", got, f"Check the name. {LOG_IN}")
    if status in (401, 403):
        return UserError(where, "a token that may do this", got, LOG_IN)
    if status is not None:
        fault = status >= 500
        return UserError(where, f"an answer of {constants.ENDPOINT}", got, "Repeat it later." if fault else "")
    if isinstance(error, LocalTokenNotFoundError):
        return UserError(where, "a token, which says whose the repository is", "none", f"Name it owner/name. {LOG_IN}")
    if isinstance(error, OfflineModeIsEnabled):
        return UserError(where, f"an answer of {constants.ENDPOINT}", "offline mode: HF_HUB_OFFLINE is set", "Unset it.")
    if isinstance(error, OSError) and (told := said_of(error, where)):  # a full disk, closed permissions
        return told
    if isinstance(error, OSError) and error.filename is not None:
        return UserError(where, "a cache that can be written", plain_line(error), "Set HF_HOME to a folder that can.")
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return UserError(where, "what the Hub takes", plain_line(error), "Fix it.")
    return UserError(where, f"an answer of {constants.ENDPOINT}", plain_line(error), "Check the connection, and repeat it.")
