"""Keeps the failed requests of a debugged service, so that they can be inspected and sent again.

gunicorn calls hooks before and after each request. The first replaces the body's stream by one that records what is
read from it. The second writes the recorded body to a folder if the answer was a server error (5xx). The program's own
code is not wrapped: its tracebacks, stack and answers are the same as without this.

A request is two files, of which the second is written last and marks it as complete::

    000007.body    the body as it was received, at most MOST_BYTES of it
    000007.json    {"number", "time", "method", "path", "headers", "bytes", "whole", "status", "error", "worker"}
"""

from __future__ import annotations

import os
import sys
import threading
import time

from . import atomic_file, imports
from .announce import warn

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

#: Requests that are kept: the latest ones.
MOST_REQUESTS = 20
#: Bytes of each body that are kept.
MOST_BYTES = 10 * 1000 * 1000
#: Headers that are never written, since they contain credentials.
SECRET_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie", "cookie2"))
#: Headers with which Azure and other tools identify a request.
ID_HEADERS = frozenset(("X-MS-REQUEST-ID", "X-MS-CLIENT-REQUEST-ID", "X-REQUEST-ID", "TRACEPARENT"))
#: The header, as gunicorn names it, by which a developer's tool sends options for its request, separated by commas. The
#: program does not see it.
OPTIONS_HEADER = "X-AZUREML-DEBUGGEE"
#: Options: the request has been kept before and is not kept again; a debugger stops at its exception; its failure is
#: announced under a name.
AGAIN, STOP, NAME = "again", "stop", "name="
#: Seconds that a client may take, after the answer, to send the part of the body that the program has not read.
REST_SECONDS = 2.0
#: Bytes from which a chunk is kept as it was read; smaller ones are joined.
_CHUNK_BYTES = 4096


