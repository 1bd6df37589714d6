"""Published weights: fetched whole and verified, or refused with one clear message."""

import hashlib
import json
import socketserver
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stackcls import backbones, loading, weightfiles
from stackcls.errors import WeightsError
from stackcls.weightfiles import PUBLISHED_ROOT, Download

CONTENT = bytes(range(256)) * 9000  # more than one piece
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "vgg16_weights_notop.h5"
DOWNLOAD = Download(NAME, f"{PUBLISHED_ROOT}vgg16/{NAME}", MD5)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A mirror on this machine that knows one file, and notes what it was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.answers = [], {f"/mirror/vgg16/{NAME}": CONTENT}
        running.url = f"http://127.0.0.1:{running.server_address[1]}/mirror"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def garbage_server():
    """Something that listens and does not speak HTTP."""

    class Garbage(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1000)
            self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Garbage) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keras's cache, empty; and no proxy between the tests and their server."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "keras" / "models"


def fetch(download, base_url, timeout=5.0):
    announced, pieces = [], []

    def started(url, size):
        announced.append((url, size))
        return pieces.append

    path = weightfiles.fetch(download, base_url, timeout, started)
    return path, announced, pieces


def left(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@pytest.mark.parametrize("digest", [MD5, SHA256, ""])
def test_a_file_is_fetched_into_kerass_cache(server, cache, digest):
    path, announced, pieces = fetch(replace(DOWNLOAD, md5=digest), server.url)
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert announced == [(f"{server.url}/vgg16/{NAME}", len(CONTENT))]
    assert sum(pieces) == len(CONTENT)
    assert len(pieces) > 1
    assert left(cache) == [NAME]


@pytest.mark.parametrize("wrong", ["0" * 32, "0" * 64])
def test_another_file_is_refused_and_leaves_nothing(server, cache, wrong):
    with pytest.raises(WeightsError, match=rf"{NAME}: what came is not the file that Keras names \(checksum "):
        fetch(replace(DOWNLOAD, md5=wrong), server.url)
    assert left(cache) == []


def test_a_refused_file_leaves_the_old_one(server, cache):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b"old")
    with pytest.raises(WeightsError, match="what came is not the file"):
        fetch(replace(DOWNLOAD, md5="0" * 32), server.url)
    assert (cache / NAME).read_bytes() == b"old"


@pytest.mark.parametrize("digest", [MD5, ""])
def test_a_file_cut_short_is_refused_and_leaves_nothing(server, cache, digest):
    server.answers[f"/mirror/vgg16/{NAME}"] = CONTENT[:1000]
    with pytest.raises(WeightsError, match=rf"(only 1000 of {len(CONTENT)} bytes came|not the file that Keras names)"):
        fetch(replace(DOWNLOAD, md5=digest), server.url)
    assert left(cache) == []


def test_a_file_that_the_server_does_not_have(server, cache):
    server.answers.clear()
    with pytest.raises(
        WeightsError, match=rf"{NAME}: not in {cache}, and {server.url}/vgg16/{NAME} cannot .*Not Found"
    ):
        fetch(DOWNLOAD, server.url)
    assert left(cache) == []


def closed_port():
    with socketserver.TCPServer(("127.0.0.1", 0), None) as taken:
        return taken.server_address[1]


def test_a_server_that_is_down(cache):
    with pytest.raises(WeightsError, match=r"cannot be reached \(.*refused.*\)\. .*run `stackcls weights`"):
        fetch(DOWNLOAD, f"http://127.0.0.1:{closed_port()}")
    assert left(cache) == []


def test_a_server_that_speaks_something_else(garbage_server, cache):
    with pytest.raises(WeightsError, match=rf"{NAME}: not in .* cannot be reached \(SSH"):
        fetch(DOWNLOAD, garbage_server)
    assert left(cache) == []


def test_a_server_that_does_not_answer(cache):
    timed_out = pytest.raises(WeightsError, match=r"cannot be reached \(timed out\)")
    with socketserver.TCPServer(("127.0.0.1", 0), None) as silent, timed_out:
        fetch(DOWNLOAD, f"http://127.0.0.1:{silent.server_address[1]}", timeout=0.1)
    assert left(cache) == []


ELSEWHERE = "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5"


@pytest.mark.parametrize(
    ("origin", "base_url", "expected"),
    [
        (DOWNLOAD.origin, PUBLISHED_ROOT.rstrip("/"), DOWNLOAD.origin),
        (DOWNLOAD.origin, "http://mirror/k", f"http://mirror/k/vgg16/{NAME}"),
        (DOWNLOAD.origin, "http://mirror/k/", f"http://mirror/k/vgg16/{NAME}"),
        (ELSEWHERE, PUBLISHED_ROOT, ELSEWHERE),
        (ELSEWHERE, "http://mirror/k", f"http://mirror/k/{NAME}"),
    ],
)
def test_addresses(origin, base_url, expected):
    assert replace(DOWNLOAD, origin=origin).url(base_url) == expected


def test_the_cache_is_kerass(monkeypatch, tmp_path):
    assert weightfiles.keras_cache() == tmp_path / "keras" / "models"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weightfiles.keras_cache() == tmp_path / "home" / ".keras" / "models"


@pytest.mark.parametrize(("content", "whole"), [(None, False), (CONTENT, True), (CONTENT[:-1], False), (b"", False)])
@pytest.mark.parametrize("digest", [MD5, SHA256])
def test_only_a_whole_file_counts_as_there(cache, content, whole, digest):
    cache.mkdir(parents=True)
    if content is not None:
        (cache / NAME).write_bytes(content)
    assert weightfiles.verify(replace(DOWNLOAD, md5=digest)) == (cache / NAME if whole else None)


