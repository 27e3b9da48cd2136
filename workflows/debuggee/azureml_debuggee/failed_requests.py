"""Keeps the requests of a debugged service that failed, so that they can be looked at and posted again.

gunicorn calls hooks before and after each request. Before it, the body's stream is replaced by one that remembers what
is read from it; after it, where the answer was an error of the server's, what was read is written to a folder. Nothing
is called around the program's own code: its tracebacks, its stack and its answers are what they would be without this.

A request is two files, of which the second says that it is whole::

    000007.body    the body as it came, at most MOST_BYTES of it
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

#: Of the latest so many.
MOST_REQUESTS = 20
#: Of each body.
MOST_BYTES = 10 * 1000 * 1000
#: Headers that are never written down: they are somebody's credentials.
SECRET_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie", "cookie2"))
#: Headers that name a request, as Azure and other tools do.
ID_HEADERS = frozenset(("X-MS-REQUEST-ID", "X-MS-CLIENT-REQUEST-ID", "X-REQUEST-ID", "TRACEPARENT"))
#: By this header, as gunicorn names it, a developer's tool says what it wants of its request: words with commas between
#: them. The program does not see it.
WISHES = "X-AZUREML-DEBUGGEE"
#: It is a kept one, not to be kept again; a debugger is to see what it raises; its failure is announced by this name.
AGAIN, STOP, NAME = "again", "stop", "name="
#: Seconds that a client may take to send what the program has not read of a body, once it has been answered.
REST_SECONDS = 2.0
#: Bytes of a piece that is kept as it was read; smaller ones are put together.
_PIECE = 4096


class Body:
    """A request's body, which remembers what is read of it.

    Whatever else the stream has, this has.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        #: Beginning of what was read, as long as there is room for it.
        self._pieces: List[Any] = []
        #: Bytes that were read.
        self.seen = 0
        #: Whether everything was read.
        self.ended = False
        #: What run() or the server raised.
        self.error: Optional[BaseException] = None
        #: What its sender wants.
        self.wishes: List[str] = []
        #: What tells it from others.
        self.about: Dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, *size: Any) -> bytes:
        """As the stream's."""
        data: bytes = self._stream.read(*size)
        self._note(data)
        # Without a size, everything; with one, nothing where there is no more.
        if not data and size != (0,):
            self.ended = True
        return data

    def readline(self, *size: Any) -> bytes:
        """As the stream's."""
        data: bytes = self._stream.readline(*size)
        self._note(data)
        return data

    def readlines(self, *size: Any) -> List[bytes]:
        """As the stream's."""
        lines: List[bytes] = self._stream.readlines(*size)
        for line in lines:
            self._note(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self._note(line)
            yield line

    def __next__(self) -> bytes:
        line: bytes = next(self._stream)
        self._note(line)
        return line

    def _note(self, data: bytes) -> None:
        room = MOST_BYTES - self.seen
        self.seen += len(data)
        if room <= 0 or not data:
            return
        if len(data) > room:
            data = data[:room]
        pieces = self._pieces
        if len(data) >= _PIECE:
            # The program has it, too: this is no copy.
            pieces.append(data)
        elif pieces and type(pieces[-1]) is bytearray:
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))

    def kept(self) -> bytes:
        """What was read, as far as it is kept."""
        return b"".join(self._pieces)


class RequestKeeper:
    """Watches the requests of one worker.

    Args:
        folder: Where failed ones are written; made with the first.
        describe: What went wrong and where, for an exception.
        stop: Has a debugger see an exception.
        announce: Tells of a failure by whose name was asked.
    """

    def __init__(
        self,
        folder: str,
        describe: Callable[[BaseException], Dict[str, Any]],
        stop: Callable[[BaseException], object],
        announce: Callable[..., object],
    ) -> None:
        self._folder, self._describe, self._stop, self._announce = folder, describe, stop, announce
        self._here = threading.local()
        self._one = threading.Lock()

    # What gunicorn calls

    def before(self, request: Any) -> None:
        """A request has come, and nothing has been read of its body. Never raises."""
        try:
            body = Body(request.body)
            wishes = [value for name, value in request.headers if name.upper() == WISHES]
            if wishes:
                body.wishes = [word.strip() for word in ",".join(wishes).split(",")]
                request.headers[:] = [pair for pair in request.headers if pair[0].upper() != WISHES]
            body.about = _about(request)
            request.body = self._here.body = body
        except Exception as error:
            self._here.body = None
            warn("a request is not watched: {!r}".format(error))

    def after(self, request: Any, environ: Dict[str, Any], response: Any, goes_on: bool = True) -> None:
        """A request has been answered, by a worker that goes on or is told to end. Never raises."""
        body, self._here.body = getattr(self._here, "body", None), None
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
            for word in body.wishes:
                if word.startswith(NAME):
                    self._announce("request-failed", name=word[len(NAME) :], status=status, error=described)
            if AGAIN in body.wishes:
                return
            if not body.ended:
                _read_rest(body, environ)
            self._keep(body, environ, status, described)
        except Exception as unkept:
            warn("a request that failed could not be kept: {}".format(unkept))

    def current_request(self) -> Optional[Dict[str, str]]:
        """See :func:`current_request`."""
        body = getattr(self._here, "body", None)
        return None if body is None else body.about

    def note(self, error: BaseException) -> None:
        """Something was raised in the request of this thread."""
        body = getattr(self._here, "body", None)
        if body is None or error is body.error:
            return
        body.error = error
        if STOP in body.wishes:
            try:
                self._stop(error)
            except Exception as unseen:
                warn("no debugger could see what was raised: {!r}".format(unseen))

    # What is written

    def _keep(self, body: Body, environ: Dict[str, Any], status: int, error: Optional[Dict[str, Any]]) -> None:
        path, headers = _path(environ), _headers(environ)
        data = body.kept()
        record: Dict[str, Any] = {
            "number": 0,
            "time": time.time(),
            "method": environ.get("REQUEST_METHOD", ""),
            "path": path,
            "headers": headers,
            "bytes": max(body.seen, _announced(environ) or 0),
            "whole": body.ended and body.seen == len(data),
            "status": status,
            "error": error,
            "worker": os.getpid(),
        }
        with self._one:
            if not os.path.isdir(self._folder):
                os.makedirs(self._folder, 0o700, exist_ok=True)
                atomic_file.give_to_owner(self._folder, os.path.dirname(self._folder))
            numbers = kept_numbers(self._folder)
            record["number"] = number = (numbers[-1] if numbers else 0) + 1
            written = [
                (".body", data),
                (".json", imports.get("json").dumps(record).encode("utf-8", "backslashreplace")),
            ]
            try:
                for suffix, content in written:
                    atomic_file.write(os.path.join(self._folder, "{:06d}{}".format(number, suffix)), content)
            except BaseException:
                _remove(self._folder, number)
                raise
            for old in numbers[: max(0, len(numbers) + 1 - MOST_REQUESTS)]:
                _remove(self._folder, old)


