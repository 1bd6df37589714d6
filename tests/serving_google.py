"""A stand-in on loopback for Google Cloud Storage: as much of its JSON API as reading takes."""

import json
import threading
import uuid
from dataclasses import dataclass

import pytest

from tests.serving import HOST, Filled, Trouble, failing

PAGE = 7  # objects that a page lists at most, so that there are several
MESSAGES = {
    400: "The request is invalid.",
    401: "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.",
    403: "someone@example.com does not have storage.objects.get access to the Google Cloud Storage object.",
    404: "No such object, or the bucket does not exist.",
    416: "Request range not satisfiable",
}


@dataclass
class GoogleBucket(Filled):
    """A bucket of the stand-in."""

    name: str
    objects: dict[str, bytes]
    trouble: Trouble
    listing: Trouble
    scheme = "gs"

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def door(self, key: str) -> str:
        """What the path of a request for an object is."""
        return f"/download/storage/v1/b/{self.name}/o/{key}"


def told(kind: str) -> tuple[str, str]:
    """What Google answers where something fails: a type and a body."""
    code = int(kind)
    message = MESSAGES.get(code, "We encountered an internal error. Please try again.")
    return "application/json", json.dumps({"error": {"code": code, "message": message}})


def described(bucket: str, name: str, data: bytes, fields: str = "") -> dict[str, str]:
    """What is said of an object; of all that, what a partial answer is to have (`kind,items(name,size)`)."""
    said = {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(data)),
        "generation": "1",
        "updated": "2024-05-01T10:00:00.000Z",
        "mediaLink": f"https://storage.googleapis.com/download/storage/v1/b/{bucket}/o/{name}",
    }
    _, found, inside = fields.partition("items(")
    return {key: said[key] for key in inside.rstrip(")").split(",")} if found else said


def make_app(buckets: dict[str, dict[str, bytes]]):
    """The API: pages of a listing, what is said of an object, and its bytes or a piece of them."""
    import flask

    app = flask.Flask(__name__)
    app.url_map.merge_slashes = False

    def fail(code):
        kind, body = told(str(code))
        return flask.Response(body, code, content_type=kind)

    @app.get("/storage/v1/b/<bucket>/o")
    def listing(bucket):
        if bucket not in buckets:
            return fail(404)
        asked = flask.request.args
        prefix, start = asked.get("prefix", ""), asked.get("pageToken", "")
        names = [name for name in sorted(buckets[bucket]) if name.startswith(prefix) and name >= start]
        names, rest = names[:PAGE], names[PAGE:]
        items = [described(bucket, name, buckets[bucket][name], asked.get("fields", "")) for name in names]
        return {"kind": "storage#objects", "items": items} | ({"nextPageToken": rest[0]} if rest else {})

    @app.get("/storage/v1/b/<bucket>/o/<path:name>")
    def metadata(bucket, name):
        data = buckets.get(bucket, {}).get(name)
        return fail(404) if data is None else described(bucket, name, data)

    @app.get("/download/storage/v1/b/<bucket>/o/<path:name>")
    def media(bucket, name):
        if name not in buckets.get(bucket, {}):
            return fail(404)
        data = buckets[bucket][name]
        if (piece := flask.request.range) is None:
            return flask.Response(data, content_type="application/octet-stream")
        start, end = piece.ranges[0]
        if start >= len(data):  # and so for every piece of an empty object
            return fail(416)
        return flask.Response(data[start:end], 206, content_type="application/octet-stream")

    return app


@pytest.fixture(scope="session")
def google_server():
    """The stand-in behind a door that can fail; its address, its buckets, and what goes wrong, also with listing."""
    pytest.importorskip("gcsfs")
    from werkzeug.serving import make_server

    trouble, listing, buckets = Trouble(), Trouble(), {}
    app = failing(make_app(buckets), trouble, lambda path: path.startswith("/download/"), told)
    app = failing(app, listing, lambda path: path.startswith("/storage/") and path.endswith("/o"), told)
    server = make_server(HOST, 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{HOST}:{server.port}", buckets, trouble, listing
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def google_bucket(google_server, monkeypatch, patient, tmp_path_factory):
    """A bucket of its own for each test, for whoever asks; nobody's credentials are looked for."""
    url, buckets, trouble, listing = google_server
    trouble.__init__()
    listing.__init__()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path_factory.mktemp("no-credentials")))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    buckets[name] = {}
    return GoogleBucket(name, buckets[name], trouble, listing)
