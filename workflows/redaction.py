"""Masking secrets in everything that the program shows, logs, records or reports.

:func:`scrub` recognizes them by their form (passwords in URLs, signatures and keys in queries, connection strings,
headers, arguments, private keys, tokens of well-known kinds) and by their value: that of variables with a secret's
name, and those passed to :func:`keep_secret`. The rest stays readable: ``https://host/path?sv=1&sig=***``.

It handles megabytes of other programs' output, some of it hostile, so all of it takes linear time. The forms are in
:mod:`workflows.secret_forms`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from .secret_forms import (
    FILE_VARIABLES,
    KEY_BEGIN,
    KEY_END,
    KEY_LINE,
    is_reference,
    is_secret_name,
    is_secret_parameter,
    mask_forms,
    may_be_port,
)
from .secret_forms import MASK as MASK

# Values that are known ------------------------------------------------------------------------------

#: Shorter values are not masked: they occur in ordinary text.
_SHORTEST = 6
_COMMON = frozenset(
    (
        "password",
        "passwd",
        "secret",
        "secrets",
        "token",
        "tokens",
        "default",
        "disabled",
        "enabled",
        "required",
        "azureml",
    )
)
_SECRET_VARIABLE = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CONNECTION_?STRING|IDENTITY_HEADER"
    r"|(?:TOKEN|_KEY|APIKEY|_SAS|_PAT|_PASS|_PWD)$",
    re.IGNORECASE,
)
_SECRET_INPUT = re.compile(
    r"(?:SECRET|PASSWORD|PASSWD|PASSPHRASE)[_-]?(?:\d{1,3}|dev|test|prod|old|new)\Z|(?:\A|[_-])(?:SAS|PAT)\Z",
    re.IGNORECASE,
)


class _Known:
    """The secrets that are known by value, in all their spellings."""

    def __init__(self) -> None:
        self.values: set[str] = set()
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._folded: re.Pattern[str] | None = None
        self._environment = False

    def add(self, value: str) -> None:
        value = value.strip()
        if value in self.values or len(value) < _SHORTEST or value.lower() in _COMMON or MASK in value:
            return
        if value.isdigit() and len(value) < 8:
            return
        self.values.add(value)
        encoded = quote(value, safe="")
        self._spellings |= {value, encoded, quote(value), quote_plus(value), _lower_hex(encoded)}
        # As in a JSON text, a Python literal and a shell's word.
        escaped = value.replace("\\", "\\\\")
        self._spellings |= {escaped, escaped.replace('"', '\\"'), escaped.replace("'", "\\'")}
        self._spellings.add(value.replace("'", "'\"'\"'"))
        self._pattern = self._folded = None

    def leave_out(self, text: str) -> str:
        if not self._environment:
            self._environment = True
            keep_variables(os.environ)
        if not self._spellings:
            return text
        if self._pattern is None:
            # The longest first: one may be a part of another.
            ordered = sorted(self._spellings, key=lambda one: (-len(one), one))
            self._pattern = re.compile("|".join(map(_bounded, ordered)))
        text = self._pattern.sub(MASK, text)
        if "\n" in text:
            if self._folded is None:
                # A secret may be split by a line break. Short ones are not looked for: they would match too much.
                long = sorted(
                    (one for one in self._spellings if 10 <= len(one) <= 1000), key=lambda one: (-len(one), one)
                )
                folded = ("(?:\\n[ \\t]{0,40})?".join(map(re.escape, one)) for one in long)
                self._folded = re.compile("|".join(folded) or r"(?!)")
            text = self._folded.sub(MASK, text)
        return text


def _bounded(spelling: str) -> str:
    """The expression for a spelling; a short one has to stand alone."""
    if len(spelling) >= 8:
        return re.escape(spelling)
    return rf"(?<![A-Za-z0-9]){re.escape(spelling)}(?![A-Za-z0-9])"


def _lower_hex(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), text)


_known = _Known()


def keep_secret(value: str) -> None:
    """Register a secret: it is masked from now on, in every spelling."""
    if value:
        _known.add(value)


def keep_variables(variables: Mapping[str, str]) -> None:
    """Register values of variables with a secret's name, and passwords in the variables' URLs."""
    for name, value in variables.items():
        if not isinstance(value, str) or not value or value.lower() == name.lower():
            continue
        if _SECRET_VARIABLE.search(name) and not FILE_VARIABLES.search(name) and not _is_place(value):
            for line in value.splitlines() if len(value) > 1000 or "\n" in value else [value]:
                keep_secret(line)
        if "://" in value:
            keep_addresses(value)
        elif name.lower().endswith("_proxy") and "@" in value:
            keep_address(f"http://{value}")


def keep_conda_variables(content: Mapping[str, Any]) -> None:
    """:func:`keep_variables` for the ``variables`` of a conda file."""
    variables = content.get("variables")
    if isinstance(variables, Mapping):
        keep_variables({str(name): str(value) for name, value in variables.items()})


def keep_inputs(inputs: Mapping[str, str]) -> None:
    """Register values of literal inputs with a secret's name, and passwords in the inputs' URLs."""
    for name, value in inputs.items():
        if is_secret_input(name, value) and value.lower() != name.lower():
            keep_secret(value)
        keep_addresses(value)


def is_secret_input(name: str, value: str) -> bool:
    """Whether a literal input has a secret's name; ``primary_key`` is none, since it names a column."""
    return is_secret_name(name, value) or (_SECRET_INPUT.search(name) is not None and not is_reference(value))


