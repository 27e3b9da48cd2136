"""The user's SSH configuration of a machine, as OpenSSH itself resolves it: ssh_config(5)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..paths import home_folder

#: The keys that ssh tries if none is named.
_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa")
_DEFAULT_KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_DEFAULT_GLOBAL = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
#: Tokens and variables in a path.
_TOKEN = re.compile(r"%(.?)|\$\{([^}]*)\}", re.DOTALL)
_WINDOWS_AGENT = r"\\.\pipe\openssh-ssh-agent"
#: The separator of two paths in one line: each path is absolute or begins with ~.
_BETWEEN = re.compile(r" (?=[/~]|none$|[A-Za-z]:[/\\\\]|__)")


class SshConfig:
    """The SSH configuration of one machine.

    Args:
        host: The name that would be typed after ``ssh``.
        user: The user of the login, for ``Match user``; empty for the one in the configuration.
        port: The port; 0 for the one in the configuration.

    Raises:
        UserError: It cannot be read.
    """

    def __init__(self, host: str, user: str = "", port: int = 0) -> None:
        self._host = host
        self._options = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
        self._values = self._run_ssh_g(*self._options) if shutil.which("ssh") else _paramiko(host)

    def first(self, name: str) -> str:
        """The first value of a keyword; empty if it is not set."""
        return next(iter(self._values.get(name, ())), "")

    def flag(self, name: str) -> bool:
        """Whether a keyword is set to yes."""
        return self.first(name) in ("yes", "true")

    def tokens(self, host: str, port: int, user: str) -> dict[str, str]:
        """The values of the tokens in a path.

        Args:
            host: The host name or IP address to connect to.
            port: Its SSH port.
            user: The user of the login.
        """
        here = socket.gethostname()
        return {
            "%": "%",
            "d": str(home_folder()),
            "h": host,
            "i": str(os.getuid()) if hasattr(os, "getuid") else "",
            "j": self.first("proxyjump"),
            "k": self.first("hostkeyalias").lower() or self._host,
            "L": here.partition(".")[0],
            "l": here,
            "n": self._host,
            "p": str(port),
            "r": user,
            "u": local_user(),
        }

    def keys(self, tokens: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The paths of key files: those that the user has named, and those that ssh tries by default."""
        values = [value for value in self._values.get("identityfile", ()) if value != "none"]
        usual = {f"~/.ssh/{name}" for name in _DEFAULT_KEYS}
        if all(value in usual for value in values) or not values:
            return [], [self._path(value, tokens, "IdentityFile") for value in values or sorted(usual)]
        return [self._path(value, tokens, "IdentityFile") for value in values], []

    def certificates(self, tokens: Mapping[str, str]) -> list[str]:
        """The paths of certificates that the user has named."""
        values = [value for value in self._values.get("certificatefile", ()) if value != "none"]
        return [self._path(value, tokens, "CertificateFile") for value in values]

    def agent(self, tokens: Mapping[str, str]) -> str:
        """The agent's socket; empty for none."""
        value = self.first("identityagent") or "SSH_AUTH_SOCK"
        if value == "none":
            return ""
        if value == "SSH_AUTH_SOCK":
            # Windows' agent has a fixed pipe and needs no variable.
            usual = _WINDOWS_AGENT if os.name == "nt" and os.path.exists(_WINDOWS_AGENT) else ""
            return os.environ.get("SSH_AUTH_SOCK") or usual
        if value.startswith("$") and not value.startswith("${"):
            return os.environ.get(value[1:], "")
        return self._path(value, tokens, "IdentityAgent")

    def known_hosts(self, tokens: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The files of host keys of the user, and those of the system."""
        own = self._files("userknownhostsfile", tokens) or [_at_home(path) for path in _DEFAULT_KNOWN]
        return own, self._files("globalknownhostsfile", tokens) or list(_DEFAULT_GLOBAL)

    def revoked(self, tokens: Mapping[str, str]) -> str:
        """The file of revoked host keys; empty for none."""
        value = self.first("revokedhostkeys")
        return "" if value in ("", "none") else self._path(value, tokens, "RevokedHostKeys")

    def _files(self, keyword: str, tokens: Mapping[str, str]) -> list[str]:
        """The paths of a keyword that takes several. ssh -G does not quote spaces inside a path."""
        words = [word for line in self._values.get(keyword, ()) for word in _BETWEEN.split(line)]
        return [
            self._path(word, tokens, keyword) if "${" in word else _at_home(word)
            for word in words if word not in ("", "none")
        ]  # fmt: skip

    def _path(self, value: str, tokens: Mapping[str, str], keyword: str) -> str:
        """A path with its tokens and variables expanded."""

        def filled(match: re.Match[str]) -> str:
            letter, variable = match[1], match[2]
            if variable is not None:
                if variable not in os.environ:
                    raise UserError(
                        f"The SSH configuration names ${{{variable}}} in {keyword}, and {variable} is not set.",
                        f"Set it, or correct ~/.ssh/config (Host {self._host}).",
                    )
                return os.environ[variable]
            if letter == "C":
                return self._hash(tokens)
            if letter not in tokens:
                raise UserError(
                    f"The SSH configuration has %{letter} in {keyword}, which stands for nothing there.",
                    f"Correct ~/.ssh/config (Host {self._host}); ssh_config(5) lists the tokens.",
                )
            return tokens[letter]

        return _at_home(_TOKEN.sub(filled, value.strip('"')))

    def _hash(self, tokens: Mapping[str, str]) -> str:
        """The value of the token %C. Its definition depends on the version of ssh, so ssh computes it if installed."""
        if shutil.which("ssh"):
            asked = self._run_ssh_g(*self._options, "-o", "UserKnownHostsFile=/%C").get("userknownhostsfile", [""])
            if re.fullmatch(r"/[0-9a-f]+", asked[0]):
                return asked[0][1:]
        return hashlib.sha1("".join(tokens[one] for one in "lhprj").encode(), usedforsecurity=False).hexdigest()

    def _run_ssh_g(self, *options: str) -> dict[str, list[str]]:
        """The configuration as ``ssh -G`` resolves it, with ``Include`` and ``Match``."""
        own = configuration_file()
        # ssh takes the home folder from the user's account, not from HOME.
        chosen = ["-F", str(own)] if own.is_file() and _home_differs() else []
        done = subprocess.run(
            ["ssh", "-G", *chosen, *options, "--", self._host],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30, check=False,
        )  # fmt: skip
        if done.returncode:
            messages = [line for line in done.stderr.strip().splitlines() if not line.startswith("Pseudo-terminal")]
            word = (messages or ["ssh does not say why"])[0].rstrip(".")
            raise UserError(
                f"The SSH configuration cannot be read: {word}.", "Correct ~/.ssh/config (ssh -G HOST shows it)."
            )
        values: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            name, _space, value = line.partition(" ")
            values.setdefault(name.lower(), []).append(value)
        if _home_differs():
            values = {name: [_with_home(value) for value in found] for name, found in values.items()}
        return values


def configuration_file() -> Path:
    """The user's SSH configuration file."""
    return home_folder() / ".ssh" / "config"


def local_user() -> str:
    """The user's name on this machine."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "root"


def _at_home(path: str) -> str:
    return os.path.expanduser(path.strip('"'))


def _account_home() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError, AttributeError):
        return str(Path.home())


def _home_differs() -> bool:
    return os.path.abspath(_account_home()) != str(Path.home().absolute())


def _with_home(value: str) -> str:
    """A default path of ssh with HOME in place of the account's home folder."""
    before = f"{_account_home().rstrip('/')}/.ssh/"
    return " ".join(
        str(Path.home() / ".ssh" / word[len(before) :]) if word.startswith(before) else word
        for word in value.split(" ")
    )


def _paramiko(host: str) -> dict[str, list[str]]:
    """The configuration as paramiko reads it, if no ssh client is installed."""
    from paramiko import SSHConfig

    path = configuration_file()
    found = dict(SSHConfig.from_path(str(path)).lookup(host)) if path.is_file() else {}
    return {name: value if isinstance(value, list) else [str(value)] for name, value in found.items()}
