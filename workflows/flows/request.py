"""Requests to a service, made from `--request` and its related flags: any body, form data, or a query."""

from __future__ import annotations

import json
import mimetypes
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..errors import BadValue, UserError
from ..paths import absolute

if TYPE_CHECKING:
    from http.client import HTTPConnection

#: The methods that the server's /score accepts.
METHODS = ("POST", "GET", "OPTIONS")
#: The header with options for the debuggee; see :mod:`workflows.debuggee.azureml_debuggee.failed_requests`.
WISHES = "X-AzureML-Debuggee"
#: Headers about the connection, which are not part of a request itself.
_OF_ONE_CONNECTION = frozenset(
    ("connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding")
)
_MULTIPART, _FORM = "multipart/form-data", "application/x-www-form-urlencoded"
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_TYPE = re.compile(r"[\w.+-]+/[\w.+*-]+(?:\s*;[ -~]*)?", re.ASCII)


@dataclass(frozen=True)
class Request:
    """One request to /score.

    Attributes:
        method: HTTP's method.
        path: With the query.
        body: The body; None for none.
        content_type: The content type of the body, if there is one.
        headers: All headers of a request that is sent again, whose path is complete; None for a typed request.
        wishes: Options for the debuggee; the program does not get them.
        extra: Headers of a typed request, besides its content type.
    """

    method: str = "POST"
    path: str = "/score"
    body: bytes | None = b"{}"
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] | None = None
    wishes: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def send_as_it_was(self, connection: HTTPConnection) -> None:
        """Send it with its original headers, and none of this client's own.

        Raises:
            OSError: It could not be sent.
        """
        body = self.body or b""
        headers = self.headers or ()
        names = {name.lower() for name, _value in headers}
        is_chunked = "transfer-encoding" in names
        connection.putrequest(self.method, self.path, skip_host="host" in names, skip_accept_encoding=True)
        for name, value in headers:
            if name.lower() not in _OF_ONE_CONNECTION:
                connection.putheader(name, value.encode("latin-1", "replace"))
        if is_chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body or "content-length" in names:
            connection.putheader("Content-Length", str(len(body)))
        if self.wishes:
            connection.putheader(WISHES, ", ".join(self.wishes))
        if is_chunked:
            connection.endheaders([body] if body else [], encode_chunked=True)
        else:
            connection.endheaders(body)


def read_request(
    file: Path | None = None,
    content_type: str | None = None,
    method: str | None = None,
    form: Sequence[str] = (),
    query: Sequence[str] = (),
    header: Sequence[str] = (),
    text: bytes | None = None,
) -> Request:
    """Make a request from what was typed.

    Args:
        file: The file with the body.
        content_type: The content type of the body; by default JSON for JSON, otherwise guessed from the file's name.
        method: One of :data:`METHODS`, in upper or lower case; by default POST.
        form: Fields ``NAME=VALUE`` and files ``NAME=@FILE``, in place of a file.
        query: Values ``NAME=VALUE`` of the query.
        header: Headers ``NAME=VALUE``.
        text: The body itself, in place of a file; see :func:`typed_body`.

    Raises:
        BadValue: Two of them exclude each other, or one cannot be read.
        UserError: A file cannot be read.
    """
    verb = (method or "POST").upper()
    if verb not in METHODS:
        raise BadValue(f"--method must be one of {', '.join(METHODS)}, not {method}.", "Correct it.")
    if content_type is not None and not _TYPE.fullmatch(content_type):
        raise BadValue(f"--content-type must be like image/png, not {content_type!r}.", "Correct it.")
    extra = tuple(_header(one) for one in header)
    if (file is not None or text is not None) and form:
        raise BadValue("A request has either a file or form data for its body.", "Leave out --request or --form.")
    pairs = [_pair("--query", text) for text in query]
    path = f"/score?{urlencode(pairs)}" if pairs else "/score"
    if verb != "POST":
        if file is not None or text is not None or form or content_type is not None:
            raise BadValue(
                f"A {verb} has no body, so it takes no --request, --form or --content-type.",
                "Its values: --query NAME=VALUE",
            )
        return Request(verb, path, None, "", extra=extra)
    if form:
        return replace(_encode_form([_pair("--form", one) for one in form], content_type, path), extra=extra)
    if text is not None:
        return Request(verb, path, text, content_type or _type_of(text, Path()), extra=extra)
    if file is None:
        body = b"" if content_type else b"{}"
        return Request(verb, path, body, content_type or "application/json", extra=extra)
    body = _content(file, "--request")
    return Request(verb, path, body, content_type or _type_of(body, file), extra=extra)