class Body:
    """A request's body stream that records what is read from it.

    It has all other attributes of the original stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        #: The first :data:`MOST_BYTES` of what was read.
        self._pieces: List[Any] = []
        #: How many bytes were read.
        self.bytes_read = 0
        #: Whether the body was read to its end.
        self.is_complete = False
        #: What run() or the server raised.
        self.error: Optional[BaseException] = None
        #: Options of its sender; see :data:`OPTIONS_HEADER`.
        self.options: List[str] = []
        #: What identifies the request.
        self.identity: Dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, *size: Any) -> bytes:
        """Do as the original stream."""
        data: bytes = self._stream.read(*size)
        self._record(data)
        # Without a size, all of it has been read; with one, an empty result means the end.
        if not data and size != (0,):
            self.is_complete = True
        return data

    def readline(self, *size: Any) -> bytes:
        """Do as the original stream."""
        data: bytes = self._stream.readline(*size)
        self._record(data)
        return data

    def readlines(self, *size: Any) -> List[bytes]:
        """Do as the original stream."""
        lines: List[bytes] = self._stream.readlines(*size)
        for line in lines:
            self._record(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self._record(line)
            yield line

    def __next__(self) -> bytes:
        line: bytes = next(self._stream)
        self._record(line)
        return line

    def _record(self, data: bytes) -> None:
        remaining = MOST_BYTES - self.bytes_read
        self.bytes_read += len(data)
        if remaining <= 0 or not data:
            return
        if len(data) > remaining:
            data = data[:remaining]
        pieces = self._pieces
        if len(data) >= _CHUNK_BYTES:
            # The program holds the same object: this is no copy.
            pieces.append(data)
        elif pieces and type(pieces[-1]) is bytearray:
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))

    def kept_bytes(self) -> bytes:
        """The part of the body that was recorded."""
        return b"".join(self._pieces)


class RequestKeeper:
    """Keeps the failed requests of one worker.

    Args:
        folder: The folder for failed requests; created with the first one.
        describe: Returns an exception's type, message and place.
        stop: Has an attached debugger stop at an exception.
        announce: Announces the failure of a request whose options contain a name.
    """

    def __init__(
        self,
        folder: str,
        describe: Callable[[BaseException], Dict[str, Any]],
        stop: Callable[[BaseException], object],
        announce: Callable[..., object],
    ) -> None:
        self._folder, self._describe, self._stop, self._announce = folder, describe, stop, announce
        self._local = threading.local()
        self._lock = threading.Lock()

    # Called by gunicorn

    def on_request(self, request: Any) -> None:
        """Handle a new request, of whose body nothing has been read; never raises."""
        try:
            body = Body(request.body)
            options = [value for name, value in request.headers if name.upper() == OPTIONS_HEADER]
            if options:
                body.options = [word.strip() for word in ",".join(options).split(",")]
                request.headers[:] = [pair for pair in request.headers if pair[0].upper() != OPTIONS_HEADER]
            body.identity = _identify(request)
            request.body = self._local.body = body
        except Exception as error:
            self._local.body = None
            warn("a request cannot be watched: {!r}".format(error))

    def on_response(self, request: Any, environ: Dict[str, Any], response: Any, goes_on: bool = True) -> None:
        """Handle that a request has been answered; never raises.

        Args:
            request: gunicorn's request.
            environ: Its WSGI environment.
            response: gunicorn's response.
            goes_on: Whether the worker goes on, rather than being told to end.
        """
        body, self._local.body = getattr(self._local, "body", None), None
        if body is None or request.body is not body:
            return
        error, body.error = body.error, None
        try:
            status = getattr(response, "status_code", None)
            raised = sys.exc_info()[1]
            if raised is not None and goes_on and not isinstance(raised, (OSError, GeneratorExit)):
                # gunicorn is about to answer with 500.
                error, status = error or raised, status or 500
            if not environ or not isinstance(status, int) or status < 500:
                return
            described = None if error is None else self._describe(error)
            for word in body.options:
                if word.startswith(NAME):
                    self._announce("request-failed", name=word[len(NAME) :], status=status, error=described)
            if AGAIN in body.options:
                return
            if not body.is_complete:
                _read_rest(body, environ)
            self._keep(body, environ, status, described)
        except Exception as unkept:
            warn("a request that failed could not be kept: {}".format(unkept))

    def current_request(self) -> Optional[Dict[str, str]]:
        """What identifies this thread's request; see :func:`current_request`."""
        body = getattr(self._local, "body", None)
        return None if body is None else body.identity

    def on_error(self, error: BaseException) -> None:
        """Record an exception that was raised in this thread's request."""
        body = getattr(self._local, "body", None)
        if body is None or error is body.error:
            return
        body.error = error
        if STOP in body.options:
            try:
                self._stop(error)
            except Exception as unseen:
                warn("the debugger could not stop at an exception: {!r}".format(unseen))

    # Files

    def _keep(self, body: Body, environ: Dict[str, Any], status: int, error: Optional[Dict[str, Any]]) -> None:
        path, headers = _path_and_query(environ), _headers(environ)
        data = body.kept_bytes()
        record: Dict[str, Any] = {
            "number": 0,
            "time": time.time(),
            "method": environ.get("REQUEST_METHOD", ""),
            "path": path,
            "headers": headers,
            "bytes": max(body.bytes_read, _announced_length(environ) or 0),
            "whole": body.is_complete and body.bytes_read == len(data),
            "status": status,
            "error": error,
            "worker": os.getpid(),
        }
        with self._lock:
            if not os.path.isdir(self._folder):
                os.makedirs(self._folder, 0o700, exist_ok=True)
                atomic_file.give_to_owner(self._folder, os.path.dirname(self._folder))
            numbers = kept_numbers(self._folder)
            record["number"] = number = (numbers[-1] if numbers else 0) + 1
            written = [
                (".body", data),
                (".json", imports.standard_module("json").dumps(record).encode("utf-8", "backslashreplace")),
            ]
            try:
                for suffix, content in written:
                    atomic_file.write(os.path.join(self._folder, "{:06d}{}".format(number, suffix)), content)
            except BaseException:
                _remove(self._folder, number)
                raise
            for old in numbers[: max(0, len(numbers) + 1 - MOST_REQUESTS)]:
                _remove(self._folder, old)


#: The keeper of this worker; None before its program is loaded.
_keeper: Optional[RequestKeeper] = None


def current_request() -> Optional[Dict[str, str]]:
    """What identifies this thread's request: method, path, and ids from its headers.

    Its body, query and other headers are left out, since they may contain secrets.
    """
    return None if _keeper is None else _keeper.current_request()


