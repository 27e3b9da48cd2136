"""Turns the SDK's errors into this program's two lines, and retries transient ones with growing pauses.

An error is identified by the HTTP response in its chain of causes. Its own text is only used where there is no
response: it can be pages long, contain tokens, or raise in turn (`str` of a ServiceException raises a TypeError where
the service sends no details).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from ..errors import UserError
from ..redaction import scrub

T = TypeVar("T")
Report = Callable[[str], None]

#: The description of signing in, which comes before any request to the workspace.
SIGNING_IN = "signing in"
#: Seconds for which transient errors are retried.
PATIENCE = 60.0
#: Seconds for which a service that cannot be reached at all is retried.
REACH_PATIENCE = 12.0
#: Seconds that this machine's clock may differ from Azure's. Token services allow five minutes.
CLOCK_SECONDS = 290.0
SET_CLOCK = "Set the clock, or have it set from the network (timedatectl set-ntp true)."
_LONGEST_PAUSE = 20.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TRANSIENT_STATUSES = frozenset((408, 429, 500, 502, 503, 504, 530))
_SDK_PACKAGES = frozenset(
    ("azureml", "azure", "msrest", "msrestazure", "requests", "urllib3", "adal", "msal", "oauthlib", "http", "jwt")
)
_CONNECTION_ERRORS = frozenset(
    ("ConnectionError", "Timeout", "ProtocolError", "ServiceRequestError", "ServiceResponseError", "HTTPException")
)


class Unreachable(Exception):
    """The service could not be reached, and the SDK did not raise an error for it."""


def attempt(action: Callable[[], T], doing: str, report: Report, seconds: float = PATIENCE) -> T:
    """Run an action with the SDK, and retry it after transient errors.

    Args:
        action: The action. It may run several times.
        doing: Its description for messages, as in "reading the workspace".
        report: Called with what is being waited for.
        seconds: For how long to retry.

    Raises:
        UserError: It failed, or did not succeed within that time.
    """
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

    growing = wait_exponential(multiplier=0.5, max=_LONGEST_PAUSE) + wait_random(0, 0.5)

    def pause(state: RetryCallState) -> float:
        error = _error_of(state)
        return max(float(growing(state)), retry_after(error))

    def is_over(state: RetryCallState) -> bool:
        limit = seconds if status_of(_error_of(state)) else min(seconds, REACH_PATIENCE)
        return bool((state.seconds_since_start or 0.0) + state.upcoming_sleep > limit)

    def report_pause(state: RetryCallState) -> None:
        report(f"{_reason(_error_of(state))}; again in {state.upcoming_sleep:.1f} s (Ctrl-C gives up)")

    began = time.monotonic()
    retrying = Retrying(
        retry=retry_if_exception(is_transient), wait=pause, stop=is_over, before_sleep=report_pause, reraise=True
    )
    try:
        result: T = retrying(action)
    except Exception as error:
        explained = explain(error, doing, time.monotonic() - began)
        if explained is error:
            raise
        raise explained from error
    return result


def attempt_once(action: Callable[[], T], doing: str, report: Report, seconds: float = PATIENCE) -> T:
    """Run an action that must not happen twice: retry it only where the service says that it did nothing (429).

    Args:
        action: The action.
        doing: Its description for messages, as in "starting the run".
        report: Called with what is being waited for.
        seconds: For how long to retry.

    Raises:
        UserError: It failed, or it is unknown whether it happened.
    """

    def attempt_action() -> T:
        try:
            return action()
        except Exception as error:
            if not is_transient(error) or status_of(error) == 429:
                raise
            explained = explain(error, doing)
            raise UserError(
                str(getattr(explained, "problem", explained)),
                "It may have been done anyway: check https://ml.azure.com first.",
            ) from error

    return attempt(attempt_action, doing, report, seconds)


def _error_of(state: Any) -> BaseException:
    error: BaseException = state.outcome.exception()
    return error


def is_transient(error: BaseException) -> bool:
    """Whether the same action may succeed the next time."""
    if isinstance(error, UserError):
        return False
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES
    return _is_connection(error) and not _certificate_problem(error)


def explain(error: Exception, doing: str, seconds: float = 0.0) -> Exception:
    """The UserError for an error of the SDK; the error itself where it is a bug in this program.

    Args:
        error: What was raised.
        doing: What was being done, as in "reading the workspace".
        seconds: For how long it was retried.
    """
    if isinstance(error, UserError):
        return error
    status, message = status_of(error), message_of(error)
    trailer = f": {message}" if message else ""
    if doing == SIGNING_IN and status not in _TRANSIENT_STATUSES and _is_from_sdk(error) and not _is_connection(error):
        return SignInRefused(
            f"Signing in to Azure failed{trailer}",
            "Sign in again (az login), or correct AML_AUTH and what it needs; see .env.example.",
        )
    if status == 401:
        ahead = clock_ahead(getattr(_response(error), "headers", None) or {})
        if abs(ahead) > CLOCK_SECONDS:
            return SignInRefused(
                f"Azure ML does not accept the sign-in when {doing}: {clock_difference(ahead)}.",
                f"{SET_CLOCK} Then run this again.",
            )
        return SignInRefused(
            f"Azure ML does not accept the sign-in when {doing}{trailer}",
            "It has expired or is of another tenant: az login, or renew AZURE_CLIENT_SECRET, then run this again.",
        )
    if status == 403:
        return NotAllowed(
            f"You have no permission for {doing}{trailer}",
            "Ask the workspace's owner for the role AzureML Data Scientist, or sign in as somebody who has it.",
        )
    if status == 404:
        return NotFound(f"Azure ML does not find what was requested when {doing}{trailer}", "Correct its name.")
    if status in _TRANSIENT_STATUSES:
        return UserError(
            f"Azure ML kept failing for {seconds:.0f} s when {doing}: {_reason(error)}.",
            "Run this again later; https://azure.status.microsoft lists outages.",
        )
    if status is not None:
        return UserError(f"Azure ML refused {doing} ({status}){trailer}", "Correct what it names, then run this again.")
    if certificate := _certificate_problem(error):
        clock = "not yet valid" in certificate or "expired" in certificate
        return UserError(
            f"The Azure ML service cannot be trusted when {doing}: {certificate}.",
            "Is this machine's clock right?"
            if clock
            else "Where a proxy has a certificate of its own, name its authorities' file in REQUESTS_CA_BUNDLE.",
        )
    if _is_connection(error):
        return UserError(
            f"The Azure ML service cannot be reached when {doing}: {innermost(error)}.",
            "Check the network, a proxy (HTTPS_PROXY) or the workspace's private endpoint, then run this again.",
        )
    if _is_from_sdk(error):
        return UserError(f"Azure ML failed when {doing}{trailer}", "Correct what it names, then run this again.")
    return error


def clock_ahead(headers: Mapping[str, str]) -> float:
    """Seconds by which this machine's clock is ahead of that of a service that has just responded.

    Args:
        headers: The response's headers. ``Date`` has whole seconds (RFC 9110, 6.6.1); without it, the result is 0.
    """
    try:
        service_time = parsedate_to_datetime(headers.get("Date") or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return time.time() - service_time


def clock_difference(ahead: float) -> str:
    """How this machine's clock differs from Azure's, as text."""
    minutes = round(abs(ahead) / 60)
    long = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"this machine's clock is {long} {'ahead of' if ahead > 0 else 'behind'} Azure's"


class SignInRefused(UserError):
    """The credentials are not accepted."""


class NotAllowed(UserError):
    """The credentials are accepted, but the permission is missing."""


class NotFound(UserError):
    """What was requested does not exist."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    seen = set[int]()
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (getattr(one, "inner_exception", None), one.__cause__, one.__context__)
        waiting += [each for each in inner if isinstance(each, BaseException)]


