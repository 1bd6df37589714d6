"""What is asked of servers, through fsspec: again where it fails for a reason that may pass."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from stackcls import answers, waiting
from stackcls.errors import SourceAway, SourceError
from stackcls.printable import counted, printable
from stackcls.settings import Limits
from stackcls.urls import Url, scrubbed

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
OWN_TRIES = 6  # that gcsfs makes of a listing's page by itself, and s3fs with botocore no fewer
PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds before the second try, and before any
FIRST = 2**20  # bytes that are read of a file before its size is asked for, or waited for
T = TypeVar("T")

_opened: dict[tuple[int, str, bool, str], Any] = {}  # by process, since a connection does not outlive a fork
_opening = threading.Lock()


class TooLarge(Exception):
    """Ends reading what is longer than it may be."""


def trying(action: Callable[[], T], url: Url, name: str, limits: Limits, each: int = 1) -> T:
    """Do what needs a server, again where it failed for a reason that may pass; raises as `RemoteFile.read`.

    `each` is how often the action tries by itself.
    """
    for attempt in range(each, limits.read_tries + each, each):
        try:
            return action()
        except (TooLarge, SourceError, TypeError, AttributeError, NameError):
            raise
        except Exception as error:  # noqa: BLE001  (each file system has errors of its own, many of them no OSError)
            if (refusal := answers.refusal(error, url, name)) is not None:
                raise refusal from None
            if attempt >= limits.read_tries:
                why = f"{answers.reason(error, url)}; {counted(attempt, 'try', 'tries')}"
                raise SourceAway(
                    f"images: {url} is not answered ({why}): "
                    "check the address and the network; run the same command again when it is answered, or raise "
                    "features.read_tries or features.read_seconds"
                ) from None
            tries = f"{min(attempt + each, limits.read_tries)} of {counted(limits.read_tries, 'try', 'tries')}"
            waiting.tell("server", f"{url} is not answered ({answers.reason(error, url)}): trying again, {tries}")
        # Not all at the same moment, which is what a busy server suffers from.
        time.sleep(min(PAUSE * 2 ** (attempt // each - 1), LONGEST_PAUSE) * random.uniform(0.5, 1))  # noqa: S311
    raise AssertionError("at least one try is made")


def fetch(url: Url, start: int, end: int, seconds: float) -> bytes:
    """Read a piece of a file, or what there is of it."""
    from fsspec.asyn import AsyncFileSystem, sync

    system = file_system(url)
    path = system._strip_protocol(url.text)
    if url.is_http:
        data: bytes = sync(system.loop, _http_piece, system, path, start, end, timeout=seconds)
        return data
    try:
        if isinstance(system, AsyncFileSystem):
            data = sync(system.loop, system._cat_file, path, start=start, end=end, timeout=seconds)
        else:
            data = system.cat_file(path, start=start, end=end)
    except Exception as error:
        if start == 0 and 416 in answers.statuses(error):  # of an empty file no piece can be had
            return b""
        raise
    return data


def fetch_whole(url: Url, most: int, seconds: float, admit: Callable[[int], None]) -> bytes:
    """Read a file; `admit` is told its size before more of it than the beginning is read, and may wait.

    Raises
    ------
    TooLarge
        If it has more than `most` bytes.
    """
    if url.is_http:
        return _http_whole(url, most, seconds, admit)
    data = fetch(url, 0, FIRST, seconds)
    if len(data) < FIRST:
        admit(len(data))
        return data
    if (size := size_of(url)) > most:
        raise TooLarge
    admit(size)
    # From the beginning again, since two pieces could be of two versions.
    return fetch(url, 0, size, seconds)


def size_of(url: Url) -> int:
    """Length of a file in bytes."""
    system = file_system(url)
    return int(system.info(system._strip_protocol(url.text))["size"] or 0)


async def _answer(system: Any, url: str, asked: Mapping[str, str]) -> Any:
    """What a web server answers, of which the beginning was read; the file as it is, not packed."""
    session = await system.set_session()
    headers = {"Accept-Encoding": "identity", **system.kwargs.get("headers", {}), **asked}
    response = await session.get(system.encode_url(url), **{**system.kwargs, "headers": headers})
    try:
        system._raise_not_found_for_status(response, url)
    except BaseException:
        response.close()
        raise
    return response


async def _read(response: Any, count: int) -> bytes:
    parts = []
    while count > 0 and (part := await response.content.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


async def _http_piece(system: Any, url: str, start: int, end: int) -> bytes:
    """Read from a server that may know no pieces: then from the beginning, and no more than is wanted."""
    if end <= start:  # for which there is no header
        return b""
    response = await _answer(system, url, {"Range": f"bytes={start}-{end - 1}"})
    try:
        if start and response.status != 206:
            raise SourceError(
                f"images: {Url(url)} is on a server that gives no pieces of files, which shards need; copy it to "
                "a local folder, or unpack it there"
            )
        return await _read(response, end - start)
    finally:
        response.close()


def _http_whole(url: Url, most: int, seconds: float, admit: Callable[[int], None]) -> bytes:
    from fsspec.asyn import sync

    system = file_system(url)
    began = time.monotonic()
    response = sync(system.loop, _answer, system, url.text, {}, timeout=seconds)
    try:
        size = most if "Content-Encoding" in response.headers else response.content_length
        if (size or 0) > most:
            raise TooLarge
        data: bytes = sync(system.loop, _read, response, FIRST, timeout=_left(seconds, began))
        if len(data) < FIRST:
            admit(len(data))
            return data
        left = _left(seconds, began)
        admit(most if size is None else size)  # here, since the thread of the connections must not wait
        data += sync(system.loop, _read, response, most + 1 - FIRST, timeout=left)
    finally:
        system.loop.call_soon_threadsafe(response.close)
    if len(data) > most:
        raise TooLarge
    return data


def _left(seconds: float, began: float) -> float:
    return max(seconds - (time.monotonic() - began), 0.001)  # 0 would be for ever


def file_system(url: Url, listing: bool = False) -> Any:
    """The file system of a URL, made once in a process: its threads share connections.

    One that lists keeps its own retries, since of a thousand pages each may fail.
    """
    key = (os.getpid(), url.scheme, listing, url.query if listing else "")
    with _opening:
        if key not in _opened:
            _opened[key] = _open(url, listing)
        return _opened[key]


def _open(url: Url, listing: bool) -> Any:
    extra = EXTRAS.get(url.scheme)
    try:
        import fsspec
        from fsspec.config import conf

        options: dict[str, Any] = {}
        if extra == "s3" and not listing:
            # Retries are made here, with one policy for all; theirs would multiply.
            given = conf.get(url.scheme, {}).get("config_kwargs", {})
            options = {"config_kwargs": {**given, "retries": {"total_max_attempts": 1}}}
        if listing and url.query:  # with each page, and no part of the addresses of what it links to
            options = {"params": parse_qsl(url.query.partition("#")[0][1:], keep_blank_values=True)}
        kind = _google(listing) if extra == "gcs" else fsspec.get_filesystem_class(url.scheme)
        system = kind(skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        remedy = f"pip install 'stackcls[{extra}]'" if extra else "install the package that fsspec names"
        raise SourceError(f"images: {url} needs a package that is missing ({error}): {remedy}") from None
    except SourceError:
        raise
    except ValueError as error:
        raise SourceError(
            f"images: {url} is of no kind that can be read ({scrubbed(str(error), url)}); "
            "s3, gs, http, https and file are, and what else fsspec has a package for"
        ) from None
    if extra == "s3" and not listing:
        system.retries = 1
    return system


def _google(listing: bool) -> Any:
    """Google's file system without what gcsfs adds: it asks by gRPC, for every image, of what kind the bucket is."""
    from gcsfs.core import GCSFileSystem

    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named and not Path(named).is_file():  # gcsfs would ask as nobody, without a word
        raise SourceError(f"GOOGLE_APPLICATION_CREDENTIALS: there is no file {printable(named)}; name one, or unset it")
    logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # tracebacks of errors that are told anyway
    if not listing:
        once = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)  # without its own retries
        return type("GCSFileSystem", (GCSFileSystem,), {"_request": once})

    async def call(system: Any, method: str, path: str, *names: Any, **asked: Any) -> Any:
        if path == "b/{}/o":  # else Google says some 2 KB of each object, and gcsfs keeps them
            asked["fields"] = "kind,nextPageToken,prefixes,items(name,size)"
        return await GCSFileSystem._call(system, method, path, *names, **asked)

    return type("GCSFileSystem", (GCSFileSystem,), {"_call": call})
