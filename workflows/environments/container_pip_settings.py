"""The user's settings of pip, translated so that they work in a container.

On the host pip runs with these settings. Where the image's Python is a different one, pip runs in a container, which
has neither the user's files nor the user's variables.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..reading import read_bytes
from .pip_settings import PipSettings, read_settings

#: Settings that decide which packages are installed, and from where.
_CARRIED = (
    "index-url",
    "extra-index-url",
    "no-index",
    "find-links",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
    "timeout",
    "retries",
    "constraint",
    "build-constraint",
    "prefer-binary",
    "pre",
    "no-build-isolation",
    "use-feature",
    "use-deprecated",
)
#: Those whose values are files on this machine.
_FILES = ("cert", "client-cert")
_LISTED_FILES = ("constraint", "build-constraint")
#: Variables that name files with certificates.
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "FTP_PROXY", "ALL_PROXY")
#: The folder for files with secrets: in memory, and so in no layer of an image.
_MEMORY = "/dev/shm/azureml-debug"  # noqa: S108
#: The folder for other files.
PLACE = "/tmp/azureml-debug-settings"  # noqa: S108
#: Bytes in one variable; Linux allows 128 KiB for each (execve(2), MAX_ARG_STRLEN).
_CHUNK = 100_000
_USED = re.compile(r"\$\{([A-Z0-9_]+)\}")
_ADDRESS = re.compile(r"\w+://[^\s'\"]+")


@dataclass
class ContainerSettings:
    """The user's settings of pip for a container.

    Attributes:
        variables: Environment variables for the installation.
        secrets: Contents of files that are written to memory only, by their path in the container.
        files: Files and folders of this machine, by their path in the container.
        named: The names of the settings, for a message.
        addresses: The addresses in the settings.
    """

    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @property
    def leads_here(self) -> bool:
        """Whether an address is on this machine's loopback interface, which other networks do not reach."""
        return any(map(_is_loopback, self.addresses))

    def command(self, command: str) -> tuple[str, dict[str, str]]:
        """A shell command that first writes the secret files to memory, and its environment variables."""
        variables, lines = dict(self.variables), list[str]()
        for number, (path, content) in enumerate(self.secrets.items()):
            names = []
            for at in range(0, max(len(content), 1), _CHUNK):
                names.append(f"AZUREML_DEBUG_FILE_{number}_{at // _CHUNK}")
                variables[names[-1]] = content[at : at + _CHUNK].decode("latin-1")
            parts = " ".join(f'"${name}"' for name in names)
            lines.append(f"(umask 077 && mkdir -p {_MEMORY} && printf %s {parts} >{shlex.quote(path)}) || exit 1")
            lines.append(f"unset {' '.join(names)}")
        return "\n".join([*lines, command]), variables


def proxy_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that are set, in both spellings, as the docker command passes them on."""
    found = dict[str, str]()
    for name in PROXIES:
        value = environ.get(name.lower()) or environ.get(name)
        if value:
            found |= {name: value, name.lower(): value}
    return found


def settings_for_container(environ: Mapping[str, str], lines: Iterable[str]) -> ContainerSettings:
    """Translate the user's settings of pip for a container.

    Args:
        environ: The user's environment variables.
        lines: The lines of the requirements, in which pip replaces ``${NAME}``.

    Raises:
        UserError: A setting cannot be read.
        OSError: A file that a setting names cannot be read.
    """
    lines = list(lines)
    settings = read_settings(environ)
    found = ContainerSettings()
    for name in _CARRIED:
        values = settings.all(name)
        if not values:
            continue
        found.named.append(name)
        if name in _FILES:
            values = (_add_secret(found, name, Path(values[-1]).expanduser()),)
        elif name in _LISTED_FILES:
            values = tuple(_add_file(found, value) for value in values)
        elif name == "find-links":
            values = tuple(_add_links(found, value) for value in values)
        found.variables[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(values)
        found.addresses += [value for value in values if "://" in value]
    _add_formats(found, settings)
    for name in _CERTIFICATES:
        path = Path(environ.get(name) or "")
        if environ.get(name) and path.is_file():
            found.named.append(name)
            found.variables[name] = _add_secret(found, name, path)
    for name in sorted({name for line in lines for name in _USED.findall(line)}):
        if environ.get(name):
            found.named.append(name)
            found.variables[name] = environ[name]
    found.addresses += [address for line in lines for address in _ADDRESS.findall(line)]
    found.variables |= proxy_variables(environ)
    found.addresses += [value for name, value in found.variables.items() if name in PROXIES and name != "NO_PROXY"]
    if found.named:
        for name, path in _login_files(environ):
            found.variables[name] = _add_secret(found, name, path)
    return found


def _add_formats(found: ContainerSettings, settings: PipSettings) -> None:
    for name, values in (("NO_BINARY", settings.formats.no_binary), ("ONLY_BINARY", settings.formats.only_binary)):
        if values:
            found.named.append(name.lower().replace("_", "-"))
            found.variables[f"PIP_{name}"] = ",".join(sorted(values))


def _login_files(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """The files with logins that pip and conda read, with the variables that name them."""
    home = Path(environ.get("HOME") or Path.home())
    for name, usual in (("NETRC", ".netrc"), ("CONDARC", ".condarc")):
        path = Path(environ.get(name) or home / usual)
        if path.is_file():
            yield name, path


def _add_secret(found: ContainerSettings, name: str, path: Path) -> str:
    place = f"{_MEMORY}/{name.lower()}"
    found.secrets[place] = read_bytes(path)
    return place


def _add_file(found: ContainerSettings, value: str) -> str:
    if "://" in value and not value.startswith("file:"):
        return value
    path = Path(unquote(urlsplit(value).path) if value.startswith("file:") else value).expanduser()
    place = f"{PLACE}/{len(found.files)}-{re.sub(r'[^A-Za-z0-9._-]', '-', path.name)}"
    found.files[place] = path.resolve()
    return place


def _add_links(found: ContainerSettings, value: str) -> str:
    return _add_file(found, value) if "://" not in value or value.startswith("file:") else value


def _is_loopback(address: str) -> bool:
    try:
        name = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def list_files(path: Path) -> Iterator[tuple[str, Path]]:
    """The files of a setting's path with their relative names: the file itself, or the packages in a folder."""
    if path.is_file():
        yield "", path
    elif path.is_dir():
        for name in sorted(os.listdir(path)):
            if name.endswith((".whl", ".zip", ".tar.gz", ".tgz", ".html")) and (path / name).is_file():
                yield name, path / name