def _response(error: BaseException) -> Any:
    for one in chain(error):
        response = getattr(one, "response", None)
        if getattr(response, "status_code", None) is not None:
            return response
    return None


def status_of(error: BaseException) -> int | None:
    """The HTTP status that caused an error; None where there was no response."""
    response = _response(error)
    if response is not None:
        return int(response.status_code)
    for one in chain(error):
        status = getattr(one, "status_code", None)
        if isinstance(status, int):
            return status
        found = re.search(r"Response Code: (\d{3})\b|\"status_code\": (\d{3})\b|too many (\d{3}) error", _text(one))
        if found and _is_from_sdk(one):
            return int(next(filter(None, found.groups())))
    return None


def retry_after(error: BaseException) -> float:
    """Seconds that the service asks to wait (``Retry-After``); 0 where it does not."""
    headers = getattr(_response(error), "headers", None) or {}
    text = headers.get("Retry-After") or ""
    if not text:
        for one in chain(error):
            found = re.search(r"'Retry-After': '(\d+(?:\.\d+)?)'", _text(one))
            text = found[1] if found else text
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def message_of(error: BaseException) -> str:
    """The service's own message, or the SDK's where there was no response: one line without secrets."""
    response = _response(error)
    body = getattr(response, "text", "")
    # A method in azure-core, and an attribute in requests.
    body = body() if callable(body) else body
    message = _message_in(body if isinstance(body, str) else "")
    if not message:
        for one in chain(error):
            text = _text(one)
            found = _content_in(text)
            message = _message_in(text if found is None else found)
            if not message and response is None and found is None:
                message = text
            if message:
                break
    line = " ".join(scrub(message).split())
    line = line if len(line) <= 300 else line[:299] + "…"
    return line if line.endswith((".", "…")) or not line else line + "."


