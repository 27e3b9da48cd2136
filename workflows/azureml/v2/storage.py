"""Reads containers of a storage account by plain REST: lists their files page by page, and reads files in parts."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlencode
from xml.etree import ElementTree

import requests

from ...errors import UserError
from ...received import Refused, one_line, size, text, web_address
from ..downloads import Blob
from ..errors import NotAllowed, NotFound, Report, attempt, status_of
from ..limited_requests import SILENCE_SECONDS
from .storage_keys import VERSION, Key

#: Files on one page of a listing (the most that the service returns), and the most bytes of such a page.
PAGE, _PAGE_BYTES = 5000, 64 << 20
#: The most files of one listing, which is kept in memory.
MOST_FILES = 5_000_000
_PART = 1 << 18
#: A storage account's host: for blobs, or for the same content as files and folders (Data Lake Storage Gen2).
_HOST = re.compile(
    r"(?P<account>[a-z0-9][a-z0-9-]*)(?:\.z\d+)?\.(?P<kind>blob|dfs)\.(?P<suffix>[\w.:-]+)", re.IGNORECASE
)
#: Statuses of a refused request, and the number of signatures that one request tries.
_REFUSED, _SIGNATURES = (401, 403, 404, 409), 3


class Changed(UserError):
    """A file has changed since it was listed."""


class Container:
    """A container, or a file system of Data Lake Storage Gen2, which is one as well.

    Args:
        account: The account's address for blobs, as in ``https://ACCOUNT.blob.core.windows.net``.
        name: The container's name.
        key: Signs the requests.
        what: Its name in messages.
    """

    def __init__(self, account: str, name: str, key: Key, what: str) -> None:
        self.address = f"{web_address(account, 'an address').rstrip('/')}/{quote(one_line(name, 'a name'), safe='')}"
        self.what = what
        self._key = key
        #: How often the signature has changed.
        self._turn = 0
        self._lock = threading.Lock()
        self._local = threading.local()

    def list_blobs(self, prefix: str, report: Report) -> Iterator[Blob]:
        """The files whose paths begin with a prefix, without folders.

        Args:
            prefix: The prefix.
            report: Called with what is being waited for.

        Raises:
            UserError: They cannot be listed.
        """
        marker, count = "", 0
        while True:
            query = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": str(PAGE)}
            query |= {name: value for name, value in (("prefix", prefix), ("marker", marker)) if value}
            address = f"{self.address}?{urlencode(query, quote_via=quote)}"
            content = self._attempt(lambda address=address: self._page(address), f"listing {self.what}", report)  # type: ignore[misc]
            found, marker = _blobs(content)
            yield from found
            count += len(found)
            if not marker:
                return
            if count > MOST_FILES:
                raise Refused(f"more than {MOST_FILES:,} files", self.what)
            if count % (20 * PAGE) < PAGE:
                report(f"listing {self.what}: {count:,} files")

    def find_blob(self, name: str, report: Report) -> Blob | None:
        """A file by its name; None where there is none. This works for public files whose container cannot be listed.

        Raises:
            UserError: The request failed.
        """

        def request() -> Blob | None:
            with self._open("HEAD", self._address(name), {}) as answer:
                length = answer.headers.get("Content-Length", "")
                if answer.headers.get("x-ms-meta-hdi_isfolder", "").lower() == "true" or not length.isdigit():
                    return None
                return Blob(name, size(int(length), "a file's size"), answer.headers.get("ETag", "").strip('"'))

        try:
            found: Blob | None = self._attempt(request, f"reading {self.what}", report)
        except NotFound:
            return None
        return found

    def read(self, blob: Blob, start: int, end: int, write: Callable[[bytes], None], report: Report) -> None:
        """Read a part of a file. After a lost connection, it continues where it stopped.

        Args:
            blob: The file, as it was listed.
            start: The offset of the first byte.
            end: The offset after the last byte.
            write: Called with the bytes in order.
            report: Called with what is being waited for.

        Raises:
            Changed: It has changed since it was listed.
            UserError: It cannot be read.
        """
        at = start

        def read_rest() -> None:
            nonlocal at
            headers = {"Range": f"bytes={at}-{end - 1}", "If-Match": f'"{blob.version}"'}
            with self._open("GET", self._address(blob.name), headers) as answer:
                if answer.status_code != 206:
                    raise Refused("a whole file in the place of a part of it", self.what)
                for part in _parts(answer):
                    if at + len(part) > end:
                        raise Refused("more of a file than was asked for", self.what)
                    write(part)
                    at += len(part)
            if at < end:
                raise requests.ConnectionError(f"it ended {end - at} bytes early")

        while at < end:
            before = at
            try:
                self._attempt(read_rest, f"reading {blob.name} of {self.what}", report)
            except UserError as error:
                if status_of(error) in (404, 412, 416):
                    raise Changed(
                        f"{blob.name} of {self.what} has changed while it was read.",
                        "Run this again once it is written.",
                    ) from error
                # After progress, the time limit for retries starts again.
                if at == before or isinstance(error, Refused) or status_of(error) is not None:
                    raise

    def _address(self, name: str) -> str:
        return f"{self.address}/{quote(name, safe='/')}"

    def _attempt(self, action: Callable[[], Any], doing: str, report: Report) -> Any:
        try:
            return attempt(action, doing, report)
        except NotAllowed as error:
            raise self._not_allowed(error) from error
        except UserError as error:
            if status_of(error) == 401:
                raise self._not_allowed(error) from error
            raise

    def _not_allowed(self, error: UserError) -> UserError:
        response = next(
            (one for one in (getattr(each, "response", None) for each in _causes(error)) if one is not None),
            None,
        )
        code = str(getattr(response, "headers", {}).get("x-ms-error-code", ""))
        return NotAllowed(
            f"You have no permission to read {self.what}{f' ({code})' if code.isalnum() else ''}.",
            "Ask its owner for the role Storage Blob Data Reader (az role assignment create), and for a network rule "
            "where the account is closed to this network.",
        )

    def _page(self, address: str) -> bytes:
        with self._open("GET", address, {}) as answer:
            content = bytearray()
            for part in _parts(answer):
                content += part
                if len(content) > _PAGE_BYTES:
                    raise Refused(f"a listing of more than {_PAGE_BYTES >> 20} MB", self.what)
        return bytes(content)

    def _open(self, method: str, address: str, headers: dict[str, str]) -> requests.Response:
        """The response to a request. Where it is refused, the next available signature is tried.

        Raises:
            requests.RequestException: The request was refused or failed.
        """
        for left in reversed(range(_SIGNATURES)):
            signed = {"x-ms-version": VERSION, "Accept-Encoding": "identity", **headers}
            with self._lock:
                turn, place = self._turn, self._key.sign(method, address, signed)
            # Redirections are not followed, since the other host would receive the signature.
            answer = self._http().request(
                method, place, headers=signed, timeout=SILENCE_SECONDS, stream=True, allow_redirects=False
            )
            if 200 <= answer.status_code < 300:
                return answer
            # The service's error message is short.
            answer._content = answer.raw.read(1 << 16, decode_content=True)
            answer.close()
            if left and answer.status_code in _REFUSED and self._next(turn):
                continue
            break
        answer.raise_for_status()
        raise requests.HTTPError(f"it answers {answer.status_code}", response=answer)

    def _next(self, turn: int) -> bool:
        """Whether there is a newer signature than that of a turn; another thread may have requested it already."""
        with self._lock:
            if self._turn == turn and self._key.try_next_credential():
                self._turn += 1
            return self._turn != turn

    def _http(self) -> requests.Session:
        found: requests.Session | None = getattr(self._local, "http", None)
        if found is None:
            found = self._local.http = requests.Session()
            # Otherwise requests would use a .netrc file, whose credentials would replace the signature.
            found.auth = _signed_already
        return found


def account_of(address: str) -> tuple[str, str, str] | None:
    """Account, kind and suffix of a storage account's host; None for another host."""
    found = _HOST.fullmatch(address)
    return (found["account"].lower(), found["kind"].lower(), found["suffix"].lower()) if found else None


