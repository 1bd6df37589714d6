"""Servers of images on loopback: one that speaks S3, one of files; both can be told to fail."""

import functools
import http.server
import logging
import socket
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from stackcls import fetching

logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request

HOST = "127.0.0.1"
SLOW = 0.2


@dataclass
class Trouble:
    """What goes wrong with requests for single files.

    Attributes
    ----------
    kinds : list of str
        One after the other for each file: `500`, `503`, `429`, `reset`, `cut`, `slow`; then all is well.
    always : dict of str to str
        By the end of a path, what goes wrong with it every time.
    after : int, optional
        After so many answers, nothing but `down`.
    """

    kinds: list[str] = field(default_factory=list)
    always: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    down: str = "500"
    requests: Counter = field(default_factory=Counter)
    answered: int = 0

    def next(self, path: str) -> str | None:
        number, self.requests[path] = self.requests[path], self.requests[path] + 1
        if self.after is not None and self.answered >= self.after:
            return self.down
        kind = next((kind for end, kind in self.always.items() if path.endswith(end)), None)
        if kind is None and number < len(self.kinds):
            kind = self.kinds[number]
        self.answered += kind in (None, "slow")
        return kind


@pytest.fixture
def patient(monkeypatch):
    """Tries follow each other at once, and every test makes its own connections."""
    monkeypatch.setattr(fetching, "PAUSE", 0.01)
    monkeypatch.setattr(fetching, "_opened", {})


class Filled:
    """What all kinds of buckets do; each has a `name` and a way to `put` an object."""

    scheme: str

    def fill(self, folder: Path, prefix: str = "photos") -> str:
        """Put all files below a folder there, and return their URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.scheme}://{self.name}/{prefix}"


@dataclass
class Bucket(Filled):
    """A bucket of a server that speaks S3."""

    name: str
    client: object
    trouble: Trouble
    listing: Trouble
    scheme = "s3"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)


def _told(kind):
    """What S3 answers where something fails: a type and a body."""
    code = {"503": "SlowDown", "403": "AccessDenied", "400": "ExpiredToken"}.get(kind, "InternalError")
    return "application/xml", f"<Error><Code>{code}</Code><Message>said the test</Message></Error>"


def failing(app, trouble, concerns, told=_told):
    """Let a WSGI application fail where paths are asked for that this concerns."""

    def answer(environ, start_response):
        path = environ["PATH_INFO"]
        kind = trouble.next(path) if environ["REQUEST_METHOD"] == "GET" and concerns(path) else None
        if kind == "slow":
            time.sleep(SLOW)
        if kind in (None, "slow"):
            return app(environ, start_response)
        if kind == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if kind == "cut":
            start_response("200 OK", [("Content-Length", "1000")])
            return [b"too little"]
        form, body = told(kind)
        start_response(f"{kind} Told", [("Content-Length", str(len(body))), ("Content-Type", form)])
        return [body.encode()]

    return answer


@pytest.fixture(scope="session")
def s3_server():
    """Moto behind a door that can fail; its address, and what goes wrong with objects, and with their listing."""
    pytest.importorskip("s3fs")
    werkzeug_app = pytest.importorskip("moto.moto_server.werkzeug_app")
    from werkzeug.serving import make_server

    trouble, listing = Trouble(), Trouble()
    app = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
    app = failing(failing(app, trouble, lambda path: path.count("/") > 1), listing, lambda path: path.count("/") == 1)
    server = make_server(HOST, 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{HOST}:{server.port}", trouble, listing
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bucket(s3_server, monkeypatch, patient):
    """A bucket of its own for each test."""
    import boto3

    url, trouble, listing = s3_server
    trouble.__init__()
    listing.__init__()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return Bucket(name, client, trouble, listing)


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files as Python serves them, and pieces of them where `pieces` is set."""

    pieces = False
    trouble = Trouble()
    asked: ClassVar[list[str]] = []

    def log_message(self, *_):
        return

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.asked.append(self.path)
        kind = None if not Path(path).suffix else self.trouble.next(path)
        if kind == "slow":
            time.sleep(SLOW)
        elif kind == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        elif kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"too little")
            return
        elif kind is not None:
            self.send_error(int(kind))
            return
        asked = self.headers.get("Range")
        if asked and self.pieces:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            data = Path(self.translate_path(self.path)).read_bytes()[int(first) : int(last) + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        super().do_GET()


@dataclass
class Served:
    """A folder that a server shows."""

    url: str
    handler: type[_Files]

    @property
    def trouble(self) -> Trouble:
        return self.handler.trouble

    @property
    def asked(self) -> list[str]:
        return self.handler.asked


@pytest.fixture
def served(tmp_path, patient):
    """The test's own folder, served as files."""
    pytest.importorskip("aiohttp")
    handler = type("Handler", (_Files,), {"trouble": Trouble(), "asked": []})
    server = http.server.ThreadingHTTPServer((HOST, 0), functools.partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Served(f"http://{HOST}:{server.server_port}", handler)
    server.shutdown()
    thread.join()
    server.server_close()
