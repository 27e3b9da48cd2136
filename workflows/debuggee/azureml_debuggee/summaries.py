"""Has debuggers show arrays, tensors, data frames and series by what one wants to know of them (summary_values.py).

By pydevd's own way for this, `pydevd_extension_api`: a StrPresentationProvider gives a value's text, a
TypeResolveProvider what is in it. Ours come before pydevd's own for numpy and pandas. Where a version has no such way,
values are shown as it shows them.
"""

from __future__ import annotations

import time
from itertools import islice

from . import snapshot_types, summary_values
from .snapshot_arrays import Libraries
from .summary_text import label

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Tuple

    Content = Tuple[str, Any, Optional[str]]

#: The environment variable that switches it off.
SWITCH = "AZUREML_DEBUGGEE_SUMMARIES"
#: Seconds that may be spent on the numbers of all values of a page, and on those of one that is asked for alone.
PAGE_SECONDS, ALONE_SECONDS = 0.03, 2.0
#: Values that follow each other within this many seconds are of one page.
_APART = 0.1
#: Elements, columns and attributes that are shown in a value.
MOST = 50
#: What an editor shows in more lines than one, or fetches for someone to read.
_LONG = ("hover", "repl")


def register(environment: Mapping[str, str]) -> None:
    """Tell pydevd, which has been imported, how such values are shown.

    Args:
        environment: Where it may be switched off.
    """
    if environment.get(SWITCH) == "off":
        return
    try:
        from _pydevd_bundle.pydevd_extension_api import StrPresentationProvider, TypeResolveProvider
        from _pydevd_bundle.pydevd_extension_utils import extensions_of_type

        of_texts, of_contents = extensions_of_type(StrPresentationProvider), extensions_of_type(TypeResolveProvider)
        if type(of_texts) is not list or type(of_contents) is not list:
            return
        if not any(type(one) is _Texts for one in of_texts):
            of_texts.insert(0, _Texts(of_texts))
            of_contents.insert(0, _Contents(of_contents))
    except Exception:
        pass  # An unknown version.


class _Provider:
    """What both have in common.

    Args:
        providers: All that there are, in the order in which they are asked.
    """

    def __init__(self, providers: List[Any]) -> None:
        self._providers = providers

    def can_provide(self, type_object: Any, type_name: str) -> bool:
        """Whether values of a class are shown by this one."""
        try:
            return isinstance(type_object, type) and summary_values.is_described(type_object)
        except Exception:
            return False

    def _other(self, value: Any) -> Any:
        """The one that would show a value if it were not for this one; None where that is pydevd itself."""
        kind = type(value)
        for one in self._providers:
            if one is not self and one.can_provide(kind, snapshot_types.short_name(kind)):
                return one
        return None


class _Texts(_Provider):
    """A value's text."""

    _spent, _last = 0.0, 0.0

    def get_str_in_context(self, value: Any, context: str) -> Optional[str]:
        """The text for a place: in `hover` and `repl` of several lines, in `clipboard` the value's own."""
        if context != "clipboard":
            return self._text(value, context)
        return self._others_text(value, context)

    def get_str(self, value: Any) -> Optional[str]:
        """The text for a list of variables, of one line."""
        return self._text(value, "variables")

    def _text(self, value: Any, context: str) -> Optional[str]:
        begun = time.monotonic()
        seconds = ALONE_SECONDS
        if context == "variables":
            if begun - self._last > _APART:
                self._spent = 0.0
            seconds = PAGE_SECONDS - self._spent
        try:
            found = summary_values.describe(value, begun + seconds)
            if found is None:
                return self._others_text(value, context)
            return found.text() if context in _LONG else found.line()
        except Exception:
            return "<{}>".format(snapshot_types.class_name(type(value)))
        finally:
            self._last = time.monotonic()
            self._spent += self._last - begun

    def _others_text(self, value: Any, context: str) -> Optional[str]:
        """What is shown without this one; None for what pydevd makes of any value."""
        other = self._other(value)
        if other is None:
            return None
        in_context = getattr(other, "get_str_in_context", None)
        found: Optional[str] = other.get_str(value) if in_context is None else in_context(value, context)
        return found


