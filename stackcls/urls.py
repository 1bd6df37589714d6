"""Addresses of images that are no local paths, and how they may be shown: without passwords and signatures."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from urllib.request import url2pathname

from stackcls.errors import SourceError
from stackcls.section import shown

_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::[A-Za-z]|::[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")  # and its port
_ANYWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_OF_ONE_FILE = ("X-Amz-Signature", "X-Goog-Signature", "AWSAccessKeyId", "GoogleAccessId")


@dataclass(frozen=True, slots=True)
class Url:
    """An address of a file or a folder somewhere else; written out, it has neither password nor query.

    Attributes
    ----------
    text : str
        As given, with all that is secret in it.
    """

    text: str = field(repr=False)

    def __str__(self) -> str:
        """What may be shown and stored."""
        return cleaned(self.text)

    def __truediv__(self, path: str) -> "Url":
        """The address of what lies at a relative path, whatever characters that has; asked for with the same query."""
        return Url(f"{self.folder}{quote(path)}{self.query}" if self.is_http else f"{self.folder}{path}")

    @property
    def scheme(self) -> str:
        """What says how it is reached, in lower case."""
        return self.text.partition("://")[0].lower()

    @property
    def query(self) -> str:
        """What follows its path, such as a signature, with the mark before it; secret."""
        return self.text[len(self._path) :]

    @property
    def user(self) -> str:
        """User and password in it, with the mark behind them; secret."""
        return _parts(self.text)[1]

    @property
    def is_http(self) -> bool:
        """Whether names in it are written with escapes."""
        return self.scheme in ("http", "https")

    @property
    def name(self) -> str:
        """Last part of its path."""
        return PurePosixPath(self._path).name

    @property
    def folder(self) -> str:
        """It as the address of a folder, with a slash at its end and without a query."""
        return f"{self._path.rstrip('/')}/"

    @property
    def parent(self) -> "Url":
        """The folder that it lies in, asked for with the same query."""
        return Url(self._path.rstrip("/").rpartition("/")[0] + self.query)

    @property
    def alone(self) -> str | None:
        """What in its query is a signature of this one file, so that nothing beside it can be asked for with it."""
        asked = {name.lower(): value for name, value in parse_qsl(self.query[1:], keep_blank_values=True)}
        if asked.get("sr") == "b":  # of Azure, where c and d are good for a container and a directory
            return "sr=b"
        if "key-pair-id" in asked and "policy" not in asked:  # of CloudFront, where a policy may name a folder
            return "Key-Pair-Id"
        return next((name for name in _OF_ONE_FILE if name.lower() in asked), None)

    @property
    def _path(self) -> str:
        return re.split("[?#]", self.text)[0] if self.is_http else self.text

    def relative(self, found: str) -> str:
        """Path, without escapes, of an address below this one."""
        path = Url(found)._path.removeprefix(self.folder)
        return unquote(path) if self.is_http else path

    def as_posix(self) -> str:
        """What may be stored: as a path's."""
        return str(self)


Place = Path | Url


def is_url(text: str) -> bool:
    """Tell an address from a path."""
    return _SCHEME.match(text) is not None


def place(value: object) -> Place:
    """Read what a user names: `file://` is a path, and so is all that is no URL.

    Raises
    ------
    SourceError
        If it is neither; the message does not repeat what may be secret.
    """
    if isinstance(value, Path | Url):
        return value
    if not isinstance(value, str):
        raise SourceError(f"{scrubbed(shown(value))} does not do: a path or a URL is needed")
    if not is_url(value):
        return Path(value)
    if value.lower().startswith("file://"):
        return Path(url2pathname(urlsplit(value).path))
    if _CHAIN.search(value):
        raise SourceError("is a URL within a URL (::), which is not supported; give one of s3, gs, http, https or file")
    return Url(value)


def cleaned(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    scheme, _, rest = _parts(url)
    return f"{scheme}://{re.split('[?#]', rest)[0]}"


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, user and password, and the rest of a URL, also where the password has what should have been escaped."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest)[0]
    if "@" not in authority and not _HOST.fullmatch(authority):
        authority = rest  # the part of a password before a /, ? or #
    user, at, _ = authority.rpartition("@")
    return scheme, user + at, rest[len(user + at) :]


def scrubbed(text: str, url: Url | None = None) -> str:
    """Clean all URLs within a text, such as another library's message; of the one given also what is no proper URL."""
    if url is not None:
        text = text.replace(url.text, str(url))
        for secret in filter(None, (url.user, url.query)):
            text = text.replace(secret, "")
    return _ANYWHERE.sub(lambda match: cleaned(match[0]), text)