def watch(worker: Any, keeper: RequestKeeper) -> None:
    """Keep the failed requests of a gunicorn worker whose program is loaded."""
    global _keeper
    _keeper = keeper
    settings = worker.cfg
    # gunicorn has wrapped the user's own hooks, so that they accept these arguments.
    before, after = settings.pre_request, settings.post_request

    def pre_request(worker: Any, request: Any) -> None:
        keeper.on_request(request)
        before(worker, request)

    def post_request(worker: Any, request: Any, environ: Any, response: Any) -> None:
        try:
            after(worker, request, environ, response)
        finally:
            keeper.on_response(request, environ, response, bool(worker.alive))

    settings.set("pre_request", pre_request)
    settings.set("post_request", post_request)
    _watch_errors(worker, keeper)


def _watch_errors(worker: Any, keeper: RequestKeeper) -> None:
    """Record the exceptions of `run()`, and those that the server raises while it converts its result."""
    scripts = sys.modules.get("azureml_inference_server_http.server.user_script")
    raised: Any = getattr(scripts, "UserScriptException", None)
    if raised is not None:
        made = raised.__init__

        def __init__(self: Any, error: BaseException, *more: Any, **named: Any) -> None:
            keeper.on_error(error)
            made(self, error, *more, **named)

        raised.__init__ = __init__
    handle = getattr(worker.wsgi, "handle_user_exception", None)
    if handle is not None:

        def handle_user_exception(error: BaseException) -> Any:
            keeper.on_error(error)
            return handle(error)

        worker.wsgi.handle_user_exception = handle_user_exception


def _identify(request: Any) -> Dict[str, str]:
    found = {"method": str(request.method)[:20], "path": str(request.path)[:200]}
    for name, value in request.headers:
        if name.upper() in ID_HEADERS:
            found[name.lower()] = "".join(one for one in str(value)[:100] if one.isprintable())
    return found


def kept_numbers(folder: str) -> List[int]:
    """The numbers of the requests in a folder, the oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())


def _announced_length(environ: Dict[str, Any]) -> Optional[int]:
    """The body's length from its header; None if it has none."""
    text = str(environ.get("CONTENT_LENGTH") or "")
    return int(text) if text.isdigit() and text.isascii() else None


def _read_rest(body: Body, environ: Dict[str, Any]) -> None:
    """Read the part of a body that the program has not read; the answer has been sent already."""
    length = _announced_length(environ)
    if length is not None and body.bytes_read >= length:
        body.is_complete = True
        return
    if (length or 0) > MOST_BYTES or (length is None and "HTTP_TRANSFER_ENCODING" not in environ):
        # The body is too long to be kept completely, or there is none.
        body.is_complete = length is None
        return
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return
    old_timeout, deadline = connection.gettimeout(), time.monotonic() + REST_SECONDS
    try:
        while not body.is_complete and body.bytes_read <= MOST_BYTES:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            body.read(64 * 1024)
            body.is_complete = body.is_complete or body.bytes_read == length
    except Exception:
        # The client is too slow, or has closed. The rest of the body would be taken for the next request.
        try:
            connection.shutdown(0)
        except OSError:
            pass
    finally:
        connection.settimeout(old_timeout)


def _path_and_query(environ: Dict[str, Any]) -> str:
    """The path and the query as they were sent."""
    raw = str(environ.get("RAW_URI") or "")
    if raw.startswith("/"):
        return raw
    query = environ.get("QUERY_STRING") or ""
    return str(environ.get("PATH_INFO") or "/") + ("?" + query if query else "")


def _headers(environ: Dict[str, Any]) -> List[Tuple[str, str]]:
    """The headers without those that contain credentials."""
    found = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            key = key[5:]
        elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            continue
        name = "-".join(word.capitalize() for word in key.split("_"))
        if name.lower() not in SECRET_HEADERS and value:
            found.append((name, str(value)))
    return found


def _remove(folder: str, number: int) -> None:
    for suffix in (".json", ".body"):
        try:
            os.unlink(os.path.join(folder, "{:06d}{}".format(number, suffix)))
        except OSError:
            pass