class _Contents(_Provider):
    """What is in a value: a tensor's or a series' elements, a data frame's columns; arrays are pydevd's own matter."""

    def can_provide(self, type_object: Any, type_name: str) -> bool:
        """Whether the contents of a class's values are shown by this one."""
        try:
            libraries = Libraries()
            kinds = [one for one in (libraries.tensor, libraries.frame, libraries.series) if one is not None]
            lineage = snapshot_types.ancestors(type_object) if isinstance(type_object, type) else ()
            return any(one is kind for kind in kinds for one in lineage)
        except Exception:
            return False

    def get_contents_debug_adapter_protocol(self, value: Any, fmt: Any = None) -> List[Content]:
        """Names, values, and how each is had from the value; in the order in which they are shown."""
        try:
            found = self._contents(value)
        except Exception:
            found = None
        if found is not None:
            return found
        return [(name, one, None) for name, one in self._others_dictionary(value).items()]

    def get_dictionary(self, value: Any) -> Dict[str, Any]:
        """The same by name."""
        return {name: one for name, one, _ in self.get_contents_debug_adapter_protocol(value)}

    def resolve(self, value: Any, attribute: str) -> Any:
        """One of them."""
        return self.get_dictionary(value).get(attribute)

    def _others_dictionary(self, value: Any) -> Dict[str, Any]:
        other = self._other(value)
        if other is None:
            from _pydevd_bundle.pydevd_resolver import defaultResolver

            other = defaultResolver
        found: Dict[str, Any] = other.get_dictionary(value)
        return found

    def _contents(self, value: Any) -> Optional[List[Content]]:
        libraries = Libraries()
        shape = summary_values.shape_of(libraries, type(value))
        if libraries.tensor is not None and any(one is libraries.tensor for one in shape.lineage):
            disabled = libraries.without_hooks(shape)
            if disabled is None:
                return None
            with disabled:
                return [*_of_tensor(libraries.tensor, value), *_own(shape.entries(value))]
        if shape.kind is libraries.frame:
            return _of_frame(libraries.iloc(libraries.frame, value), value)
        if shape.kind is libraries.series:
            return _of_series(libraries.iloc(libraries.series, value), value)
        return None


def _own(entries: Optional[Dict[Any, Any]]) -> List[Content]:
    """What the program itself has put into a value."""
    pairs = islice(dict.items(entries or {}), MOST)
    return [(name, one, "." + name) for name, one in pairs if type(name) is str and name.isidentifier()]


def _of_tensor(kind: Any, value: Any) -> List[Content]:
    sizes = tuple(kind.size(value))
    found: List[Content] = [("shape", sizes, ".shape")]
    names = ("dtype", "device", "layout", "requires_grad", "is_leaf", "grad_fn")
    found += [(name, getattr(kind, name).__get__(value), "." + name) for name in names]
    if found[-2][1]:  # Of others torch would warn.
        found.append(("grad", kind.grad.__get__(value), ".grad"))
    if not sizes or str(kind.layout.__get__(value)) != "torch.strided":
        return found
    return found + _elements(sizes[0], lambda at: kind.__getitem__(value, at), "[{}]")


def _of_frame(iloc: Any, value: Any) -> List[Content]:
    height, width = value.shape
    found: List[Content] = [("shape", (height, width), ".shape"), ("index", value.index, ".index")]
    labels = value.columns[:MOST].tolist()
    is_unique = bool(value.columns.is_unique)
    found.append(("columns", value.columns, ".columns"))
    for number, one in enumerate(labels):
        way = "[{!r}]".format(one) if is_unique and type(one) in (str, int) else ".iloc[:, {}]".format(number)
        found.append(("[{}]".format(repr(one) if type(one) is str else label(one)), iloc[:, number], way))
    return found + _rest(width - len(labels), "columns")


def _of_series(iloc: Any, value: Any) -> List[Content]:
    found: List[Content] = [(name, getattr(value, name), "." + name) for name in ("shape", "dtype", "name", "index")]
    labels = value.index[:MOST].tolist()
    names = ["[{}]".format(repr(one) if type(one) is str else label(one)) for one in labels]
    for number, name in enumerate(names):
        found.append((name, iloc[number], ".iloc[{}]".format(number)))
    return found + _rest(len(value) - len(labels), "elements")


def _elements(count: int, get: Any, way: str) -> List[Content]:
    found: List[Content] = [("[{}]".format(at), get(at), way.format(at)) for at in range(min(count, MOST))]
    return found + _rest(count - len(found), "elements")


def _rest(count: int, what: str) -> List[Content]:
    return [("…", "{:,} more {}".format(count, what), None)] if count > 0 else []
