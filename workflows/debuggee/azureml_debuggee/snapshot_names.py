"""Decides what a snapshot leaves out: values with secret-looking names, and the same values elsewhere.

The words of a name decide, so that `tokenizer` and `monkey` are kept. The words are the same for variables,
attributes, keys of dictionaries and options on a command line.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

#: Replaces a value that has been left out.
LEFT_OUT = "<left out: its name looks secret>"
MASK = "***"
#: Words of a name that make its value a secret.
_WORDS = frozenset(
    (
        *("password", "passwords", "passwd", "pwd", "passphrase", "token", "tokens", "secret", "secrets", "sas", "pat"),
        *("credential", "credentials", "creds", "key", "keys", "apikey", "apikeys", "accesskey", "accountkey", "jwt"),
        *("sharedkey", "privatekey", "connectionstring", "connectionstrings", "connstr", "authorization", "bearer"),
        *("cookie", "cookies"),
    )
)
#: Pairs of adjacent words with the same effect.
_PAIRS = frozenset(("connection string", "connection strings", "conn str", "conn string", "pass word", "pass phrase"))
#: Words that also name other things than secrets: such values are left out, but not searched for elsewhere.
_WEAK = frozenset(("key", "keys", "token", "tokens", "pat"))
#: Words in combination with which those names are only used for secrets.
_STRENGTHENING = frozenset(
    ["api", "access", "account", "auth", "private", "shared", "signing", "encryption", "bearer", "refresh"]
)
#: Endings of words that are written together, such as `mypassword`.
_ENDINGS = ("password", "passwd", "secret", "credential", "credentials", "apikey", "connectionstring", "passphrase")
#: Characters of a name that are inspected.
_MOST_NAME = 200
#: Characters of a secret that is searched for elsewhere, at least and at most; and the number of such secrets.
_SHORTEST, _LONGEST, _MOST = 6, 4096, 200


class Names:
    """Tells which names look secret, and remembers the values that have been left out.

    Args:
        re: Python's own module of that name.
        pattern: The user's regular expression for further names; an invalid one is taken as plain text.
    """

    def __init__(self, re: Any, pattern: str = "") -> None:
        self._re = re
        self._split = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
        self._more: Any = None
        if pattern:
            try:
                self._more = re.compile(pattern, re.IGNORECASE)
            except Exception:
                self._more = re.compile(re.escape(pattern), re.IGNORECASE)
        self._known: Dict[str, bool] = {}
        self._values: Set[str] = set()
        literal = r"(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
        #: A name, in quotes or not, and the literal assigned to it, or compared with it by `==`, which reveals as much.
        self._assignment = re.compile(
            r"(?<![\w])([\"']?)([A-Za-z_][\w-]{0,100})\1(\s{0,8}(?::[^=:\n\"']{1,60})?(?:==?|:)\s{0,8}[rbfuRBFU]{0,2})("
            + literal
            + ")"
        )
        self._literal = re.compile(literal)
        #: The same in other texts than code: `password=x`, `AccountKey=x;`, `sig=x&`.
        self._plain_assignment = re.compile(r"(?<![\w])([A-Za-z_][\w-]{0,100})\s?[=:]\s?")
        self._value_pattern = re.compile(r"[^\s;&,'\"<>]{1,4000}")
        #: Secrets that are recognized by their form.
        self._secret_forms = re.compile(
            r"(?<=://)[^\s/:@'\"]{0,200}:[^\s/@'\"]{1,200}(?=@)|(?<=[?&]sig=)[^\s&'\"]{1,500}"
            r"|(?i:(?<=\bbearer ))[\w.~+/=-]{8,4000}|\beyJ[\w-]{10,2000}\.[\w-]{10,3000}\.[\w-]{0,2000}"
        )

    def is_secret(self, name: str) -> bool:
        """Whether a name looks like that of a secret."""
        name = name[:_MOST_NAME]
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._is_secret(name)
        return known

    def _is_secret(self, name: str) -> bool:
        if self._more is not None and self._more.search(name):
            return True
        words = self.words(name)
        if not _WORDS.isdisjoint(words) or any(word.endswith(_ENDINGS) for word in words):
            return True
        return any("{} {}".format(*pair) in _PAIRS for pair in zip(words, words[1:]))

    def is_weak(self, name: str) -> bool:
        """Whether a secret-looking name is one that is also used for counts and positions."""
        words = set(self.words(name))
        return bool(words & _WEAK) and not words & (_WORDS - _WEAK | _STRENGTHENING)

    def words(self, name: str) -> List[str]:
        """The words of a name, in lower case."""
        return [word.lower() for word in self._split.findall(name)]

    # What has been left out

    def keep(self, name: str, text: str) -> None:
        """Remember a value that has been left out, so that it is removed from other texts as well."""
        text = text.strip()
        if not _SHORTEST <= len(text) <= _LONGEST or len(self._values) >= _MOST:
            return
        # For instance PWD, or the path of a key file: a path is no secret, and other texts need it.
        if text[0] in "/.~" and "\0" not in text and os.path.lexists(text):
            return
        is_mixed = any(one.isdigit() for one in text) and any(one.isalpha() for one in text)
        words = set(self.words(name)) & _WORDS
        is_weak = bool(words) and words <= _WEAK and len(self.words(name)) == 1
        # A value that could be any word of the program is not removed from other texts.
        if is_mixed or (not is_weak and not text.replace("_", "").replace("-", "").isalpha()) or len(text) >= 20:
            self._values.add(text)

    def scrubber(self) -> Any:
        """A function that removes the left-out values from a text."""
        known = sorted(self._values, key=len, reverse=True)
        spellings: List[str] = []
        for text in known:
            spellings.append(text)
            escaped = repr(text)[1:-1]
            if escaped != text:
                spellings.append(escaped)
        pattern = self._re.compile("|".join(map(self._re.escape, spellings))) if spellings else None
        forms = self._secret_forms

        def scrub(text: str) -> str:
            if pattern is not None:
                text = pattern.sub(MASK, text)
            if "://" in text or "sig=" in text or "eyJ" in text or "earer " in text:
                text = forms.sub(MASK, text)
            return text

        return scrub

    def line(self, line: str) -> str:
        """A line of code without the literals assigned to secret names."""

        def change(found: Any) -> str:
            if not self.is_secret(found.group(2)):
                return str(found.group(0))
            self.keep(found.group(2), found.group(4)[1:-1])
            quote = found.group(4)[0]
            return "{0}{1}{0}{2}{3}{4}{3}".format(found.group(1), found.group(2), found.group(3), quote, MASK)

        if "'" not in line and '"' not in line:
            return line
        line = str(self._assignment.sub(change, line))
        return str(self._literal.sub(lambda found: self._without_plain(found.group(0)), line)) if "=" in line else line

    def text(self, text: str) -> str:
        """A message without the values of secret names."""
        return self._without_plain(self.line(text)) if ("=" in text or ":" in text) else text

    def _without_plain(self, text: str) -> str:
        parts: List[str] = []
        done = 0
        for found in self._plain_assignment.finditer(text):
            if found.start() < done or not self.is_secret(found.group(1)):
                continue
            value = self._value_pattern.match(text, found.end())
            if value is not None and value.group(0) != MASK:
                self.keep(found.group(1), value.group(0))
                parts += [text[done : found.end()], MASK]
                done = value.end()
        return "".join([*parts, text[done:]])

    def arguments(self, arguments: Sequence[str]) -> List[str]:
        """A command line without the values of secret options."""
        return list(self._arguments(arguments))

    def _arguments(self, arguments: Sequence[str]) -> Iterator[str]:
        before: Optional[str] = None
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if before is not None and not argument.startswith("-"):
                self.keep(before, argument)
                yield MASK
                before = None
                continue
            before = None
            if equals and self.is_secret(name):
                self.keep(name, value)
                yield name + "=" + MASK
                continue
            if argument.startswith("-") and not equals and self.is_secret(argument):
                before = argument
            yield argument
