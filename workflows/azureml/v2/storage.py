"""Containers of a storage account by plain REST: their files listed page by page, and read in parts."""

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

#: Files of one page of a listing, the most that the service gives, and bytes that such a page can have.
PAGE, _PAGE_BYTES = 5000, 64 << 20
#: Files of one place. Their listing is kept in memory.
MOST_FILES = 5_000_000
_PART = 1 << 18
#: A storage account's address: of its blobs, or of the same as files and folders (Data Lake Storage Gen2).
_HOST = re.compile(
    r"(?P<account>[a-z0-9][a-z0-9-]*)(?:\.z\d+)?\.(?P<kind>blob|dfs)\.(?P<suffix>[\w.:-]+)", re.IGNORECASE
)
#: Statuses of what is not open to whoever asked, and how many signatures one request tries.
_REFUSED, _SIGNATURES = (401, 403, 404, 409), 3


class Changed(UserError):
    """A file is not what was listed any more."""


class Container:
    """A container, or a file system of Data Lake Storage Gen2, which is one as well.

    Args:
        account: The account's address for blobs, as in ``https://ACCOUNT.blob.core.windows.net``.
        name: The container's name.
        key: Signs the requests.
        what: What it is called in a message.
    """

    def __init__(self, account: str, name: str, key: Key, what: str) -> None:
        self.address = f"{web_address(account, 'an address').rstrip('/')}/{quote(one_line(name, 'a name'), safe='')}"
        self.what = what
        self._key = key
        #: How often the signature has changed.
        self._turn = 0
        self._lock = threading.Lock()
        self._local = threading.local()

    def listed(self, prefix: str, report: Report) -> Iterator[Blob]:
        """The files whose paths begin so; folders are none.

        Args:
            prefix: What they begin with.
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

    def one(self, name: str, report: Report) -> Blob | None:
        """A file by its name; None where there is none. Where files are public, a listing need not be.

        Raises:
            UserError: It cannot be asked for.
        """

        def asked() -> Blob | None:
            with self._open("HEAD", self._address(name), {}) as answer:
                length = answer.headers.get("Content-Length", "")
                if answer.headers.get("x-ms-meta-hdi_isfolder", "").lower() == "true" or not length.isdigit():
                    return None
                return Blob(name, size(int(length), "a file's size"), answer.headers.get("ETag", "").strip('"'))

        try:
            found: Blob | None = self._attempt(asked, f"reading {self.what}", report)
        except NotFound:
            return None
        return found

    def read(self, blob: Blob, start: int, end: int, take: Callable[[bytes], None], report: Report) -> None:
        """Read a part of a file, from where it broke off where the connection does.

        Args:
            blob: What was listed.
            start: Its first byte.
            end: The one behind its last.
            take: Handed the bytes in their order.
            report: Called with what is being waited for.

        Raises:
            Changed: It is not what was listed.
            UserError: It cannot be read.
        """
        at = start

        def go_on() -> None:
            nonlocal at
            headers = {"Range": f"bytes={at}-{end - 1}", "If-Match": f'"{blob.version}"'}
            with self._open("GET", self._address(blob.name), headers) as answer:
                if answer.status_code != 206:
                    raise Refused("a whole file in the place of a part of it", self.what)
                for part in _parts(answer):
                    if at + len(part) > end:
                        raise Refused("more of a file than was asked for", self.what)
                    take(part)
                    at += len(part)
            if at < end:
                raise requests.ConnectionError(f"it ended {end - at} bytes early")

        while at < end:
            before = at
            try:
                self._attempt(go_on, f"reading {blob.name} of {self.what}", report)
            except UserError as error:
                if status_of(error) in (404, 412, 416):
                    raise Changed(
                        f"{blob.name} of {self.what} has changed while it was read.",
                        "Run this again once it is written.",
                    ) from error
                # What has made its way is tried for as long again.
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
            (one for one in (getattr(each, "response", None) for each in _causes(error)) if one is not None), None
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
        """The answer to a request; where it is refused, to one with the next signature that there is.

        Raises:
            requests.RequestException: It is refused, or there is none.
        """
        for left in reversed(range(_SIGNATURES)):
            signed = {"x-ms-version": VERSION, "Accept-Encoding": "identity", **headers}
            with self._lock:
                turn, place = self._turn, self._key.sign(method, address, signed)
            # A redirection would be handed the signature.
            answer = self._http().request(
                method, place, headers=signed, timeout=SILENCE_SECONDS, stream=True, allow_redirects=False
            )
            if 200 <= answer.status_code < 300:
                return answer
            # What the service says of it, in few bytes.
            answer._content = answer.raw.read(1 << 16, decode_content=True)
            answer.close()
            if left and answer.status_code in _REFUSED and self._next(turn):
                continue
            break
        answer.raise_for_status()
        raise requests.HTTPError(f"it answers {answer.status_code}", response=answer)

    def _next(self, turn: int) -> bool:
        """Whether there is another signature than that of a turn; another thread may have come first."""
        with self._lock:
            if self._turn == turn and self._key.again():
                self._turn += 1
            return self._turn != turn

    def _http(self) -> requests.Session:
        found: requests.Session | None = getattr(self._local, "http", None)
        if found is None:
            found = self._local.http = requests.Session()
            # A .netrc is none of the workspace's business, and would take the place of a signature.
            found.auth = _signed_already
        return found


def account_of(address: str) -> tuple[str, str, str] | None:
    """Account, kind and suffix of the host of a storage account's address; None where it is none of those."""
    found = _HOST.fullmatch(address)
    return (found["account"].lower(), found["kind"].lower(), found["suffix"].lower()) if found else None


def _signed_already(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _causes(error: BaseException) -> Iterator[BaseException]:
    from ..errors import chain

    return chain(error)


def _parts(answer: requests.Response) -> Iterator[bytes]:
    """An answer's bytes as they are, whatever encoding the file itself is said to have."""
    from urllib3.exceptions import HTTPError

    try:
        yield from answer.raw.stream(_PART, decode_content=False)
    except HTTPError as error:
        raise requests.ConnectionError(str(error)) from error


def _blobs(content: bytes) -> tuple[list[Blob], str]:
    """The files of one page, and where the next one begins; empty for the last."""
    if b"<!DOCTYPE" in content[:1000] or b"<!ENTITY" in content:
        raise Refused("a listing with definitions of its own", "The storage account")
    try:
        root = ElementTree.fromstring(content)  # noqa: S314
    except ElementTree.ParseError as error:
        raise Refused("a listing that is no XML", "The storage account") from error
    found = []
    for node in root.iterfind("Blobs/Blob"):
        named = node.find("Name")
        name = text(named.text if named is not None else None, "a file's name", 4096)
        if named is not None and named.get("Encoded") == "true":
            name = unquote(name)
        about = {one.tag.lower(): (one.text or "").strip() for one in node.iterfind("Properties/*")}
        marks = {one.tag.lower(): (one.text or "").strip().lower() for one in node.iterfind("Metadata/*")}
        # With a hierarchical namespace folders are listed too: as empty blobs, marked as such.
        if name.endswith("/") or marks.get("hdi_isfolder") == "true" or about.get("resourcetype") == "directory":
            continue
        length = about.get("content-length", "")
        if not length.isdigit():
            raise Refused("a listing with a file without its size", "The storage account")
        found.append(Blob(name, size(int(length), "a file's size"), one_line(about.get("etag", ""), "an ETag")))
    return found, (root.findtext("NextMarker") or "").strip()
