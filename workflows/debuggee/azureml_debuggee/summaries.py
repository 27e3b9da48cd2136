"""Has debuggers show summaries of arrays, tensors, data frames and series (summary_values.py).

This uses pydevd's own interface, `pydevd_extension_api`: a StrPresentationProvider returns a value's text, a
TypeResolveProvider its contents. Ours come before pydevd's own for numpy and pandas. A version without this interface
shows values in its own way.
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

#: The environment variable that switches summaries off.
SWITCH = "AZUREML_DEBUGGEE_SUMMARIES"
#: Seconds for the numbers of all values of a page, and for those of a value that is requested alone.
PAGE_SECONDS, ALONE_SECONDS = 0.03, 2.0
#: Values that are requested within so many seconds of each other belong to one page.
_PAGE_GAP_SECONDS = 0.1
#: Elements, columns and attributes of a value that are shown at most.
MOST_SHOWN = 50
#: Contexts in which an editor shows several lines.
_LONG_CONTEXTS = ("hover", "repl")


def register(environment: Mapping[str, str]) -> None:
    """Register the summaries with pydevd, which has been imported.

    Args:
        environment: The environment variables, which may switch them off.
    """
    if environment.get(SWITCH) == "off":
        return
    try:
        from _pydevd_bundle.pydevd_extension_api import StrPresentationProvider, TypeResolveProvider
        from _pydevd_bundle.pydevd_extension_utils import extensions_of_type

        of_texts, of_contents = extensions_of_type(StrPresentationProvider), extensions_of_type(TypeResolveProvider)
        if type(of_texts) is not list or type(of_contents) is not list:
            return
        if not any(type(one) is _TextProvider for one in of_texts):
            of_texts.insert(0, _TextProvider(of_texts))
            of_contents.insert(0, _ContentsProvider(of_contents))
    except Exception:
        pass  # An unknown version.


class _Provider:
    """The base class of both providers.

    Args:
        providers: All providers of pydevd, in the order in which it asks them.
    """

    def __init__(self, providers: List[Any]) -> None:
        self._providers = providers

    def can_provide(self, type_object: Any, type_name: str) -> bool:
        """Whether this provider shows the values of a class."""
        try:
            return isinstance(type_object, type) and summary_values.is_described(type_object)
        except Exception:
            return False

    def _other_provider(self, value: Any) -> Any:
        """The provider that would show a value without this one; None for pydevd's default."""
        kind = type(value)
        for one in self._providers:
            if one is not self and one.can_provide(kind, snapshot_types.short_name(kind)):
                return one
        return None


class _TextProvider(_Provider):
    """Provides a value's text."""

    _spent, _last = 0.0, 0.0

    def get_str_in_context(self, value: Any, context: str) -> Optional[str]:
        """The text for a context: several lines in `hover` and `repl`, the value's own text in `clipboard`."""
        if context != "clipboard":
            return self._text(value, context)
        return self._text_of_other(value, context)

    def get_str(self, value: Any) -> Optional[str]:
        """The text of one line for a list of variables."""
        return self._text(value, "variables")

    def _text(self, value: Any, context: str) -> Optional[str]:
        begun = time.monotonic()
        seconds = ALONE_SECONDS
        if context == "variables":
            if begun - self._last > _PAGE_GAP_SECONDS:
                self._spent = 0.0
            seconds = PAGE_SECONDS - self._spent
        try:
            found = summary_values.describe(value, begun + seconds)
            if found is None:
                return self._text_of_other(value, context)
            return found.text() if context in _LONG_CONTEXTS else found.line()
        except Exception:
            return "<{}>".format(snapshot_types.class_name(type(value)))
        finally:
            self._last = time.monotonic()
            self._spent += self._last - begun

    def _text_of_other(self, value: Any, context: str) -> Optional[str]:
        """The text without this provider; None for pydevd's default."""
        other = self._other_provider(value)
        if other is None:
            return None
        in_context = getattr(other, "get_str_in_context", None)
        found: Optional[str] = other.get_str(value) if in_context is None else in_context(value, context)
        return found