def test_files_are_found_by_content(tmp_path):
    for name in ("a/hint.hdf5", "b/x.h5", "b/y.keras", "b/z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def find(text, hints=("a/none", "a/hint.hdf5"), folders=("none", "b")):
        digest = hashlib.sha256(text.encode()).hexdigest()
        return weightfiles.find_by_hash(
            digest, [tmp_path / name for name in hints], [tmp_path / name for name in folders]
        )

    assert find("a/hint.hdf5") == tmp_path / "a/hint.hdf5"
    assert find("b/y.keras") == tmp_path / "b/y.keras"
    assert find("b/z.txt") is None
    assert find("other") is None


@pytest.fixture
def one_published(monkeypatch):
    """Let VGG16's published file be the one that the server has."""
    known = replace(backbones.architectures()["vgg16"], weights_url=DOWNLOAD.origin, weights_md5=MD5)
    table = {**backbones.architectures(), "vgg16": known}
    for module in (backbones, loading):
        monkeypatch.setattr(module, "architectures", lambda: table)


def options(url, backbones_text="[vgg16]"):
    return ("--set", f"weights.base_url={url}", "--set", f"features.backbones={backbones_text}")


def test_the_command_fetches_what_is_missing_once(stackcls, server, cache, one_published):
    status, out, err = stackcls("weights", *options(server.url))
    assert (status, out) == (0, f"vgg16: fetched: {cache / NAME} ({SHA256})\n")
    assert f"fetching ImageNet weights of vgg16 to {cache}" in err
    assert f"fetching {server.url}/vgg16/{NAME} ({len(CONTENT) / 1e6:.1f} MB)" in err
    assert stackcls("weights", *options(server.url))[1] == f"vgg16: there: {cache / NAME} ({SHA256})\n"
    assert stackcls("weights", "--offline", *options(server.url))[0] == 0
    assert server.asked == [f"/mirror/vgg16/{NAME}"]


def test_backbones_that_share_a_file_fetch_it_once(stackcls, server, cache, one_published):
    both = "[vgg16, {name: other, architecture: VGG16, pooling: max}]"
    status, out, _ = stackcls("weights", *options(server.url, both))
    assert status == 0
    assert [line.split(": ")[:2] for line in out.splitlines()] == [["vgg16", "fetched"], ["other", "fetched"]]
    assert len(server.asked) == 1


def test_a_damaged_file_is_fetched_again(stackcls, server, cache, one_published):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    assert stackcls("weights", *options(server.url))[1].startswith("vgg16: fetched: ")
    assert (cache / NAME).read_bytes() == CONTENT


def test_features_fetches_what_it_needs(stackcls, server, cache, one_published, photos, tmp_path, fake_engine):
    arguments = ("--images", photos, "--artifacts", tmp_path / "artifacts", *options(server.url))
    status, _, err = stackcls("features", *arguments)
    assert status == 0
    assert f"fetching {server.url}/vgg16/{NAME}" in err
    assert left(cache) == [NAME]
    assert fake_engine.computed == {"vgg16": 27}


@pytest.mark.parametrize("verb", ["weights", "features"])
@pytest.mark.parametrize("offline", [False, True])
def test_weights_that_cannot_be_had_are_one_clear_error(stackcls, cache, photos, tmp_path, fake_engine, verb, offline):
    images = ("--images", photos) if verb == "features" else ()
    flags = ("--offline",) if offline else ()
    arguments = (verb, *images, *flags, "--artifacts", tmp_path / "artifacts")
    status, out, err = stackcls(*arguments, *options(f"http://127.0.0.1:{closed_port()}"))
    assert (status, out) == (1, "")
    name = backbones.architectures()["vgg16"].weights_url.rsplit("/", 1)[1]
    (line,) = [line for line in err.splitlines() if not line.startswith("fetching ")]
    assert line.startswith(f"error: {name}: not in {cache}, and ")
    assert ("--offline forbids fetching it" if offline else "cannot be reached") in line
    assert "run `stackcls weights` with the same pipeline.yaml, and copy the file to that folder" in line
    assert left(cache) == []
    assert not (tmp_path / "artifacts").exists()


def test_the_command_refuses_another_file(stackcls, server, cache, monkeypatch):
    published = backbones.architectures()["vgg16"].weights_url
    server.answers["/mirror/" + published.removeprefix(PUBLISHED_ROOT)] = CONTENT
    status, _, err = stackcls("weights", *options(server.url))
    assert status == 1
    assert f"what came is not the file that Keras names (checksum {MD5})" in err
    assert "Traceback" not in err
    assert left(cache) == []


def test_a_weights_file_of_ones_own_is_neither_fetched_nor_needed_there(stackcls, server, tmp_path):
    (tmp_path / "own.h5").write_bytes(CONTENT)
    entry = json.dumps([{"name": "own", "architecture": "VGG16", "weights": str(tmp_path / "own.h5")}])
    assert stackcls("weights", *options(server.url, entry))[1] == f"own: there: {tmp_path / 'own.h5'} ({SHA256})\n"
    (tmp_path / "own.h5").unlink()
    status, _, err = stackcls("weights", *options(server.url, entry))
    assert (status, server.asked) == (1, [])
    assert err == f"error: features.backbones: 'own': weights {tmp_path / 'own.h5'} do not exist\n"


def test_random_weights_need_no_file(stackcls, server):
    entry = "[{name: blank, architecture: VGG16, weights: random, seed: 3}]"
    status, out, err = stackcls("weights", *options(server.url, entry))
    assert (status, out, err) == (0, "blank: there: no file needed (random, seed 3)\n", "")
    assert server.asked == []
