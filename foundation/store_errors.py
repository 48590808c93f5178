"""Store errors: what an answer of an S3 store means, in one sentence with the option that corrects it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossdim.foundation.location import format_location
from crossdim.foundation.retry import causes_of, error_classes
from crossdim.foundation.store_options import StoreOptions
from crossdim.storage_schema.names import printable

REGION_HEADER = "x-amz-bucket-region"
_CREDENTIALS = "check --credentials-file, or the environment (AWS_ACCESS_KEY_ID) or profile that they come from"
_OTHER_CREDENTIALS = (
    "name some with --credentials-file, the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a profile (AWS_PROFILE); "
    "--anonymous reads public data without any"
)
_EXPIRED = "the session of the credentials has expired; log in again, or name others with --credentials-file"

#: Error codes of S3 and what they mean. Compatible stores use the same.
MEANINGS = {
    "NoSuchBucket": "the bucket does not exist there; check its name and --endpoint-url, or create it",
    "InvalidBucketName": "this is no name of a bucket; write s3://BUCKET/FOLDER with lower-case letters, digits, - and .",
    "InvalidAccessKeyId": f"the store does not know the access key; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; {_CREDENTIALS}",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": f"the session token is not one of this store; {_CREDENTIALS}",
    "InvalidSecurity": f"the store does not accept the credentials; {_CREDENTIALS}",
    "MissingSecurityHeader": f"the store wants credentials; {_OTHER_CREDENTIALS}",
    "AccountProblem": "the account of the credentials is suspended; ask who runs the store",
    "AllAccessDisabled": "the owner has shut the bucket; ask who runs the store",
    "NotSignedUp": "the account of the credentials has no S3; ask who runs the store",
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ by too much; set this machine's clock (NTP)",
    "RequestExpired": "the clocks of this machine and of the store differ by too much; set this machine's clock (NTP)",
}
_OF_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "Redirect"})
#: Errors of the client, before anything is sent.
_OF_CLIENT = {
    "NoCredentialsError": f"no credentials were found; {_OTHER_CREDENTIALS}",
    "PartialCredentialsError": f"half of the credentials is missing; {_OTHER_CREDENTIALS}",
    "CredentialRetrievalError": f"the credentials could not be fetched; {_CREDENTIALS}",
    "ProfileNotFound": "the environment names a profile (AWS_PROFILE) that is not in ~/.aws; correct or unset it",
    "TokenRetrievalError": _EXPIRED,
    "SSOTokenLoadError": _EXPIRED,
    "UnauthorizedSSOTokenError": _EXPIRED,
    "InvalidRegionError": "--region is no name of a region; it looks like eu-central-1",
}


def describe_no_s3(how: str = "") -> str:
    """Say that the answer is not from an S3 store; ``how`` is what was seen, with a leading space."""
    return f"what answers there is no S3 store{how}; check --endpoint-url (scheme, host and port of the store's S3 interface)"


def explain_error(error: BaseException, options: StoreOptions) -> str | None:
    """Explain an error of an S3 client.

    Args:
        error: as raised by s3fs, botocore or aiohttp.
        options: how the store was reached.

    Returns:
        What it means and what to do about it; None if neither waiting nor other options would help.
    """
    for cause in causes_of(error):
        if name := next((name for name in _OF_CLIENT if isinstance(cause, error_classes("botocore.exceptions", name))), None):
            return _OF_CLIENT[name]
        if isinstance(cause, error_classes("botocore.parsers", "ResponseParserError")):
            return describe_no_s3()
        if isinstance(answer := getattr(cause, "response", None), dict) and "ResponseMetadata" in answer:
            # The answer to a HEAD has no body; of what type it would be, some stores say wrongly.
            headless = getattr(cause, "operation_name", "").startswith("Head") and status_of(answer) == 404
            return None if headless else explain_answer(answer, options)
    return None


def status_of(answer: Mapping[str, Any]) -> int:
    """The HTTP status of an answer of S3, as botocore parses it; 0 if it has none."""
    return int(answer["ResponseMetadata"].get("HTTPStatusCode", 0))


def explain_answer(answer: Mapping[str, Any], options: StoreOptions) -> str | None:
    """Explain an error answer of an S3 store.

    Args:
        answer: the error document, as botocore parses it.
        options: how the store was reached.

    Returns:
        What it means and what to do about it; None if neither waiting nor other options would help.
    """
    error, metadata = answer.get("Error", {}), answer["ResponseMetadata"]
    code, headers = str(error.get("Code", "")), metadata.get("HTTPHeaders", {})
    if region := _explain_region(code, error, headers, options):
        return region
    if code in MEANINGS:
        return MEANINGS[code]
    status = status_of(answer)
    if status in (301, 302, 307, 308) and "location" in headers and code not in _OF_REGION:
        return describe_no_s3(f" (it sends on to {format_location(headers['location'])})")
    if "html" in headers.get("content-type", "") and status < 500:
        return describe_no_s3(f" (a web page, HTTP status {status})")
    if code == "400":  # of a HEAD, whose answer has no body
        return f"the store refuses the request without a reason: mostly --region, http for https, or credentials; {_CREDENTIALS}"
    return None


def _explain_region(code: str, error: Mapping[str, Any], headers: Mapping[str, str], options: StoreOptions) -> str | None:
    region = headers.get(REGION_HEADER) or error.get("Region")
    if code not in _OF_REGION and not (code in ("301", "400") and region):
        return None
    used = f"not in {options.region}" if options.region else "not in the default one"
    if region and region != options.region:
        return f"the bucket is in the region {printable(region)}, {used}; use --region {printable(region)}"
    return f"the bucket is in another region, {used}; name its own with --region, and check --endpoint-url"
