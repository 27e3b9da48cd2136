"""Changes a module of Python's or of a library once it is imported, without importing it oneself."""

import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


def change_when_imported(name: str, change: "Callable[[Any], None]") -> None:
    """Have a module changed: now where it is there already, else when the program imports it.

    Args:
        name: The module's full name.
        change: Called with the module. What it raises is passed over: the program matters more.
    """
    if name in sys.modules:
        _tried(change, sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


def _tried(change: "Callable[[Any], None]", module: "Any") -> None:
    try:
        change(module)
    except Exception:
        pass  # Another version than the known ones, or another module of that name.


class _Finder:
    """Stands first among the finders for the moment at which the module is asked for.

    It stays there: another thread that goes through the finders would miss the next one if it went.
    """

    def __init__(self, name: str, change: "Callable[[Any], None]") -> None:
        self._name: "Optional[str]" = name
        self._change = change

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != self._name:
            return None
        self._name = None
        spec = self._found(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_change(module: "Any") -> None:
                load(module)
                _tried(self._change, module)

            spec.loader.exec_module = load_and_change
        return spec

    def _found(self, name: str, path: "Any", target: "Any") -> "Any":
        """What those behind this one find, among which another may stand for a change of the same module."""
        is_behind = False
        for finder in list(sys.meta_path):
            if finder is self:
                is_behind = True
            elif is_behind and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None
