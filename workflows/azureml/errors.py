"""What the SDK raises, said in our two lines; and what passes by itself, tried again with growing pauses.

Errors are found out by the answer that lies somewhere in their chain of causes. Their own text is only taken where
there is no answer: it can be pages long, hold tokens, or fail to be made (`str` of a ServiceException raises a
TypeError where the service sends no details).
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

#: What is being done before anything is asked of the workspace.
SIGNING_IN = "signing in"
#: Seconds for which what may pass is tried again.
PATIENCE = 60.0
#: Seconds for which a service that cannot be reached at all is tried again.
REACH_PATIENCE = 12.0
#: Seconds that this machine's clock may differ from Azure's: token services allow for five minutes.
CLOCK_SECONDS = 290.0
SET_CLOCK = "Set the clock, or have it set from the network (timedatectl set-ntp true)."
_LONGEST_PAUSE = 20.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PASSING = frozenset((408, 429, 500, 502, 503, 504, 530))
_THEIRS = frozenset(
    ("azureml", "azure", "msrest", "msrestazure", "requests", "urllib3", "adal", "msal", "oauthlib", "http", "jwt")
)
_CONNECTION = frozenset(
    ("ConnectionError", "Timeout", "ProtocolError", "ServiceRequestError", "ServiceResponseError", "HTTPException")
)


class Unreachable(Exception):
    """The service could not be reached, which the SDK has kept to itself."""


def attempt(action: Callable[[], T], doing: str, report: Report, seconds: float = PATIENCE) -> T:
    """Do something with the SDK; what may pass by itself is tried again.

    Args:
        action: What to do. It may be done several times.
        doing: What it is, as in "reading the workspace".
        report: Called with what is being waited for.
        seconds: For how long.

    Raises:
        UserError: It cannot be done, or not within that time.
    """
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

    growing = wait_exponential(multiplier=0.5, max=_LONGEST_PAUSE) + wait_random(0, 0.5)

    def pause(state: RetryCallState) -> float:
        error = _failed(state)
        return max(float(growing(state)), retry_after(error))

    def enough(state: RetryCallState) -> bool:
        limit = seconds if status_of(_failed(state)) else min(seconds, REACH_PATIENCE)
        return bool((state.seconds_since_start or 0.0) + state.upcoming_sleep > limit)

    def report_pause(state: RetryCallState) -> None:
        report(f"{_reason(_failed(state))}; again in {state.upcoming_sleep:.1f} s (Ctrl-C gives up)")

    began = time.monotonic()
    retrying = Retrying(
        retry=retry_if_exception(is_transient), wait=pause, stop=enough, before_sleep=report_pause, reraise=True
    )
    try:
        result: T = retrying(action)
    except Exception as error:
        told = explain(error, doing, time.monotonic() - began)
        if told is error:
            raise
        raise told from error
    return result


def attempt_once(action: Callable[[], T], doing: str, report: Report, seconds: float = PATIENCE) -> T:
    """Do something that must not be done twice: again only where the service has said that it did nothing.

    Args:
        action: What to do.
        doing: What it is, as in "starting the run".
        report: Called with what is being waited for.
        seconds: For how long.

    Raises:
        UserError: It cannot be done; or nobody knows whether it was.
    """

    def careful() -> T:
        try:
            return action()
        except Exception as error:
            if not is_transient(error) or status_of(error) == 429:
                raise
            told = explain(error, doing)
            raise UserError(
                str(getattr(told, "problem", told)),
                "It may have been done all the same: see https://ml.azure.com first.",
            ) from error

    return attempt(careful, doing, report, seconds)


def _failed(state: Any) -> BaseException:
    error: BaseException = state.outcome.exception()
    return error


def is_transient(error: BaseException) -> bool:
    """Whether an error may be gone the next time."""
    if isinstance(error, UserError):
        return False
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    return _is_connection(error) and not _certificate(error)


def explain(error: Exception, doing: str, seconds: float = 0.0) -> Exception:
    """Our error for one of the SDK's; the error itself where it is a bug of ours.

    Args:
        error: What was raised.
        doing: What was being done, as in "reading the workspace".
        seconds: For how long it was tried.
    """
    if isinstance(error, UserError):
        return error
    status, words = status_of(error), message_of(error)
    trailer = f": {words}" if words else ""
    if doing == SIGNING_IN and status not in _PASSING and _is_theirs(error) and not _is_connection(error):
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
        return NotFound(f"Azure ML knows nothing of what is asked for when {doing}{trailer}", "Correct its name.")
    if status in _PASSING:
        return UserError(
            f"Azure ML kept failing for {seconds:.0f} s when {doing}: {_reason(error)}.",
            "Run this again later; https://azure.status.microsoft tells of outages.",
        )
    if status is not None:
        return UserError(f"Azure ML refused {doing} ({status}){trailer}", "Correct what it names, then run this again.")
    if certificate := _certificate(error):
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
    if _is_theirs(error):
        return UserError(f"Azure ML failed when {doing}{trailer}", "Correct what it names, then run this again.")
    return error


def clock_ahead(headers: Mapping[str, str]) -> float:
    """Seconds by which this machine's clock is ahead of that of a service that has just answered.

    Args:
        headers: The answer's; its ``Date`` has whole seconds (RFC 9110, 6.6.1). Without one, 0.
    """
    try:
        there = parsedate_to_datetime(headers.get("Date") or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return time.time() - there


def clock_difference(ahead: float) -> str:
    """How this machine's clock differs from Azure's, in words."""
    minutes = round(abs(ahead) / 60)
    long = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"this machine's clock is {long} {'ahead of' if ahead > 0 else 'behind'} Azure's"


class SignInRefused(UserError):
    """The credentials are not accepted."""


class NotAllowed(UserError):
    """They are, and do not reach so far."""


class NotFound(UserError):
    """What was asked for does not exist."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came of."""
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
    """The HTTP status that an error came of; None where there was no answer."""
    response = _response(error)
    if response is not None:
        return int(response.status_code)
    for one in chain(error):
        status = getattr(one, "status_code", None)
        if isinstance(status, int):
            return status
        found = re.search(r"Response Code: (\d{3})\b|\"status_code\": (\d{3})\b|too many (\d{3}) error", _text(one))
        if found and _is_theirs(one):
            return int(next(filter(None, found.groups())))
    return None


