"""Uses uv instead of pip: translates the user's settings of pip, and finds out what only pip can do.

uv reads none of pip's settings ("Compatibility with pip" in its documentation). So they are written to a temporary
configuration file of uv: passwords of indexes never appear on a command line. The user's own settings of uv do not
count, as they do not for pip.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import platform
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .pip_settings import PipSettings

if TYPE_CHECKING:
    from .requirements import Requirement

#: The file with the settings, beside the requirement files.
SETTINGS = "uv.toml"
#: Variables of uv that are kept: they set folders and performance, not what is installed.
_KEPT = re.compile(r"UV_(?:CACHE_DIR|LINK_MODE|CONCURRENT_\w+|HTTP_\w+|PYTHON_(?:INSTALL|DOWNLOADS)\w*)$")
#: pip's options that uv does not have, with their names for a note.
_ONLY_PIP = {
    "prefer-binary": "prefer-binary",
    "ignore-requires-python": "ignore-requires-python",
    "global-option": "global-option",
    "build-option": "build-option",
    "install-option": "install-option",
    "no-use-pep517": "no-use-pep517",
    "group": "group",
    "only-final": "only-final",
    "all-releases": "all-releases",
    "dry-run": "dry-run",
    "platform": "platform",
    "implementation": "implementation",
    "abi": "abi",
    "python-version": "python-version",
}
_OWN_OPTION = re.compile(r"\s--(?!hash\b)([a-z][a-z-]*)")
_OTHER_VCS = re.compile(r"(?:^|@\s*)(hg|svn|bzr)\+")
#: uv's errors after which pip may still succeed, and the reason.
_RETRIED = (
    (re.compile(r"was included as a URL dependency"), "uv takes no address that only a package asks for"),
    (re.compile(r"Failed to read `--find-links`"), "uv cannot read one of the places in find-links"),
)
_UNREACHABLE = re.compile(r"Failed to fetch|Request failed after|error sending request|client error \(Connect\)")


def find_uv() -> str | None:
    """The path of uv, which comes with the program; None where it is not installed for this machine."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        return None


@dataclass(frozen=True)
class Translation:
    """Settings of pip, translated for uv.

    Attributes:
        text: The content of the file :data:`SETTINGS`.
        arguments: Options that this file cannot have.
        environment: Environment variables.
        notes: Notes on settings that pip would ignore.
        several: Whether there is more than one place to get packages from.
    """

    text: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]
    several: bool


def why_only_pip(settings: PipSettings, requirements: Iterable[Requirement]) -> str | None:
    """Why pip has to do an installation; None where uv can."""
    for name, shown in _ONLY_PIP.items():
        if settings.all(name) and (settings.last_value(name).lower() not in ("0", "no", "false", "off")):
            return f"uv has no {shown}"
    if "legacy-resolver" in settings.all("use-deprecated"):
        return "uv has no legacy-resolver"
    for place in settings.all("find-links"):
        if "://" not in place and os.path.isfile(place):
            return f"uv takes only folders and addresses as find-links, not {place}"
    formats = settings.formats
    limited = formats.no_binary | formats.only_binary
    if ":all:" in limited and len(limited) > 1:
        return "uv has no exceptions of only-binary and no-binary"
    for item in requirements:
        option = _OWN_OPTION.search(item.text)
        if option is not None:
            return f"uv has no --{option[1]} of one requirement"
        if (other := _OTHER_VCS.search(item.text)) is not None:
            return f"uv does not fetch from {other[1]}"
        if item.editable and item.local is None:
            return "uv installs only local folders as editable ones"
        direct = item.local is not None or "://" in item.text
        if direct and limited:
            return "uv takes only-binary and no-binary for local packages too"
    return None


