"""Masking values that an agent must not see: those whose names look secret, by the rules of the snapshots."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from ..debuggee.azureml_debuggee.snapshot_names import LEFT_OUT, MASK, Names
from ..redaction import mask_known_secrets

__all__ = ["LEFT_OUT", "SecretFilter"]

#: Characters of an expression in which names are searched.
_MOST = 20_000
#: A name, and the beginning of its value, at the end of a truncated text.
_CUT_OFF = re.compile(
    r"""['"]?([A-Za-z_][\w-]{0,100})['"]?\s{0,8}(?:==?|:)\s{0,8}[rbfuRBFU]{0,2}((['"])(?:(?!\3).)*)\Z""", re.DOTALL
)
_WORD = re.compile(r"[^\W\d]\w*")


class SecretFilter:
    """Masks values by their names, and wherever they appear in other texts.

    Args:
        pattern: ``AML_SNAPSHOT_REDACT``; empty for none.
    """

    def __init__(self, pattern: str = "") -> None:
        self._names = Names(re, pattern)
        # Calls come from several threads, and the known values are in a set.
        self._lock = threading.Lock()

    def is_secret(self, name: str) -> bool:
        """Whether a name looks like a secret's."""
        return bool(self._names.is_secret(name))

    def mask_value(self, name: str, text: str) -> str:
        """The text that is shown of a value of this name."""
        with self._lock:
            if self._names.is_secret(name):
                self._names.keep(name, _plain(text))
                return LEFT_OUT
        return self.mask_text(text)

    def mask_text(self, text: str) -> str:
        """Mask values of secret names in a text, and values that were masked before."""
        with self._lock:
            shown: str = self._names.scrubber()(self._names.text(text))
            shown = self._open(shown)
        return str(mask_known_secrets(shown))

    def _open(self, text: str) -> str:
        """Mask the beginning of a secret at the end of a truncated text."""
        found = _CUT_OFF.search(text[-_MOST:])
        if found is None or not self._names.is_secret(found[1]):
            return text
        return text[: len(text) - len(found[2])] + MASK

    def mask_source(self, line: str) -> str:
        """Mask the literals that a line of code assigns to secret names."""
        with self._lock:
            shown: str = self._names.scrubber()(self._names.line(line))
        return str(mask_known_secrets(shown))

    def names_secret(self, expression: str) -> str:
        """The first secret name in an expression (a variable, an attribute, a string); empty if there is none."""
        return next((name for name in _named(expression) if self._names.is_secret(name)), "")

    def mask_deep(self, value: Any, name: str = "") -> Any:
        """Mask secrets in a JSON value, at every depth."""
        if isinstance(value, str):
            return self.mask_value(name, value) if name else self.mask_text(value)
        if isinstance(value, list):
            return [self.mask_deep(one, name) for one in value]
        if isinstance(value, dict):
            return {key: LEFT_OUT if self._hides(key, one) else self.mask_deep(one) for key, one in value.items()}
        return value

    def _hides(self, key: Any, value: Any) -> bool:
        # A flag or null reveals nothing.
        return isinstance(key, str) and value is not None and not isinstance(value, bool) and self.is_secret(key)


def _plain(text: str) -> str:
    """The value of a string literal; the text itself if it is none."""
    try:
        value = ast.literal_eval(text[:_MOST])
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, str) else text


def _named(expression: str) -> Iterator[str]:
    """All names in an expression, and all strings, which may be keys; every word if it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(expression[:_MOST])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from _WORD.findall(expression)
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword | ast.arg):
            yield node.arg or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