def _content_in(text: str) -> str | None:
    """The response body that the SDK's message quotes, between the first and the last quotation mark; None without."""
    found = re.search(r"Content: b?(['\"])", text)
    end = text.rfind(found[1]) if found else -1
    return text[found.end() : end] if found and end >= found.end() else None


def _message_in(text: str) -> str:
    """The message in a JSON response, up to five levels deep."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    for _ in range(5):
        if not isinstance(found, dict):
            return ""
        lower = {str(name).lower(): value for name, value in found.items()}
        if isinstance(lower.get("message"), str):
            return str(lower["message"])
        found = lower.get("error_details") or lower.get("error")
    return ""


def _text(error: BaseException) -> str:
    message = getattr(error, "message", None)
    try:
        return _without_decoration(message if isinstance(message, str) else str(error))
    except Exception:  # see the module's docstring
        return type(error).__name__


def _without_decoration(text: str) -> str:
    """The message of azure-ai-ml without the colours, headings and advice around it."""
    text = _COLOURS.sub("", text)
    found = re.search(r"\(x\) (.+?)\s*(?:Resolutions?:|$)", text, re.DOTALL)
    return found[1] if found else text


def _reason(error: BaseException) -> str:
    status = status_of(error)
    if status == 429:
        return "Azure ML asks for fewer requests (429)"
    if status is not None:
        return f"Azure ML answered with an error of its own ({status})"
    return f"the connection to Azure ML failed: {innermost(error)}"


def innermost(error: BaseException) -> str:
    """The message of the innermost cause: one line without secrets."""
    *_, last = chain(error)
    message = " ".join(scrub(getattr(last, "strerror", None) or _text(last)).split()).rstrip(".")
    # urllib3 begins with the object that failed.
    message = message.rpartition(">: ")[2]
    return (message[:200] or type(last).__name__).strip("'() ")


def _module(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _is_from_sdk(error: BaseException) -> bool:
    return isinstance(error, Unreachable) or _module(error) in _SDK_PACKAGES


def _certificate_problem(error: BaseException) -> str:
    """What is wrong with the server's certificate; empty where the error has another cause."""
    for one in chain(error):
        if type(one).__name__ == "SSLCertVerificationError":
            return str(getattr(one, "verify_message", "") or "its certificate is not accepted")
    return ""


def _is_connection(error: BaseException) -> bool:
    for one in chain(error):
        if isinstance(one, (Unreachable, ConnectionError, TimeoutError)):
            return True
        names = {kind.__name__ for kind in type(one).__mro__}
        if _module(one) in _SDK_PACKAGES and names & _CONNECTION_ERRORS:
            return True
    return False