def read_body_argument(typed: str | None, stdin: Callable[[], bytes]) -> tuple[Path | None, bytes | None]:
    """Read the value of ``--request``: a file, or the body itself.

    Args:
        typed: A file's path, ``-`` for standard input, or JSON text: an object, a list or a text in quotes.
        stdin: Reads standard input.

    Raises:
        BadValue: It begins like JSON, but is not valid JSON.
    """
    if typed is None:
        return None, None
    if typed == "-":
        return None, stdin()
    if typed.lstrip()[:1] not in ("{", "[", '"') or Path(typed[:255]).exists():
        return Path(typed), None
    try:
        json.loads(typed)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"--request is neither a file nor JSON: {error}.", "Correct it, or name a file.") from error
    return None, typed.encode()


def _header(typed: str) -> tuple[str, str]:
    name, value = _pair("--header", typed)
    if not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii():
        raise BadValue(f"--header must be NAME=VALUE of HTTP, not {typed!r}.", "Correct it.")
    if name.lower() in _OF_ONE_CONNECTION or name.lower() == "content-type":
        raise BadValue(f"The header {name} cannot be set.", "For the content type: --content-type TYPE")
    return name, value


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadValue(f"{flag} must be NAME=VALUE, not {text!r}.", "Correct it.")
    return name, value


def _content(file: Path, flag: str) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"The request file {file} cannot be read: {why}.", f"Correct the path after {flag}.") from error


def _type_of(body: bytes, file: Path) -> str:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        # A body that was meant as JSON but is invalid is left for the server to refuse.
        return mimetypes.guess_type(file.name, strict=False)[0] or "application/octet-stream"
    return "application/json"


def _encode_form(fields: Sequence[tuple[str, str]], content_type: str | None, path: str) -> Request:
    kind = content_type or (_MULTIPART if any(value.startswith("@") for _, value in fields) else _FORM)
    if kind == _FORM:
        return Request("POST", path, urlencode([(name, _text(value)) for name, value in fields]).encode(), _FORM)
    if kind != _MULTIPART:
        raise BadValue(f"Form data is {_MULTIPART} or {_FORM}, not {content_type}.", "Leave out --content-type.")
    boundary = f"----azureml-debug-{secrets.token_hex(16)}"
    body = b"".join(_encode_part(name, value, boundary) for name, value in fields) + f"--{boundary}--\r\n".encode()
    return Request("POST", path, body, f"{_MULTIPART}; boundary={boundary}")


def _text(value: str) -> bytes:
    return _content(absolute(value[1:]), "--form") if value.startswith("@") else value.encode()


def _encode_part(name: str, value: str, boundary: str) -> bytes:
    """Encode a form's field; https://www.rfc-editor.org/rfc/rfc7578."""
    lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{_escape_name(name)}"']
    if value.startswith("@"):
        file = Path(value[1:])
        lines[1] += f'; filename="{_escape_name(file.name)}"'
        lines.append(f"Content-Type: {mimetypes.guess_type(file.name, strict=False)[0] or 'application/octet-stream'}")
    return "\r\n".join([*lines, "", ""]).encode() + _text(value) + b"\r\n"


def _escape_name(name: str) -> str:
    # As browsers do: https://html.spec.whatwg.org/#multipart-form-data
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
