"""What a lost person is told where a server cannot be reached, is not trusted, or answers nothing of use."""

import datetime
import http.server
import os
import re
import socket
import ssl
import subprocess
import sys
import threading

import pytest

from stackcls import fetching, sources
from stackcls.errors import SourceAway, SourceError, SourceMissing, UnreadableFile
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.urls import Url, place
from tests.serving import HOST

QUICK = Limits(read_tries=2, read_seconds=20)


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers as the first part of a path says."""

    def log_message(self, *_):
        return

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind.isdecimal():
            self.send_error(int(kind))
            return
        self.send_response(302 if kind == "circle" else 200)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "1000" if kind == "cut" else "5")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"hello")


def certificate(folder, name):
    """A key and a certificate that nobody signed."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain)
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """The file of a certificate that nobody trusts."""
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def servers(certified):
    """A server of plain answers, one with a certificate of its own, and a port where nothing listens."""
    pytest.importorskip("aiohttp")
    plain, secure = (http.server.ThreadingHTTPServer((HOST, 0), Answering) for _ in range(2))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    secure.handle_error = lambda *_: None  # the handshake that a client gives up
    for server in (plain, secure):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        yield {
            "plain": f"{HOST}:{plain.server_port}",
            "secure": f"localhost:{secure.server_port}",
            "silent": f"{HOST}:{silent.getsockname()[1]}",
        }
    for server in (plain, secure):
        server.shutdown()
        server.server_close()


@pytest.fixture
def addresses(servers, patient):
    """Where they are, for clients that try again at once."""
    return servers


def told(kind, url):
    """What is said of an image, of a folder and of a manifest there."""
    said = []
    for act in (
        lambda: RemoteFile(Url(f"{url}a.png?sig=SECRET")).read("a.png", QUICK),
        lambda: sources.scan(place(f"{url}?token=SECRET"), QUICK),
        lambda: sources.scan(place(f"{url}m.csv?token=SECRET"), QUICK),
    ):
        with pytest.raises(kind) as caught:
            act()
        said.append(str(caught.value))
    assert "SECRET" not in "".join(said)
    assert "ssl" not in "".join(said)
    return said


@pytest.mark.parametrize(
    ("url", "kind", "reason"),
    [
        ("http://silent/x/", SourceAway, r"is not answered \(nothing listens there \({silent}\); 2 tries\): check the"),
        ("http://no-such.invalid/x/", SourceAway, r"\(no host of that name is known \(no-such.invalid:80\); 2 tries"),
        ("https://plain/x/", SourceError, r"it does not speak TLS \({plain}\)\): check the address, http:// or https"),
        ("https://secure/x/", SourceError, r"not trusted: self-signed certificate \({secure}\)\).*\(SSL_CERT_FILE\)"),
        ("http://secure/x/", SourceAway, "the connection breaks off|the answer breaks off"),
        ("http://plain/cut/", SourceAway, r"is not answered \(the answer breaks off; 2 tries\)"),
        ("http://plain/500/", SourceAway, r"is not answered \(the server answers 500; 2 tries\)"),
        ("http://plain/401/", SourceError, r"the server answers 401\): give credentials \(https://user:password@host"),
    ],
)
def test_what_is_told_of_a_server_and_so_of_all_its_files(addresses, monkeypatch, url, kind, reason):
    look_up = socket.getaddrinfo

    def looked_up(host, *others, **named):
        if host == "no-such.invalid":  # no test asks the network
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *others, **named)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    for name, address in addresses.items():
        url = url.replace(f"//{name}/", f"//{address}/")
    for said in told(kind, url):
        assert said.startswith(f"images: {url}")
        assert re.search(reason.format(**addresses), said)


@pytest.mark.parametrize(
    ("path", "image", "folder"),
    [
        (
            "403",
            r"a.png: cannot be read \(the server answers 403\)",
            "let it be read .*credentials.*or give another folder",
        ),
        ("404", "a.png: file not found", "file not found; give another folder or manifest"),
        ("circle", "it sends from one address to the next without end", "without end.*give another folder"),
    ],
)
def test_what_is_told_of_one_file(addresses, path, image, folder):
    url = f"http://{addresses['plain']}/{path}/"
    one, *others = told((UnreadableFile, SourceMissing), url)
    assert re.match(image, one) or path == "circle"
    assert re.search(image, one)
    for said in others:
        assert said.startswith(f"images: {url}")
        assert re.search(folder, said)


