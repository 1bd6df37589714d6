"""What errors of other libraries say of a server's answer, and whose fault it is."""

import json
import socket
import ssl
from collections.abc import Iterator

from stackcls.errors import FileMissing, SourceError, SourceMissing, UnreadableFile
from stackcls.printable import printable
from stackcls.urls import Url, scrubbed

PASSING = frozenset({408, 425, 429})
# What a service says when it does not know who asks: of no single file, and no wait mends it.
NOT_KNOWN = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
# What asks for patience whatever the status beside it: botocore's transient and throttling errors.
BUSY = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "InternalError",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
# What is wrong with the bucket, or the way there, and so with every file in it.
NO_WAY = frozenset(
    {
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "InvalidBucketName",
        "NoSuchBucket",
        "PermanentRedirect",
    }
)
# All that gcsfs keeps of two answers is how its messages begin.
TOLD_BY_GOOGLE = {"Forbidden: ": 403, "Bad Request: ": 400}
# Errors of aiohttp and botocore about what could not even be asked for.
NOT_ASKED = frozenset({"InvalidURL", "InvalidUrlClientError", "ParamValidationError", "TooManyRedirects"})
# What else aiohttp and botocore call by a name.
WORDS = {
    "ClientPayloadError": "the answer breaks off",
    "IncompleteReadError": "the answer breaks off",
    "ResponseStreamingError": "the answer breaks off",
    "ServerDisconnectedError": "the connection breaks off",
    "TooManyRedirects": "it sends from one address to the next without end",
}
NO_TLS = frozenset({"HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "WRONG_VERSION_NUMBER"})
# How each kind of service learns who asks, and where certificates are looked for.
WHO = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
    """for a public bucket FSSPEC_S3='{"anon": true}'""",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "http": "https://user:password@host/..., or headers in FSSPEC_HTTP and FSSPEC_HTTPS",
}
CERTIFICATES = {"s3": "AWS_CA_BUNDLE", "gs": "SSL_CERT_FILE and REQUESTS_CA_BUNDLE", "http": "SSL_CERT_FILE"}
SERVICES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it; aiohttp and botocore keep some of that in attributes."""
    while error is not None:
        yield error
        kept = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        error = error.__cause__ or error.__context__ or (kept if isinstance(kept, BaseException) else None)


def statuses(error: BaseException) -> Iterator[int]:
    """What a server answered, as aiohttp, botocore and gcsfs say it."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        told = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        # Elsewhere a code is none of the server's: aiohttp gives one to answers that break off.
        code = getattr(one, "code", None) if type(one).__module__.startswith("gcsfs") else None
        for value in (told, getattr(one, "status", None), code):
            if isinstance(value, int) and 100 <= value <= 599:
                yield value
        said = str(one) if isinstance(one, OSError | ValueError) else ""
        if status := next((status for start, status in TOLD_BY_GOOGLE.items() if said.startswith(start)), None):
            yield 429 if "rate limit" in said.lower() else status


def codes(error: BaseException) -> Iterator[str]:
    """What a service that speaks S3 calls it, without the part's name (`KMS.ThrottlingException`)."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if isinstance(code, str):
            yield code.rpartition(".")[2]


def nobody(error: BaseException) -> bool:
    """Whether the server does not know who asks."""
    names = {type(one).__name__ for one in _causes(error)}
    return bool(NOT_KNOWN & {*names, *codes(error)}) or 401 in statuses(error)


def is_missing(error: BaseException) -> bool:
    """Whether there is no such file; fsspec says so of some servers too that do not answer."""
    status = next(statuses(error), 404)
    reached = all(isinstance(one, FileNotFoundError) or not isinstance(one, OSError) for one in _causes(error))
    return isinstance(error, FileNotFoundError) and status == 404 and reached


def is_final(error: BaseException) -> bool:
    """Whether it is this file that cannot be read, now or later."""
    if any(code in BUSY for code in codes(error)):
        return False
    status = next(statuses(error), None)
    if status is not None:
        return 400 <= status < 500 and status not in PASSING
    return isinstance(error, PermissionError | IsADirectoryError) or type(error).__name__ in NOT_ASKED


def reason(error: BaseException, url: Url) -> str:
    """Say what went wrong, without what is secret in the address."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if (status := next(statuses(error), None)) is not None:
        return f"the server answers {status}"
    return _way_there(error) or printable(scrubbed(str(error), url).strip()) or type(error).__name__


def _untrusted(error: BaseException) -> str | None:
    """What is wrong with a server's certificate."""
    said = (getattr(one, "verify_message", None) for one in _causes(error))
    return next((printable(str(one)) for one in said if one), None)


def _insecure(error: BaseException) -> str | None:
    """What else keeps a connection from being a secure one, as OpenSSL calls it."""
    said = (getattr(one, "reason", None) for one in _causes(error) if isinstance(one, ssl.SSLError))
    return next((printable(str(one)) for one in said if one), None)


def _way_there(error: BaseException) -> str | None:
    """What is wrong with the connection, or with what came through it."""
    causes = list(_causes(error))
    hosts = (f" ({one.host}:{one.port})" for one in causes if hasattr(one, "host") and hasattr(one, "port"))
    at = printable(next(hosts, ""))
    if said := _untrusted(error):
        return f"its certificate is not trusted: {said}{at}"
    if said := _insecure(error):
        return f"{'it does not speak TLS' if said in NO_TLS else f'no secure connection: {said}'}{at}"
    said_by = {
        socket.gaierror: f"no host of that name is known{at}",
        ConnectionRefusedError: f"nothing listens there{at}",
        ConnectionResetError: f"the connection breaks off{at}",
        json.JSONDecodeError: "the answer is not what such a service says",
    }
    for kind, words in said_by.items():
        if any(isinstance(one, kind) for one in causes):
            return words
    return next((WORDS[name] for one in causes if (name := type(one).__name__) in WORDS), None)


def refusal(error: BaseException, url: Url, name: str) -> SourceError | UnreadableFile | None:
    """What a failed request comes to, for the file of that name or for all; None where it may pass."""
    said, service = reason(error, url), SERVICES.get(url.scheme, "")
    if nobody(error):
        how = WHO.get(service, "as its file system has them")
        return SourceError(f"images: {url} cannot be read ({said}): give credentials ({how}), see docs/sources.md")
    if code := next((code for code in codes(error) if code in NO_WAY), None):
        return SourceMissing(
            f"images: {url} cannot be read ({code}): check the bucket's name, its region and the address of "
            "its service (AWS_DEFAULT_REGION, AWS_ENDPOINT_URL)"
        )
    if _untrusted(error):
        file = CERTIFICATES.get(service, "SSL_CERT_FILE")
        return SourceError(
            f"images: {url} cannot be read ({said}): check the address; if it is right, name the file of the "
            f"certificate that you trust instead ({file}), see docs/sources.md"
        )
    if _insecure(error) in NO_TLS:
        return SourceError(f"images: {url} cannot be read ({said}): check the address, http:// or https:// for one")
    if is_missing(error):
        return FileMissing(name, "file not found")
    return UnreadableFile(name, f"cannot be read ({said})") if is_final(error) else None
