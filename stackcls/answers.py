"""What errors of other libraries say of a server's answer, and whose fault it is."""

from collections.abc import Iterator

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
# Errors of aiohttp and botocore about what could not even be asked for.
NOT_ASKED = frozenset({"InvalidURL", "InvalidUrlClientError", "ParamValidationError"})


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
    status = next(statuses(error), None)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    said = printable(scrubbed(str(error), url).strip()) or type(error).__name__
    return f"the server answers {status}" if status is not None else said
