"""Files at a URL (s3://, gs://, hf://, https://, memory://, ...), by fsspec: listed, read, fetched for a while, and written.

What fails in passing is tried again a few times, which is said once. What stays wrong is one line that names the file. A whole
file is fetched into a folder of the cache that lives as long as the command, and makes way for others when there are many.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from filelock import FileLock

from distillscope import progress
from distillscope.errors import UserError
from distillscope.files.folders import cache_root
from distillscope.files.writing import is_alive

T = TypeVar("T")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""How a URL begins -> the extra of this package that reads it; others need none, or a package that fsspec names."""
TRIES = 5
WAIT_SECONDS = 0.5
"""Before the second try; before each later one twice as long."""
SHARDS = (".tar", ".parquet")
"""What ends so is one file, and not looked into as a folder: some stores cannot list."""
FETCHED_BYTES = 8 * 2**30
"""Fetched files that are kept at once; the one that is read is, whatever its size."""
OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"retries": {"max_attempts": 1}}}}
"""Tries are counted here alone."""
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "mtime", "created")
"""What stores call that which changes with a file's content, in their listings."""
WITH_FOLDERS = ("file", "local", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs")
"""Where a folder must be made before a file is written; buckets are not made unasked."""
_told = multiprocessing.RawValue("b", False)  # shared with worker processes


def is_url(text: object) -> bool:
    """Whether a name is a URL, and no path.

    >>> is_url("s3://bucket/photos"), is_url("photos"), is_url("c:/photos")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(text)) is not None


@dataclass(frozen=True, order=True)
class RemoteFile:
    """One file at a URL, of ``size`` bytes where its listing says so. It has a path's ``name``, ``stem`` and ``suffix``.

    ``version`` is its store's ETag, or when it was last written, where the listing has either.
    """

    url: str
    size: int | None = None
    version: str = ""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.split("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def state(self) -> str | None:
        """Another one, another content; None where the store says nothing of it."""
        return None if self.size is None else f"{self.size}:{self.version}"

    def read(self) -> bytes:
        """Its content."""
        return _tried(self.url, lambda: self._whole(_system(self.url).cat_file(self.url)))

    def open(self) -> Any:
        """To read parts of it, where its store allows that; errors are those of fsspec."""
        return _system(self.url).open(self.url, "rb")

    def part(self, read: Callable[[Any], T]) -> T:
        """What ``read`` makes of the opened file."""
        def opened() -> T:
            with self.open() as file:
                return read(file)

        return _tried(self.url, opened)

    def _whole(self, content: bytes) -> bytes:
        _check_size(self, len(content))
        return content


class _Cut(OSError):
    """Fewer bytes, or more, than a listing says."""


def _check_size(file: RemoteFile, found: int) -> None:
    if file.size is not None and found != file.size:
        raise _Cut(f"{found:,} bytes, where the listing says {file.size:,}")


def listed(url: str, *, may_be_absent: bool = False) -> dict[str, RemoteFile]:
    """Every file below a URL by its relative name, in their order; the file itself where the URL is one's.

    ``{0000..0099}`` stands for those numbers, for stores that do not list. With ``may_be_absent`` there may be none.
    """
    if (expanded := _expanded(url)) != [url]:
        return {RemoteFile(u).name: RemoteFile(u) for u in expanded}

    def found() -> dict[str, RemoteFile]:
        system = _system(url)
        system.invalidate_cache()
        if RemoteFile(url).suffix.lower() in SHARDS and (info := system.info(url))["type"] == "file":
            return {RemoteFile(url).name: _file(url, info)}
        root = system._strip_protocol(url).rstrip("/")
        files: dict[str, RemoteFile] = {}
        try:
            there = system.find(root, detail=True)
        except FileNotFoundError:
            if may_be_absent:
                return files
            raise
        for path, info in sorted(there.items()):
            inner = path.removeprefix(root).lstrip("/") or path.rpartition("/")[2]
            if ".." in inner.split("/"):  # a copy of it would lie outside its folder
                raise UserError(url, "files with names that stay below it", f"'{inner}'", "Delete or rename that one.")
            files[inner] = _file(url if path == root else f"{url.rstrip('/')}/{inner}", info)
        return files

    return _tried(url, found)


def _file(url: str, info: Mapping[str, Any]) -> RemoteFile:
    version = next((info[key] for key in VERSIONS if info.get(key)), "")
    return RemoteFile(url, info.get("size"), str(version))


def _expanded(url: str) -> list[str]:
    """
    >>> _expanded("https://host/train-{08..10}.tar")[1:]
    ['https://host/train-09.tar', 'https://host/train-10.tar']
    """
    found = re.search(r"\{(\d+)\.\.(\d+)\}", url)
    if found is None:
        return [url]
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [rest for n in numbers for rest in _expanded(f"{url[:found.start()]}{n:0{len(found[1])}d}{url[found.end():]}")]


def _system(url: str) -> Any:
    """The file system of this process for a URL; fsspec keeps it."""
    import fsspec

    protocol = url.partition("://")[0].lower()
    try:
        return fsspec.filesystem(protocol, **OPTIONS.get(protocol, {}))
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        todo = f"pip install 'distillscope[{extra}]'" if extra else f"{str(error).rstrip('.')}."
        raise UserError(url, f"what reads {protocol}://", "an installation without it", todo) from None
    except ValueError:
        raise UserError(url, f"a URL that fsspec reads, as {', '.join(f'{p}://' for p in (*EXTRAS, 'hf'))}", f"{protocol}://",
                        "Check how it begins.") from None


def _tried(url: str, call: Callable[[], T]) -> T:
    """What ``call`` gives, tried `TRIES` times where the store fails in passing."""
    for attempt in range(TRIES):
        try:
            return call()
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(url, "a file or folder that is there", "none, or none any more",
                            "Check the URL, or restore it and repeat: what was finished is kept.") from None
        except Exception as error:  # each store raises its own
            if _is_refusal(error):
                raise UserError(url, "a store that lets you in", _line(error),
                                "Set the credentials of the store (for S3: AWS_PROFILE, or "
                                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY).") from None
            if attempt == TRIES - 1:
                expected = "the whole file" if isinstance(error, _Cut) else "an answer"
                todo = "Upload it again" if isinstance(error, _Cut) else "See whether the store is up"
                raise UserError(url, expected, f"{_line(error)} ({TRIES} tries)",
                                f"{todo}, and repeat: what was finished is kept.") from None
            if not _told.value:
                _told.value = True
                progress.say(f"{url}: {_line(error)}; retrying, as for any later failure, up to {TRIES} times")
            time.sleep(WAIT_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _is_refusal(error: Exception) -> bool:
    """Whether the store wants other credentials than it was given, or some."""
    named = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "GatedRepoError"}
    refused = getattr(error, "status", None) in (401, 403)
    return isinstance(error, PermissionError) or refused or bool(named & {type(error).__name__, type(error.__cause__).__name__})


def _line(error: Exception) -> str:
    return f"{type(error).__name__.lstrip('_')}: {' '.join(str(error).split())[:160]}".rstrip(": .")


_folders: list[Path] = []


def fetch_folder() -> Path:
    """Where this command, with its worker processes, keeps what it fetches. It is gone when the command ends."""
    if not _folders:
        place = cache_root() / "fetched"
        place.mkdir(parents=True, exist_ok=True)
        for left in place.glob("*-*"):
            pid = left.name.partition("-")[0]
            if pid.isdecimal() and not is_alive(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=place))
        _folders.append(folder)
        owner = os.getpid()
        atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return _folders[0]


@contextlib.contextmanager
def opened(file: Path | RemoteFile) -> Iterator[IO[bytes]]:
    """A file to read from anywhere in it; one at a URL is fetched first, unless it still lies here."""
    with open(file, "rb") if isinstance(file, Path) else _open_fetched(file) as handle:
        yield handle


def _open_fetched(file: RemoteFile) -> IO[bytes]:
    while True:
        path = fetched(file)
        try:
            handle = open(path, "rb")  # noqa: SIM115  whoever asked closes it
        except FileNotFoundError:  # another process made room
            continue
        with contextlib.suppress(OSError):
            os.utime(path)
        return handle


def fetched(file: RemoteFile) -> Path:
    """A local copy, made once by whichever process needs it first; older ones make room for it."""
    folder = fetch_folder()
    path = folder / (hashlib.blake2b(f"{file.url} {file.size}".encode(), digest_size=12).hexdigest() + file.suffix)
    if path.is_file():
        return path
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            part = path.with_name(f"{path.name}.part")
            _tried(file.url, lambda: _get(file, part))
            _make_room(folder, part.stat().st_size)
            os.replace(part, path)
    return path


def _get(file: RemoteFile, to: Path) -> None:
    to.unlink(missing_ok=True)
    _system(file.url).get_file(file.url, str(to))
    _check_size(file, to.stat().st_size)


def _make_room(folder: Path, needed: int) -> None:
    """Remove those that were read longest ago, until ``needed`` bytes fit below the limit."""
    there = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.suffix not in (".lock", ".part"):
                there.append((path.stat().st_mtime, path.stat().st_size, path))
    total = needed + sum(size for _, size, _ in there)
    for _, size, path in sorted(there):
        if total <= FETCHED_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size


def local_copy(url: str) -> Path:
    """The file or folder at a URL, copied whole; it is gone when the command ends."""
    there = listed(url)
    place = fetch_folder() / "copies" / hashlib.blake2b(url.encode(), digest_size=6).hexdigest()
    top = place / url.rstrip("/").rpartition("/")[2]
    alone = [file for file in there.values() if file.url == url]
    for inner, file in there.items():
        path = top if alone else top / inner
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            _tried(file.url, lambda file=file, part=part: _get(file, part))  # type: ignore[misc]
            os.replace(part, path)
    return top


def put(path: Path, url: str) -> None:
    """Write a local file to a URL; where it is there, it is whole."""
    _tried(url, lambda: _put(path, url))


def _put(path: Path, url: str) -> None:
    system = _system(url)
    if url.partition("://")[0].lower() in WITH_FOLDERS:
        system.makedirs(url.rpartition("/")[0], exist_ok=True)
    system.put_file(str(path), url)