def is_utf8(text: str) -> bool:
    """Whether a name is valid UTF-8: uv accepts no others."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def why_pip_may_work(lines: Sequence[str], several: bool) -> str | None:
    """Why pip may succeed where uv has failed, from uv's output; None where pip would fail as well.

    Args:
        lines: The output.
        several: Whether there is more than one place to get packages from; pip skips one that does not answer.
    """
    text = "\n".join(lines)
    for pattern, reason in _RETRIED:
        if pattern.search(text):
            return reason
    if several and _UNREACHABLE.search(text):
        return "uv wants every package index to answer"
    return None


def translate(settings: PipSettings, environ: Mapping[str, str]) -> Translation:
    """Translate settings of pip for uv.

    Args:
        settings: The settings of pip.
        environ: The environment variables that pip would have.
    """
    notes = list[str]()
    indexes, links = _sources(settings, notes)
    # Without a main index that is the public one, for uv as for pip.
    public = not settings.last_value("index-url") and not settings.flag("no-index")
    several = len(indexes) + len(links) + public > 1
    lines = ["no-sources = true", 'index-strategy = "unsafe-best-match"']
    lines += _index_lines(settings, indexes, public, several)
    trusted = settings.all("trusted-host")
    if trusted:
        lines.append(f"allow-insecure-host = {json.dumps(list(trusted))}")
    text = "\n".join([*lines, "", *_pip_table(settings, links), ""])
    return Translation(text, _arguments(settings), _variables(settings, environ), tuple(notes), several)


def _sources(settings: PipSettings, notes: list[str]) -> tuple[list[str], list[str]]:
    """The indexes and the places of find-links that pip would use; notes are added on those that it ignores."""
    trusted = settings.all("trusted-host")

    def is_used(address: str) -> bool:
        if _is_secure(address, trusted):
            return True
        host = urlsplit(address).hostname
        notes.append(f"{host} is ignored, as pip does: it is neither https nor a trusted-host of pip's settings")
        return False

    indexes = [_index(address) for address in settings.indexes if is_used(address)]
    links = list[str]()
    for place in settings.all("find-links"):
        if "://" in place:
            links += [place] if is_used(place) else []
        elif os.path.isdir(os.path.expanduser(place)):
            links.append(os.path.abspath(os.path.expanduser(place)))
        elif place:
            notes.append(f"{place} of find-links is ignored, as pip does: it does not exist")
    return indexes, links


def _index_lines(settings: PipSettings, indexes: Sequence[str], public: bool, several: bool) -> list[str]:
    """The lines of uv's configuration that name the indexes.

    Args:
        settings: The settings of pip.
        indexes: The indexes that are used.
        public: Whether the public index is used.
        several: Whether there is more than one place to get packages from.
    """
    if not indexes and not public:
        return ["no-index = true"]
    # As with pip, a package that was uploaded a moment ago is found.
    rules = 'cache-control = { api = "max-age=0" }'
    # Among several indexes, one that refuses access is ignored.
    rules += ", ignore-error-codes = [401, 403]" if several else ""
    main = settings.last_value("index-url")
    default = _index(main) if main else None
    tables = [f"{{ url = {json.dumps(one)}, default = {str(one == default).lower()}, {rules} }}" for one in indexes]
    if not public and default not in indexes:
        # Without a default index, uv would use the public one.
        tables.append('{ url = "file:///nowhere", default = true }')
    return [f"index = [{', '.join(tables)}]"] if tables else []


def _pip_table(settings: PipSettings, links: Sequence[str]) -> list[str]:
    """The table ``[pip]`` of uv's configuration."""
    lines = ["[pip]"]
    if links:
        lines.append(f"find-links = {json.dumps(links)}")
    for name in ("no_binary", "only_binary"):
        values = sorted(getattr(settings.formats, name))
        if values:
            lines.append(f"{name.replace('_', '-')} = {json.dumps(values)}")
    if settings.flag("pre"):
        lines.append('prerelease = "allow"')
    if settings.flag("require-hashes"):
        lines.append("require-hashes = true")
    if settings.flag("no-deps"):
        lines.append("no-deps = true")
    # pip reads the value of this setting the other way round: "no" switches the isolation off.
    if settings.all("no-build-isolation") and not settings.flag("no-build-isolation"):
        lines.append("no-build-isolation = true")
    if settings.last_value("uploaded-prior-to"):
        lines.append(f"exclude-newer = {json.dumps(settings.last_value('uploaded-prior-to'))}")
    # With --no-input, as here, pip uses keyring only where its settings say how.
    if settings.last_value("keyring-provider") in ("subprocess", "import"):
        lines.append('keyring-provider = "subprocess"')
    return lines