def find_known_secrets(text: str) -> list[str]:
    """The registered secrets that occur in a text."""
    return sorted(value for value in _known.values if value in text)


def keep_address(address: str) -> None:
    """Register the password and the signature of a URL, and the parts of the password."""
    rest = address.partition("://")[2]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        user, colon, password = authority.rpartition("@")[0].partition(":")
        # A token may stand in place of a user.
        one = password if colon else user
        if colon or not address.partition("://")[0].lower().endswith("ssh"):
            keep_secret(one)
            keep_secret(unquote(one))
    elif "@" in rest and not may_be_port(authority.partition(":")[2]):
        # A password with `/`, `?` or `#` in it, as :func:`scrub` reads it.
        for part in re.split("[/?#]", rest.rpartition("@")[0].partition(":")[2]):
            keep_secret(part)
    query = rest.partition("?")[2].partition("#")[0]
    if len(query) < 20000:
        for name, value in parse_qsl(query):
            if is_secret_parameter(name):
                keep_secret(value)


def keep_addresses(text: str) -> None:
    """:func:`keep_address` for every URL in a text, such as a line of a requirements file."""
    if "://" in text:
        for word in re.split(r"[\s,;\"'<>]+", text):
            keep_address(word)


def _is_place(value: str) -> bool:
    """Whether a variable's value is an existing path or a reference to another variable."""
    return is_reference(value) or (
        value.startswith(("/", "~/", "./", "../")) and os.path.exists(os.path.expanduser(value))
    )


# Forms ----------------------------------------------------------------------------------------------


#: A masked text may reveal another secret. Only an attack needs more than two rounds.
_ROUNDS = 8


def scrub(text: str) -> str:
    """Mask the secrets in a text. It is idempotent, and a text without secrets is unchanged."""
    for _ in range(_ROUNDS):
        before, text = text, _scrub_once(text)
        if text == before:
            break
    return text


def _scrub_once(text: str) -> str:
    if not text:
        return text
    return mask_forms(_known.leave_out(text))


def scrub_value(value: Any) -> Any:
    """Mask the secrets in a JSON value: texts are scrubbed, and texts under a secret's name are replaced."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {_key(name): _under(str(name), one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub_value(one) for one in value]
    return value


def _key(name: Any) -> Any:
    return scrub(name) if isinstance(name, str) else name


def _under(name: str, value: Any) -> Any:
    if isinstance(value, str) and value and is_secret_name(name, value):
        return MASK
    return scrub_value(value)


def mask_known_secrets(value: Any) -> Any:
    """Mask only registered secrets in a JSON value.

    This is for values of the user's own program that they ask to see: a variable called `token` is shown, but a secret
    that the program was given is not.
    """
    if isinstance(value, str):
        return _known.leave_out(value)
    if isinstance(value, Mapping):
        return {name: mask_known_secrets(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_known_secrets(one) for one in value]
    return value


class LineScrubber:
    """Masks secrets in text that comes line by line, including private keys of many lines."""

    #: Lines after which a private key without an end is taken for ordinary text.
    LONGEST = 200

    def __init__(self) -> None:
        self._inside = 0

    def __call__(self, line: str) -> str:
        """Mask the secrets in the next line."""
        if self._inside and KEY_END in line:
            self._inside = 0
            return MASK + scrub(line.partition(KEY_END)[2].partition("-----")[2])
        if self._inside:
            self._inside -= 1
            # Other lines may come in between, or a key was only mentioned.
            if KEY_LINE.search(line.rstrip()):
                return MASK
        if "PRIVATE KEY" in line:
            *_, last = [None, *KEY_BEGIN.finditer(line)]
            if last is not None and KEY_END not in line[last.end() :]:
                self._inside = self.LONGEST
        return scrub(line)