def _signed_already(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _causes(error: BaseException) -> Iterator[BaseException]:
    from ..errors import chain

    return chain(error)


def _parts(answer: requests.Response) -> Iterator[bytes]:
    """A response's bytes without decoding, whatever content encoding the file has."""
    from urllib3.exceptions import HTTPError

    try:
        yield from answer.raw.stream(_PART, decode_content=False)
    except HTTPError as error:
        raise requests.ConnectionError(str(error)) from error


def _blobs(content: bytes) -> tuple[list[Blob], str]:
    """The files on one page, and the marker of the next page, which is empty on the last page."""
    if b"<!DOCTYPE" in content[:1000] or b"<!ENTITY" in content:
        raise Refused("a listing with definitions of its own", "The storage account")
    try:
        root = ElementTree.fromstring(content)  # noqa: S314
    except ElementTree.ParseError as error:
        raise Refused("a listing that is not XML", "The storage account") from error
    found = []
    for node in root.iterfind("Blobs/Blob"):
        named = node.find("Name")
        name = text(named.text if named is not None else None, "a file's name", 4096)
        if named is not None and named.get("Encoded") == "true":
            name = unquote(name)
        about = {one.tag.lower(): (one.text or "").strip() for one in node.iterfind("Properties/*")}
        marks = {one.tag.lower(): (one.text or "").strip().lower() for one in node.iterfind("Metadata/*")}
        # With a hierarchical namespace, folders are listed as well: as empty blobs with a mark.
        if name.endswith("/") or marks.get("hdi_isfolder") == "true" or about.get("resourcetype") == "directory":
            continue
        length = about.get("content-length", "")
        if not length.isdigit():
            raise Refused("a listing with a file without its size", "The storage account")
        found.append(Blob(name, size(int(length), "a file's size"), one_line(about.get("etag", ""), "an ETag")))
    return found, (root.findtext("NextMarker") or "").strip()