def _arguments(settings: PipSettings) -> tuple[str, ...]:
    """The settings that uv takes only on the command line."""
    arguments = list[str]()
    for name, option in (("constraint", "--constraints"), ("requirement", "--requirements")):
        for value in settings.all(name):
            arguments += [option, value]
    for value in (*settings.all("constraint"), *settings.all("build-constraint")):
        # pip builds packages with the same settings.
        arguments += ["--build-constraints", value]
    for value in settings.all("editable"):
        arguments += ["--editable", value]
    for value in settings.all("config-settings"):
        arguments += ["--config-setting", value]
    return tuple(arguments)


def _index(address: str) -> str:
    """An index as uv accepts it: a folder as a URL."""
    if "://" in address or address.startswith("file:"):
        return address
    return Path(os.path.abspath(os.path.expanduser(address))).as_uri()


def _is_secure(address: str, trusted: Sequence[str]) -> bool:
    """Whether pip takes packages from there: https, files, this machine, and hosts that the user trusts.

    Source: pip's documentation, "--trusted-host", and ``SECURE_ORIGINS`` in its session.
    """
    parts = urlsplit(address)
    if parts.scheme != "http":
        return True
    host = parts.hostname or ""
    if host == "localhost" or host in trusted or f"{host}:{parts.port}" in trusted:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _variables(settings: PipSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for uv: the given ones, without those of uv that change what is installed."""
    found = {
        name: value
        for name, value in environ.items()
        if (not name.startswith("UV_") or _KEPT.match(name)) and name not in ("VIRTUAL_ENV", "CONDA_PREFIX")
    }
    # uv must not wrap lines, even if COLUMNS is exported: its output is parsed.
    found |= {"UV_NO_PROGRESS": "1", "UV_NO_WRAP": "1", "NO_COLOR": "1"}
    if settings.last_value("timeout"):
        found["UV_HTTP_TIMEOUT"] = str(max(1, math.ceil(_number(settings.last_value("timeout"), 15))))
    if settings.last_value("retries"):
        found["UV_HTTP_RETRIES"] = str(int(_number(settings.last_value("retries"), 5)))
    if settings.all("no-cache-dir"):
        found["UV_NO_CACHE"] = "1"
    proxy = settings.last_value("proxy")
    if proxy:
        address = proxy if "://" in proxy else f"http://{proxy}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            found[name] = found[name.lower()] = address
        # pip uses the proxy of its settings for every address.
        for name in ("NO_PROXY", "no_proxy"):
            found.pop(name, None)
    if settings.last_value("client-cert"):
        found["SSL_CLIENT_CERT"] = os.path.expanduser(settings.last_value("client-cert"))
    return {**found, **_certificates(settings, found)}


def _number(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default


def _certificates(settings: PipSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that name the CA certificates: pip's setting, else those that requests reads, else the system's."""
    given = settings.last_value("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if given:
        given = os.path.expanduser(given)
        name, other = ("SSL_CERT_DIR", "SSL_CERT_FILE") if os.path.isdir(given) else ("SSL_CERT_FILE", "SSL_CERT_DIR")
        return {name: given, other: ""}
    if environ.get("SSL_CERT_FILE") or environ.get("SSL_CERT_DIR"):
        return {}
    paths = ssl.get_default_verify_paths()
    folder = paths.capath
    has_certificates = platform.system() != "Linux" or bool(paths.cafile) or (bool(folder) and any(os.scandir(folder)))
    # On Windows and macOS the system's are in no file. An image may have none: then uv uses its bundled ones, as pip.
    return {"UV_SYSTEM_CERTS": "1"} if has_certificates else {}
