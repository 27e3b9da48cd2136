"""Changes a module of Python or of a library when the program imports it, without importing it for that."""

import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


def change_when_imported(name: str, change: "Callable[[Any], None]") -> None:
    """Have a module changed: now if it is imported already, else when the program imports it.

    Args:
        name: The module's full name.
        change: Called with the module. Its exceptions are ignored, so that the program is not disturbed.
    """
    if name in sys.modules:
        _try_change(change, sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


def _try_change(change: "Callable[[Any], None]", module: "Any") -> None:
    try:
        change(module)
    except Exception:
        pass  # An unknown version, or another module of that name.


class _Finder:
    """A finder before all others, which changes the module when it is first imported.

    It is never removed: another thread that iterates over the finders at that moment would skip one.
    """

    def __init__(self, name: str, change: "Callable[[Any], None]") -> None:
        self._name: "Optional[str]" = name
        self._change = change

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != self._name:
            return None
        self._name = None
        spec = self._find_with_others(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_change(module: "Any") -> None:
                load(module)
                _try_change(self._change, module)

            spec.loader.exec_module = load_and_change
        return spec

    def _find_with_others(self, name: str, path: "Any", target: "Any") -> "Any":
        """The spec from the finders after this one. One of them may be another hook for the same module."""
        is_behind = False
        for finder in list(sys.meta_path):
            if finder is self:
                is_behind = True
            elif is_behind and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None