def test_a_page_without_links_is_told_from_an_empty_folder(addresses):
    with pytest.raises(SourceMissing, match="its page has no links to images or folders below it"):
        sources.scan(place(f"http://{addresses['plain']}/x/"), QUICK)


def test_a_certificate_that_is_trusted_by_name(addresses, certified):
    code = "import sys; from stackcls.remote import *; print(RemoteFile(Url(sys.argv[1])).read('x', Limits()))"
    environment = {**os.environ, "SSL_CERT_FILE": str(certified)}
    ran = [sys.executable, "-c", code, f"https://{addresses['secure']}/x/a.png"]
    assert subprocess.run(ran, env=environment, capture_output=True, check=True).stdout == b"b'hello'\n"


@pytest.fixture
def bucket_at(monkeypatch, tmp_path):
    """Point the clients of buckets elsewhere."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "VERY-SECRET")
    for name in ("AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CLOUDSDK_CONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("NO_GCE_CHECK", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def point(url):
        for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
            monkeypatch.setenv(name, url)

    return point


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize(
    ("url", "kind", "reason"),
    [
        ("http://silent", SourceAway, r"nothing listens there \({silent}\); 2 tries"),
        ("https://plain", SourceError, r"it does not speak TLS \({plain}\)"),
        (
            "https://secure",
            SourceError,
            r"self-signed certificate.*\((AWS_CA_BUNDLE|SSL_CERT_FILE and REQUESTS_CA_BUNDLE)\)",
        ),
        ("http://plain/cut", SourceAway, r"the (answer|connection) breaks off; 2 tries"),
        ("http://plain/401", SourceError, "give credentials .*(AWS_PROFILE|GOOGLE_APPLICATION_CREDENTIALS)"),
        ("http://plain/403", SourceMissing, "answers 403.*let it be read .*credentials"),
        ("http://plain/404", SourceMissing, "file not found"),
    ],
)
def test_what_is_told_of_a_bucket(addresses, bucket_at, scheme, url, kind, reason):
    pytest.importorskip("s3fs" if scheme == "s3" else "gcsfs")
    for name, address in addresses.items():
        url = url.replace(f"//{name}", f"//{address}")
    bucket_at(url)
    with pytest.raises(kind, match=reason.format(**addresses)) as caught:
        sources.scan(place(f"{scheme}://bucket/m.csv"), QUICK)
    assert str(caught.value).startswith(f"images: {scheme}://bucket/m.csv")
    assert "VERY-SECRET" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_is_not_there_is_called_one(addresses, bucket_at, scheme):
    pytest.importorskip("s3fs" if scheme == "s3" else "gcsfs")
    bucket_at(f"http://{addresses['plain']}/404")
    with pytest.raises(SourceMissing, match=f"images: {scheme}://bucket/x: there is no such bucket; check its name"):
        sources.scan(place(f"{scheme}://bucket/x"), QUICK)


def test_who_gives_no_credentials_is_told_how(addresses, bucket_at, monkeypatch):
    pytest.importorskip("s3fs")
    bucket_at(f"http://{addresses['plain']}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(SourceError, match=r"Unable to locate credentials\): give credentials \(AWS_PROFILE"):
        sources.scan(place("s3://bucket/x"), QUICK)


def test_a_file_of_credentials_that_is_not_there_is_named(addresses, bucket_at, monkeypatch):
    pytest.importorskip("gcsfs")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such\x1b.json")
    with pytest.raises(
        SourceError, match=r"GOOGLE_APPLICATION_CREDENTIALS: there is no file /no/such\\x1b\.json; name"
    ):
        sources.scan(place("gs://bucket/x"), QUICK)


def test_a_library_that_tries_by_itself_is_asked_less_often(patient):
    asked = []

    def ask():
        asked.append(1)
        raise ConnectionResetError

    for tries, wanted, said in ((1, 1, 6), (6, 1, 6), (7, 2, 12), (13, 3, 18)):
        asked.clear()
        with pytest.raises(SourceAway, match=f"the connection breaks off; {said} tries"):
            fetching.trying(ask, Url("s3://b/x"), "x", Limits(read_tries=tries), each=6)
        assert len(asked) == wanted
