"""Masking secrets that are recognized by their form alone, without knowing their value.

These are private keys, passwords and signatures in URLs, values behind a secret's name, arguments, headers, and tokens
of well-known kinds. :mod:`workflows.redaction` calls :func:`mask_forms` after it has masked the values that it knows.
All of it takes linear time: each expression begins with a literal or a single character, and what follows always
matches or is bounded.
"""

from __future__ import annotations

import re

MASK = "***"
#: Names that look secret and hold the path of a file.
FILE_VARIABLES = re.compile(r"^AML_REMOTE_KEY$|_(?:FILE|PATH|DIR)$", re.IGNORECASE)


def mask_forms(text: str) -> str:
    """Mask secrets by their form once; what a mask has revealed is left for the next call."""
    if "PRIVATE KEY" in text:
        text = _without_private_keys(text)
    text = _ADDRESS.sub(_without_user, text)
    text = _BARE_USER.sub(rf"{MASK}@", text)
    text = _without_named(text)
    text = _USER_ARGUMENT.sub(_without_password, text)
    text = _LOGIN_ARGUMENT.sub(_without_login, text)
    text = _HEADER.sub(_without_credential, text)
    return _TOKEN.sub(MASK, text)


def is_reference(value: str) -> bool:
    """Whether a value is only a reference to another: ``${{inputs.password}}``, ``$VAR``, ``<password>``."""
    return _REFERENCE.fullmatch(value.strip()) is not None


def may_be_port(text: str) -> bool:
    """Whether the text behind a host's colon is a port, or stands for one."""
    return _PORT.match(text) is not None


# Private keys in PEM

KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
KEY_END = "-----END "
#: A line of a key, after whatever a log puts before it: base64 or a header. The last one may be short.
KEY_LINE = re.compile(
    r"[A-Za-z0-9+/]{40}"
    r"|(?:\A|[\s\"'|>\]])(?:[A-Za-z0-9+/]{24,}={0,2}|[A-Za-z0-9+/]{2,23}==?|(?:Proc-Type|DEK-Info): .*)\Z"
    r"|\A[A-Za-z0-9+/]{2,}\Z"
)
#: What stands in one whose end is missing. `\\n` may be written out.
_BODY = re.compile(r"[A-Za-z0-9+/=\s\\]*")


def _without_private_keys(text: str) -> str:
    parts: list[str] = []
    done = 0
    ends = True
    for found in KEY_BEGIN.finditer(text):
        if found.start() < done:
            continue
        end = text.find(KEY_END, found.end()) if ends else -1
        close = text.find("-----", end + len(KEY_END), end + 80) if end >= 0 else -1
        ends = end >= 0
        if ends:
            stop = close + len("-----") if close >= 0 else end + len(KEY_END)
        else:
            body = _BODY.match(text, found.end())
            stop = body.end() if body else found.end()
        parts += [text[done : found.start()], MASK]
        done = stop
        if text[done - 1 : done] == "\n":
            done -= 1
    return "".join([*parts, text[done:]])


# Users and passwords in URLs

_ADDRESS = re.compile(
    r"(?:(?::|%(?:25)?3a)(?://|\\/\\/|%(?:25)?2f%(?:25)?2f)"
    # Where a path was made of it, one of the two slashes is left.
    r"|(?:(?<=http)|(?<=ttps)|(?<=\bftp)):[/\\](?![/\\]))((?:(?!://)\S)*)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}\Z")
_CLOSING = {'"': '"', "'": "'", "`": "`", "<": ">", "(": "", "[": ""}
_AUTHORITY = re.compile(r"(?:(?!%(?:25)?(?:2f|3f|23))[^/?#])*", re.IGNORECASE)
_ENCODED_AT = re.compile(r"%(?:25)?40", re.IGNORECASE)
#: A token in the path of a conda channel.
_CHANNEL_TOKEN = re.compile(r"/t/[\w.~%-]{8,}(?=/|\Z)")
_PORT = re.compile(r"\d*\Z|\W*port\W*\Z|[{$<%(]", re.IGNORECASE)
#: Schemes whose user is no secret; in those of Azure Storage it names a container.
_NAMES_USERS = ("ssh", "sftp", "scp", "rsync", "wasb", "wasbs", "abfs", "abfss", "vscode-remote")