def retry_after(error: BaseException) -> float:
    """Seconds that the service asks to wait; 0 where it does not say."""
    headers = getattr(_response(error), "headers", None) or {}
    text = headers.get("Retry-After") or ""
    if not text:
        for one in chain(error):
            found = re.search(r"'Retry-After': '(\d+(?:\.\d+)?)'", _text(one))
            text = found[1] if found else text
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def message_of(error: BaseException) -> str:
    """What the service itself said, or the SDK where there was no answer: one line without secrets."""
    response = _response(error)
    body = getattr(response, "text", "")
    # A method in azure-core, and an attribute in requests.
    body = body() if callable(body) else body
    words = _message_in(body if isinstance(body, str) else "")
    if not words:
        for one in chain(error):
            text = _text(one)
            found = _content_in(text)
            words = _message_in(text if found is None else found)
            if not words and response is None and found is None:
                words = text
            if words:
                break
    line = " ".join(scrub(words).split())
    line = line if len(line) <= 300 else line[:299] + "…"
    return line if line.endswith((".", "…")) or not line else line + "."


def _content_in(text: str) -> str | None:
    """What the SDK quotes of an answer's body, from the first quotation mark to the last; None where it quotes none."""
    found = re.search(r"Content: b?(['\"])", text)
    end = text.rfind(found[1]) if found else -1
    return text[found.end() : end] if found and end >= found.end() else None


def _message_in(text: str) -> str:
    """The message in an answer in JSON, at any depth."""
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
        return _own_words(message if isinstance(message, str) else str(error))
    except Exception:  # see the module's docstring
        return type(error).__name__


def _own_words(text: str) -> str:
    """What azure-ai-ml has to say, without the colours, headings and advice that it puts around that."""
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
    """What the system said, below the layers of exceptions: one line without secrets."""
    *_, last = chain(error)
    words = " ".join(scrub(getattr(last, "strerror", None) or _text(last)).split()).rstrip(".")
    # urllib3 begins with the object that failed.
    words = words.rpartition(">: ")[2]
    return (words[:200] or type(last).__name__).strip("'() ")


def _module(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _is_theirs(error: BaseException) -> bool:
    return isinstance(error, Unreachable) or _module(error) in _THEIRS


def _certificate(error: BaseException) -> str:
    """What is wrong with the certificate of whoever has answered; empty where it is something else."""
    for one in chain(error):
        if type(one).__name__ == "SSLCertVerificationError":
            return str(getattr(one, "verify_message", "") or "its certificate is not accepted")
    return ""


def _is_connection(error: BaseException) -> bool:
    for one in chain(error):
        if isinstance(one, (Unreachable, ConnectionError, TimeoutError)):
            return True
        names = {kind.__name__ for kind in type(one).__mro__}
        if _module(one) in _THEIRS and names & _CONNECTION:
            return True
    return False