#: What keeps the requests of this worker; None before its program is loaded.
_keeper: Optional[RequestKeeper] = None


def current_request() -> Optional[Dict[str, str]]:
    """What tells the request of this thread from others: method, path, and the ids that its headers say.

    Nothing of its body, its query or its other headers is in it: they may hold secrets.
    """
    return None if _keeper is None else _keeper.current_request()


def watch(worker: Any, keeper: RequestKeeper) -> None:
    """Keep the failed requests of a gunicorn worker whose program is loaded."""
    global _keeper
    _keeper = keeper
    settings = worker.cfg
    # They have been made to take these arguments, whatever a person's own take.
    before, after = settings.pre_request, settings.post_request

    def pre_request(worker: Any, request: Any) -> None:
        keeper.before(request)
        before(worker, request)

    def post_request(worker: Any, request: Any, environ: Any, response: Any) -> None:
        try:
            after(worker, request, environ, response)
        finally:
            keeper.after(request, environ, response, bool(worker.alive))

    settings.set("pre_request", pre_request)
    settings.set("post_request", post_request)
    _see_errors(worker, keeper)


def _see_errors(worker: Any, keeper: RequestKeeper) -> None:
    """Learn of exceptions that the server answers for: run()'s, and those of what it makes of run()'s result."""
    scripts = sys.modules.get("azureml_inference_server_http.server.user_script")
    raised: Any = getattr(scripts, "UserScriptException", None)
    if raised is not None:
        made = raised.__init__

        def __init__(self: Any, error: BaseException, *more: Any, **named: Any) -> None:
            keeper.note(error)
            made(self, error, *more, **named)

        raised.__init__ = __init__
    handle = getattr(worker.wsgi, "handle_user_exception", None)
    if handle is not None:

        def handle_user_exception(error: BaseException) -> Any:
            keeper.note(error)
            return handle(error)

        worker.wsgi.handle_user_exception = handle_user_exception


def _about(request: Any) -> Dict[str, str]:
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


def _announced(environ: Dict[str, Any]) -> Optional[int]:
    """How long the body is, as its sender says."""
    text = str(environ.get("CONTENT_LENGTH") or "")
    return int(text) if text.isdigit() and text.isascii() else None


def _read_rest(body: Body, environ: Dict[str, Any]) -> None:
    """Read what the program has left of a body: the answer is on its way already."""
    length = _announced(environ)
    if length is not None and body.seen >= length:
        body.ended = True
        return
    if (length or 0) > MOST_BYTES or (length is None and "HTTP_TRANSFER_ENCODING" not in environ):
        # It is not kept whole; or there is none.
        body.ended = length is None
        return
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return
    before, deadline = connection.gettimeout(), time.monotonic() + REST_SECONDS
    try:
        while not body.ended and body.seen <= MOST_BYTES:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            body.read(64 * 1024)
            body.ended = body.ended or body.seen == length
    except Exception:
        # Too slow, or gone. What comes of it now would be taken for the next request.
        try:
            connection.shutdown(0)
        except OSError:
            pass
    finally:
        connection.settimeout(before)


def _path(environ: Dict[str, Any]) -> str:
    """The path and the query, as they were sent."""
    raw = str(environ.get("RAW_URI") or "")
    if raw.startswith("/"):
        return raw
    query = environ.get("QUERY_STRING") or ""
    return str(environ.get("PATH_INFO") or "/") + ("?" + query if query else "")


def _headers(environ: Dict[str, Any]) -> List[Tuple[str, str]]:
    """The headers but for those with credentials."""
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