def _without_user(found: re.Match[str]) -> str:
    text, begin = found.string, found.start()
    scheme_ = _SCHEME.search(text[max(0, begin - 32) : begin])
    scheme = scheme_[0].lower() if scheme_ else ""
    before = text[begin - len(scheme) - 1 : begin - len(scheme)] if begin > len(scheme) else ""
    body = found[1]
    for closing in ('"', "<", ">", _CLOSING.get(before, "")):
        if closing and closing in body:
            body = body[: body.index(closing)]
    head, rest = found[0][: len(found[0]) - len(found[1])], found[1][len(body) :]
    authority = _AUTHORITY.match(body)[0]  # type: ignore[index]
    tail = body[len(authority) :]
    if conda := _CHANNEL_TOKEN.match(tail):
        tail = f"/t/{MASK}{tail[conda.end() :]}"
    if "@" not in authority and (encoded := [*_ENCODED_AT.finditer(authority)]) and "%" in head:
        at = encoded[-1]
        return f"{head}{MASK}{authority[at.start() :]}{tail}{rest}"
    user, at_, host = authority.rpartition("@")
    if at_:
        return f"{head}{_user(user, scheme)}@{host}{tail}{rest}"
    name, colon, port = authority.partition(":")
    if not colon or name.startswith("[") or _PORT.match(port):
        return f"{head}{authority}{tail}{rest}"
    # This is no port: it is a password that contains `/`, `?` or `#`, or one that is cut off.
    if "@" in tail:
        return f"{head}{_user(name + ':', scheme)}@{tail.rpartition('@')[2]}{rest}"
    if not tail and not rest and text[found.end() : found.end() + 1] in ("", "\n"):
        return f"{head}{MASK}"
    return found[0]


#: User and password without a scheme, as for images and hosts; a port or path has to follow. Not `name:tag@sha256:…`.
_BARE_USER = re.compile(
    r"(?<![\w@/:.+~-])[\w.+~-]{1,64}:(?!\d{1,5}@)[^\s:@/\"'<>]{1,200}@"
    r"(?=[A-Za-z0-9.-]{1,253}(?::\d{1,5}(?![\w:])|/))"
)


def _user(user: str, scheme: str) -> str:
    """What is shown in front of the ``@``."""
    if scheme.rpartition("+")[2] in _NAMES_USERS:
        name, colon, _password = user.partition(":")
        return f"{name}:{MASK}" if colon else name
    return MASK


# Named values: parameters, variables, fields, arguments