class _ContentsProvider(_Provider):
    """Provides a value's contents: the elements of a tensor or series, the columns of a data frame.

    pydevd itself provides those of arrays.
    """

    def can_provide(self, type_object: Any, type_name: str) -> bool:
        """Whether this provider shows the contents of a class's values."""
        try:
            libraries = Libraries()
            kinds = [one for one in (libraries.tensor, libraries.frame, libraries.series) if one is not None]
            lineage = snapshot_types.ancestors(type_object) if isinstance(type_object, type) else ()
            return any(one is kind for kind in kinds for one in lineage)
        except Exception:
            return False

    def get_contents_debug_adapter_protocol(self, value: Any, fmt: Any = None) -> List[Content]:
        """The name, value and selecting expression of each element, in the order in which they are shown."""
        try:
            found = self._contents(value)
        except Exception:
            found = None
        if found is not None:
            return found
        return [(name, one, None) for name, one in self._contents_of_other(value).items()]

    def get_dictionary(self, value: Any) -> Dict[str, Any]:
        """The elements by name."""
        return {name: one for name, one, _ in self.get_contents_debug_adapter_protocol(value)}

    def resolve(self, value: Any, attribute: str) -> Any:
        """One element by name."""
        return self.get_dictionary(value).get(attribute)

    def _contents_of_other(self, value: Any) -> Dict[str, Any]:
        other = self._other_provider(value)
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
                return [*_tensor_contents(libraries.tensor, value), *_program_attributes(shape.entries(value))]
        if shape.kind is libraries.frame:
            return _frame_contents(libraries.iloc(libraries.frame, value), value)
        if shape.kind is libraries.series:
            return _series_contents(libraries.iloc(libraries.series, value), value)
        return None


def _program_attributes(entries: Optional[Dict[Any, Any]]) -> List[Content]:
    """The attributes that the program has set on a value."""
    pairs = islice(dict.items(entries or {}), MOST_SHOWN)
    return [(name, one, "." + name) for name, one in pairs if type(name) is str and name.isidentifier()]


def _tensor_contents(kind: Any, value: Any) -> List[Content]:
    sizes = tuple(kind.size(value))
    found: List[Content] = [("shape", sizes, ".shape")]
    names = ("dtype", "device", "layout", "requires_grad", "is_leaf", "grad_fn")
    found += [(name, getattr(kind, name).__get__(value), "." + name) for name in names]
    if found[-2][1]:  # torch warns if `grad` of another tensor is read.
        found.append(("grad", kind.grad.__get__(value), ".grad"))
    if not sizes or str(kind.layout.__get__(value)) != "torch.strided":
        return found
    return found + _elements(sizes[0], lambda at: kind.__getitem__(value, at), "[{}]")


def _frame_contents(iloc: Any, value: Any) -> List[Content]:
    height, width = value.shape
    found: List[Content] = [("shape", (height, width), ".shape"), ("index", value.index, ".index")]
    labels = value.columns[:MOST_SHOWN].tolist()
    is_unique = bool(value.columns.is_unique)
    found.append(("columns", value.columns, ".columns"))
    for number, one in enumerate(labels):
        selector = "[{!r}]".format(one) if is_unique and type(one) in (str, int) else ".iloc[:, {}]".format(number)
        found.append(("[{}]".format(repr(one) if type(one) is str else label(one)), iloc[:, number], selector))
    return found + _remaining(width - len(labels), "columns")


def _series_contents(iloc: Any, value: Any) -> List[Content]:
    found: List[Content] = [(name, getattr(value, name), "." + name) for name in ("shape", "dtype", "name", "index")]
    labels = value.index[:MOST_SHOWN].tolist()
    names = ["[{}]".format(repr(one) if type(one) is str else label(one)) for one in labels]
    for number, name in enumerate(names):
        found.append((name, iloc[number], ".iloc[{}]".format(number)))
    return found + _remaining(len(value) - len(labels), "elements")


def _elements(count: int, get: Any, selector: str) -> List[Content]:
    found: List[Content] = [("[{}]".format(at), get(at), selector.format(at)) for at in range(min(count, MOST_SHOWN))]
    return found + _remaining(count - len(found), "elements")


def _remaining(count: int, what: str) -> List[Content]:
    return [("…", "{:,} more {}".format(count, what), None)] if count > 0 else []