_QUALIFIED_KEY = (
    r"(?:(?:api|access|account|secret|private|subscription|shared|storage|encryption|signing|master|admin|auth"
    r"|functions|instrumentation)[_-]?key|(?:primary|secondary)key)"
)
#: Endings of names that are always secret.
_STRONG = (
    rf"password|passwd|sshpass|passphrase|secret|token|sharedaccesskey|sharedaccesssignature|{_QUALIFIED_KEY}|credentials?"
    r"|connection[_-]?string|registry[_-]?auth|cookie"
)
#: Endings of names that are secret in a URL's query, or where nothing else can be meant.
_WEAK = r"signature|x-(?:amz|goog)-credential|assertion|ticket|session|code|sig|sas|auth|pass|pwd|key|_proxy"
_EQUALS = r"(?:[ \t]{0,8}(?:=>|:=|=|:)[ \t]{0,8}|%(?:25)*3d|\\u003d)"
_QUOTE = r"\\{0,4}[\"']"
_NAMED = re.compile(
    rf"(?P<word>{_STRONG}|{_WEAK})(?:[_-]?value)?"
    rf"(?:(?P<sep>(?P<named>{_QUOTE})?(?P<equals>{_EQUALS})(?:[bruf]{{0,2}}(?P<open>{_QUOTE}))?)"
    rf"|(?P<argument>(?P<list>[\"'],[ \t]{{0,8}}[\"'])|[ \t]{{1,8}})|(?P<tag>>))",
    re.IGNORECASE,
)
_SOFT_ENDS = r"[\w.~%-]{1,40}(?:=|%3d)"
_VALUE = re.compile(
    rf"(?:[^\s\"'`<>&;,\\%]|&(?!{_SOFT_ENDS}|amp;)|;(?!\s|\Z|[ ]?{_SOFT_ENDS})|,(?!\s|\Z|{_SOFT_ENDS})"
    r"|%(?!(?:25)*26)|\\(?!u0026|[\"'nrt]))+",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?:\$\{\{[^{}\n]{0,200}\}\}|'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"])+")
#: A reference to a value: an expression, a shell variable, a placeholder of a usage message.
_REFERENCE = re.compile(
    r"\$\{\{[^{}\n]{0,200}\}\}|\$\{[A-Za-z_]\w{0,100}\}|\$[A-Z_][A-Z0-9_]{0,100}|\$env:\w{1,100}"
    r"|%[A-Za-z_]\w{2,100}%|<[A-Za-z][\w .-]{0,60}>"
)
#: A lower-case shell variable, which outside of a shell may as well be a password.
_SHELL_REFERENCE = re.compile(r"\$[a-z_]{1,100}")
_VALUE_ENDS = re.compile(r"[.:,]?(?:[\s\"'`;&|()\[\]{}<>]|\\|\Z)|,")
_PROXY = re.compile(r"[^\s\"'`<>]+")
_LINE = re.compile(r"[^\n]*")
_IN_QUERY = re.compile(r"(?:[?&;]|%(?:25)*(?:26|3f)|\\u0026)(?:amp;)?[\w.~-]{0,40}\Z", re.IGNORECASE)
_ARGUMENT = re.compile(r"(?:\A|[\s\"'\[(,=])-{1,2}[A-Za-z][\w-]{0,40}\Z|(?:\A|[\s\"'\[(,=])--?\Z")
#: A login of .netrc, on one line or several.
_LOGIN = re.compile(r"\blogin[ \t]+\S{1,80}\s+\Z")
#: A variable in a Dockerfile.
_INSTRUCTION = re.compile(r"\b(?:ENV|ARG)[ \t]+[A-Za-z0-9_]{0,40}\Z")
#: Values that only say whether there is a secret.
_NO_SECRET = re.compile(r"(?:none|null|true|false)\Z", re.IGNORECASE)
_OPEN_TAG = re.compile(r"<[\w:.-]{0,40}\Z")
_NO_TOKEN = re.compile(
    r"-?[\d.,]+(?:e[+-]?\d+)?%?|none|null|true|false|[\W_]*|<.*|\[.*|\{.*|[a-z]+\(.*", re.IGNORECASE | re.DOTALL
)
_PLACEHOLDERS = frozenset(["TEXT", "STRING", "TOKEN", "KEY", "PASSWORD", "SECRET", "VALUE", "FILE", "PATH", "NAME"])
_CONTINUED = re.compile(r"\n[ \t]{0,40}([\w%+/=.~-]{4,})(?=[&\"')]|\n|\Z)")
_PROSE = re.compile(r"[A-Za-z]?[a-z]+[.]?\Z")
_WEAK_NAME = re.compile(rf"(?:{_WEAK})\Z", re.IGNORECASE)
_SECRET_NAME = re.compile(rf"(?:{_STRONG})(?:[_-]?value)?\Z|(?:\A|[_-])(?:sig|pwd|passwd|pass)\Z", re.IGNORECASE)


def is_secret_parameter(name: str) -> bool:
    """Whether a query parameter of this name is a secret."""
    return bool(_SECRET_NAME.search(name) or _WEAK_NAME.search(name))


def is_secret_name(name: str, value: str) -> bool:
    """Whether the value under a name in an object is a secret."""
    if not _SECRET_NAME.search(name) or FILE_VARIABLES.search(name) or is_reference(value):
        return False
    return not (name.lower().endswith("token") and _NO_TOKEN.fullmatch(value))


def _without_named(text: str) -> str:
    parts: list[str] = []
    done = at = 0
    while found := _NAMED.search(text, at):
        span = _secret_span(text, found)
        if span is None:
            # The text behind the name may hold another.
            at = found.end("word")
            continue
        begin, end = span
        parts += [text[done:begin], MASK]
        done = at = end
    return "".join([*parts, text[done:]]) if parts else text


def _secret_span(text: str, found: re.Match[str]) -> tuple[int, int] | None:
    """The span of the value that follows a name; None if it is no secret."""
    word, begin, at = found["word"].lower(), found.start(), found.end()
    before = text[max(0, begin - 48) : begin]
    if found["argument"] is not None:
        return _argument_span(text, found, before)
    if found["tag"] is not None:
        good = _OPEN_TAG.search(before) and not _WEAK_NAME.match(word)
        end = text.find("<", at, at + 20000) if good else -1
        if end > at and not text.startswith("</", end) and not text[at].isalnum():
            # Placeholders of a usage message, not an element: `--password <password> --user <user>`
            return None
        return (at, end) if end > at else None
    queried = _IN_QUERY.search(before) is not None and "=" in found["equals"] + "=" * ("3d" in found["equals"].lower())
    if word == "_proxy":
        return _proxy_span(text, at)
    if (not queried and not _counts_alone(text, found, before)) or _refers_at(text, at):
        return None
    if found["open"] is not None:
        end = _closing(text, found["open"], at)
        nothing = word.endswith("token") and not queried and _NO_TOKEN.fullmatch(text, at, end)
        return (at, end) if end > at and not nothing else None
    if word == "cookie":
        end = _LINE.match(text, at).end()  # type: ignore[union-attr]
        return (at, end) if end > at else None
    value = _VALUE.match(text, at)
    if value is None or value[0][0] in "{[(":
        return None
    end = value.end()
    if not queried:
        end = _trimmed(text, at, end)
    shown = text[at:end]
    if not queried and _NO_SECRET.match(shown):
        return None
    if word.endswith("token") and not queried:
        if _NO_TOKEN.fullmatch(shown):
            return None
        if ": " in found["sep"] and found["named"] is None and _PROSE.match(shown) and len(shown) < 16:
            # "Unexpected token: foo"
            return None
    return at, _continued(text, end)


def _counts_alone(text: str, found: re.Match[str], before: str) -> bool:
    """Whether a name outside of a URL's query is a secret's."""
    word, last = found["word"].lower(), before[-1:]
    assigned = found["equals"].strip() in ("=", "%3D", "%3d", "\\u003d")
    if word in ("sig", "sas"):
        return assigned and not last.isalnum()
    if word == "signature" or word.endswith("-credential"):
        # "expected signature: (x, y)"
        return assigned and not found["equals"].startswith((" ", "\t")) and text[found.end() : found.end() + 1] != "("
    if word == "auth":
        return found["named"] is not None and found["open"] is not None and last in "\"'"
    if word in ("pwd", "pass"):
        variable = last == "_" if word == "pass" else not last.isalnum()
        own = text[found.start() : found.start() + 3] == "PWD" or before.endswith("OLD")
        return assigned and (variable or before.endswith("--")) and not (own and last != "_")
    if word == "key":
        # Any environment variable that ends so, except those that name files or columns.
        name = re.search(r"[A-Z][A-Z0-9_]{0,40}_\Z", before)
        variable = name is not None and found["word"] == "KEY" and not before.endswith("AML_REMOTE_")
        return assigned and variable and text[found.end() : found.end() + 1] not in ("/", "~", ".")
    return not _WEAK_NAME.match(word)


#: User and password after `-u`, as for curl. Two numbers are a user id and a group id.
_USER_ARGUMENT = re.compile(
    r"(?<![\w-])(?P<option>(?:-u|-U|--(?:[a-z]{1,20}-)?(?:user|auth))(?:[= \t]{1,8}|[\"'],[ \t]{0,8}[\"']|)[\"']?)"
    r"(?P<user>[^\s:\"'=]{1,200}:)(?P<password>[^\s\"']+)"
)
#: A password after `-p`, for programs that take it so.
_LOGIN_ARGUMENT = re.compile(
    r"(\b(?:docker|podman|az acr)[ \t]{1,8}login\b[^\n]{0,200}?[ \t]-p[ \t=]{1,8}|\bsshpass -p ?)\S+"
)


def _without_password(found: re.Match[str]) -> str:
    if _refers_at(found.string, found.start("password"), in_shell=True):
        return found[0]
    if found["password"].isdigit() or found["user"].lower() in ("http:", "https:"):
        return found[0]
    return f"{found['option']}{found['user']}{MASK}"


def _without_login(found: re.Match[str]) -> str:
    return found[0] if _refers_at(found.string, found.end(1), in_shell=True) else f"{found[1]}{MASK}"


def _argument_span(text: str, found: re.Match[str], before: str) -> tuple[int, int] | None:
    """The span of an option's value in a command line or a list of arguments; None if it is no secret."""
    word, at = found["word"].lower(), found.end()
    if (_LOGIN.search(before) and word == "password") or (
        _INSTRUCTION.search(before) and found["word"].isupper() and not _WEAK_NAME.match(word)
    ):
        value = _WORD.match(text, at)
        return (at, value.end()) if value and not _refers_at(text, at, in_shell=True) else None
    if not _ARGUMENT.search(before) or (_WEAK_NAME.match(word) and word not in ("sas", "sig", "pass", "pwd")):
        return None
    if _refers_at(text, at, in_shell=found["list"] is None):
        return None
    if found["list"] is not None:
        end = _closing(text, found["list"][-1], at)
        return (at, end) if end > at and not text.startswith("-", at) else None
    value = _WORD.match(text, at)
    if value is None or value[0].startswith("--") or value[0].rstrip(",.;:)]") in _PLACEHOLDERS:
        return None
    return at, _trimmed(text, at, value.end())


def _trimmed(text: str, at: int, end: int) -> int:
    """The end of a value without trailing punctuation, and without brackets that were opened before it."""
    spare = {close: text.count(close, at, end) - text.count(opening, at, end) for opening, close in ("()", "[]", "{}")}
    while end > at + 1 and text[end - 1] in ",.)}]:" and spare.get(text[end - 1], 1) > 0:
        if text[end - 1] in spare:
            spare[text[end - 1]] -= 1
        end -= 1
    return end


def _refers_at(text: str, at: int, in_shell: bool = False) -> bool:
    """Whether the text at a position, quoted or not, is only a reference to a value."""
    quote_ = text[at : at + 1] if in_shell and text[at : at + 1] in ("'", '"') else ""
    at += len(quote_)
    found = _REFERENCE.match(text, at)
    if found is None and in_shell and quote_ != "'":
        found = _SHELL_REFERENCE.match(text, at)
    if found is None:
        return False
    end = found.end()
    return text.startswith(quote_, end) if quote_ else _VALUE_ENDS.match(text, end) is not None


def _proxy_span(text: str, at: int) -> tuple[int, int] | None:
    """The span of user and password without a scheme, as in proxy variables; None if there is none."""
    value = _PROXY.match(text, at)
    if value is None or "://" in value[0] or "@" not in value[0]:
        return None
    return at, at + value[0].rindex("@")


def _closing(text: str, opening: str, at: int) -> int:
    """The end of a quoted text, at the latest the end of the line."""
    depth, stop = len(opening) - 1, re.compile(rf"[\n{opening[-1]}]")
    while found := stop.search(text, at):
        end = found.start()
        if found[0] == "\n":
            return end
        slashes = 0
        while end - slashes > at and text[end - slashes - 1] == "\\":
            slashes += 1
        if slashes <= depth if depth else slashes % 2 == 0:
            return end - slashes if depth else end
        at = end + 1
    return len(text)


def _continued(text: str, end: int) -> int:
    """The end of a value that may continue on the next line."""
    if text[end : end + 1] != "\n":
        return end
    more = _CONTINUED.match(text, end)
    return end if more is None or _PROSE.match(more[1]) else more.end(1)


# Headers, and tokens of well-known kinds

_HEADER = re.compile(
    r"\b(?P<header>authorization[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?)?"
    r"(?P<scheme>(?:bearer|basic|sharedkey(?:lite)?|digest)(?:[ \t]{1,8}|%20|\+))(?P<value>[A-Za-z0-9+/._~:=-]{6,})"
    r"|\bauthorization[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?(?:token[ \t]{1,8})?(?P<bare>[A-Za-z0-9+/._~-]{16,}={0,2})",
    re.IGNORECASE,
)
_NO_CREDENTIAL = re.compile(
    r"(?:auth\w*|tokens?|realm|scheme|error|credentials?|usage|access|challenge)\b", re.IGNORECASE
)


def _without_credential(found: re.Match[str]) -> str:
    if found["bare"] is not None:
        bare = found["bare"]
        return found[0] if bare.isalpha() and bare.islower() else found[0][: found.start("bare") - found.start()] + MASK
    value, scheme = found["value"], found["scheme"].strip().lower()
    if _NO_CREDENTIAL.match(value) or ("=" in value.rstrip("=") and not found["header"]):
        return found[0]
    if scheme != "bearer" and not found["header"] and re.fullmatch(r"[A-Z]?[a-z]+[.:]?", value):
        return found[0]
    return found[0][: found.start("value") - found.start()] + MASK


_ALONE = r"(?<![A-Za-z0-9])"
_TOKEN = re.compile(
    # JSON web tokens
    r"(?:(?<![\w-])|(?<=%20)|(?<=%3D)|(?<=%3d))eyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)?"
    # GitHub, GitLab, Hugging Face, OpenAI and the like, Slack, PyPI, npm, Docker, Google, Databricks
    rf"|{_ALONE}gh[pousr]_[A-Za-z0-9]{{30,}}|{_ALONE}github_pat_\w{{20,}}|{_ALONE}glpat-[\w-]{{16,}}"
    rf"|{_ALONE}hf_[A-Za-z0-9]{{30,}}|{_ALONE}sk-[\w-]{{20,}}|{_ALONE}xox[abeoprs]-[\w-]{{10,}}"
    rf"|{_ALONE}pypi-[\w-]{{40,}}|{_ALONE}npm_[A-Za-z0-9]{{30,}}|{_ALONE}dckr_pat_[\w-]{{20,}}"
    rf"|{_ALONE}AIza[\w-]{{35}}|{_ALONE}dapi[0-9a-f]{{32}}|{_ALONE}(?:AKIA|ASIA)[A-Z0-9]{{16}}(?![A-Za-z0-9])"
    # Azure: a client's secret, a storage account's key
    r"|(?<![\w~.-])[\w~.-]{3}[78]Q~[\w~.-]{31,34}|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}=="
)
