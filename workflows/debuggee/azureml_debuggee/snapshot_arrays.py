"""Describes arrays, tensors and tables with the libraries that the program has loaded; nothing is imported for them.

Shapes and element types are read by the library's own functions, whatever a subclass has overridden. The elements
themselves are read only if they are certainly in this process's memory.
"""

from __future__ import annotations

import sys
import time

from . import snapshot_types
from .snapshot_names import LEFT_OUT
from .snapshot_types import as_str, is_a, is_exactly

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from .snapshot_names import Names
    from .snapshot_types import Shape

    Add = Callable[[Any, str, int], Optional[int]]

#: Elements of an array that are recorded, and rows and columns of a table.
ELEMENTS, ROWS, COLUMNS = 20, 5, 50
#: Elements of an array up to which NaN and infinities are counted, and how many are counted at a time.
COUNTED, _PIECE = 10_000_000, 1_000_000
#: The type flag of classes that are created at run time.
_HEAP_TYPE = 1 << 9


class Libraries:
    """The loaded modules and classes of numpy, torch and pandas.

    Attributes:
        numpy: The contents of the module numpy; empty if it is not loaded.
        torch: The same for torch.
        pandas: The same for pandas.
        array, generic, tensor, frame, series: Their classes; None if not loaded.
    """

    def __init__(self) -> None:
        modules = sys.modules
        self.numpy = snapshot_types.module_entries(modules.get("numpy"))
        self.array: Any = _builtin_or_none(self.numpy.get("ndarray"))
        self.generic: Any = _builtin_or_none(self.numpy.get("generic"))
        # A module of the user may have one of these names; the real libraries come with C code.
        self.torch = snapshot_types.module_entries(modules.get("torch")) if _is_extension(modules, "torch._C") else {}
        self.tensor: Any = self.torch.get("Tensor")
        is_pandas = _is_extension(modules, "pandas._libs.lib")
        self.pandas = snapshot_types.module_entries(modules.get("pandas")) if is_pandas else {}
        self.frame: Any = self.pandas.get("DataFrame")
        self.series: Any = self.pandas.get("Series")

    def iloc(self, kind: Any, value: Any) -> Any:
        """The object that selects rows and columns of a table by their numbers."""
        return kind.iloc.fget(value)

    def without_hooks(self, shape: Shape) -> Any:
        """A context in which torch calls no hooks for a tensor; None if its class overrides how it is read."""
        inner = snapshot_types.module_entries(sys.modules.get("torch._C"))
        for one in shape.lineage:
            if one is self.tensor:
                break
            if any(name == "__torch_dispatch__" for name, _ in snapshot_types.class_entries(one)):
                return None  # The class may override even its shape.
        active: Any = inner.get("_len_torch_dispatch_stack")
        if active is not None and active():
            return None
        disabled: Any = inner.get("DisableTorchFunction")
        return None if disabled is None else disabled()


def has_memory(detached: Any) -> bool:
    """Whether a detached tensor's elements exist: a tensor whose memory has been released still has its shape."""
    storage = detached.untyped_storage() if hasattr(detached, "untyped_storage") else detached.storage()
    steps = zip(detached.size(), detached.stride())
    last = detached.storage_offset() + sum((size - 1) * step for size, step in steps if size)
    return bool(storage.nbytes() >= (last + 1) * detached.element_size())


def manager_of(value: Any, shape: Shape) -> Any:
    """The object that holds a table's columns; None if it is not pandas' own."""
    manager: Any = dict.get(shape.entries(value) or {}, "_mgr")
    return manager if snapshot_types.module_name(type(manager)).startswith("pandas.") else None


def is_plain(manager: Any) -> bool:
    """Whether all of a table's columns are numpy's or pandas' own."""
    return all(
        snapshot_types.module_name(type(block.values)).partition(".")[0] in ("numpy", "pandas")
        for block in getattr(manager, "blocks", ())
    )


class Arrays:
    """Describes arrays and tables of the loaded libraries.

    Args:
        until: The end of the available time, on the monotonic clock.
        names: Tells what is left out.
    """

    def __init__(self, until: float, names: Names) -> None:
        self._until, self._names, self._is_secret = until, names, names.is_secret
        libraries = Libraries()
        self._libraries, self._numpy = libraries, libraries.numpy
        self._array, self._generic, self._tensor = libraries.array, libraries.generic, libraries.tensor
        self._frame, self._series = libraries.frame, libraries.series

    def is_known(self, shape: Shape) -> bool:
        """Whether values of a class are arrays or tables."""
        kinds = (self._array, self._generic, self._tensor, self._frame, self._series)
        return any(one is kind for kind in kinds if kind is not None for one in shape.lineage)

    def describe(self, value: Any, shape: Shape, add: Add, depth: int) -> Optional[Dict[str, Any]]:
        """Describe an array or a table; None if the value is neither.

        Args:
            value: The value.
            shape: How its class is read.
            add: Adds an element to the snapshot's values, and returns its index.
            depth: Its depth below the variable.
        """
        for kind, read in (
            (self._generic, self._describe_generic),
            (self._array, self._describe_array),
            (self._tensor, self._describe_tensor),
            (self._frame, self._describe_frame),
            (self._series, self._describe_series),
        ):
            if kind is not None and any(one is kind for one in shape.lineage):
                return read(value, shape, add, depth)
        return None

    # numpy

    def _describe_generic(self, value: Any, shape: Shape, add: Add, depth: int) -> Dict[str, Any]:
        number = self._generic.item(value)
        text = repr(number) if is_exactly(number, int, float, bool, complex, str, bytes) else "<{}>".format(shape.name)
        found: Dict[str, Any] = {"kind": "scalar", "text": text[:1000]}
        if is_exactly(number, int, float, bool) and number == number and number not in (float("inf"), float("-inf")):
            found["value"] = number if abs(number) < 2**53 or type(number) is float else None
        return found

    def _describe_array(self, value: Any, shape: Shape, add: Add, depth: int) -> Dict[str, Any]:
        own = self._array.__dict__
        sizes = [int(one) for one in own["shape"].__get__(value)]
        kind = own["dtype"].__get__(value)
        name = as_str(kind.name if kind.names is None and kind.kind in "biufcMmSUO?V" else kind.str)
        found: Dict[str, Any] = {
            "kind": "array",
            "shape": sizes,
            "dtype": name,
            "device": "cpu",
            "nan": None,
            "inf": None,
            "items": [],
            "text": "<{} {} {}>".format(shape.name, tuple(sizes), name),
        }
        count = _product(sizes)
        found["length"] = count
        if not count or not self._is_in_memory(value):
            return found
        view = self._array.view(value, self._array)
        first = view.reshape(-1)[:ELEMENTS] if view.flags.c_contiguous else view.flat[:ELEMENTS]
        secrets = [field for field in kind.names or () if self._is_secret(field)]
        for field in secrets:
            self._leave_out(field, first[field].tolist())
        if not secrets:
            indices = (add(one, "", depth + 1) for one in first.tolist())
            found["items"] = [[None, index] for index in indices if index is not None]
        found["more"] = count - len(found["items"])
        if kind.kind in "fc":
            found["nan"], found["inf"] = self._count_nan_and_inf(view, count)
        return found

    def _is_in_memory(self, value: Any) -> bool:
        """Whether an array's elements are in this process's memory, and not in a mapped file that may be gone."""
        base = self._array.__dict__["base"]
        for _ in range(100):
            if is_a(type(value), self._numpy.get("memmap") or Arrays):
                return False
            inner = base.__get__(value)
            if inner is None or is_exactly(inner, bytes, bytearray):
                return True
            if self._tensor is not None and is_a(type(inner), self._tensor):
                return True
            if not is_a(type(inner), self._array):
                return False
            value = inner
        return False

    def _count_nan_and_inf(self, view: Any, count: int) -> Tuple[Optional[int], Optional[int]]:
        """How many elements are NaN, and how many infinite; None if counting takes too long."""
        if count > COUNTED or (view.dtype.itemsize == 2 and count > COUNTED // 5):
            return None, None
        if view.flags.c_contiguous or view.flags.f_contiguous:
            flat = view.reshape(-1, order="C" if view.flags.c_contiguous else "F")
            pieces: Any = (flat[at : at + _PIECE] for at in range(0, count, _PIECE))
        elif count <= _PIECE:
            pieces = (view,)
        else:
            return None, None
        is_nan, is_infinite, total = self._numpy["isnan"], self._numpy["isinf"], self._numpy["count_nonzero"]
        nan = infinite = 0
        for piece in pieces:
            if time.monotonic() >= self._until:
                return None, None
            nan += int(total(is_nan(piece)))
            infinite += int(total(is_infinite(piece)))
        return nan, infinite

    # torch

    def _describe_tensor(self, value: Any, shape: Shape, add: Add, depth: int) -> Dict[str, Any]:
        disabled = self._libraries.without_hooks(shape)
        if disabled is None:
            return {"kind": "opaque", "text": "<{}>".format(shape.name)}
        with disabled:
            return self._describe_without_hooks(value, shape, add, depth)

    def _describe_without_hooks(self, value: Any, shape: Shape, add: Add, depth: int) -> Dict[str, Any]:
        tensor = self._tensor
        sizes = [int(one) for one in tensor.size(value)]
        kind = str(tensor.dtype.__get__(value)).replace("torch.", "")
        device = str(tensor.device.__get__(value))
        found: Dict[str, Any] = {
            "kind": "array",
            "shape": sizes,
            "dtype": kind,
            "device": device,
            "nan": None,
            "inf": None,
            "items": [],
            "length": _product(sizes),
            "text": "<{} {} {} {}>".format(shape.name, tuple(sizes), kind, device),
        }
        try:
            found["requires_grad"] = bool(tensor.requires_grad.__get__(value))
            view = self._as_array(value, device)
        except Exception:
            return found
        if view is not None and found["length"]:
            read = self._describe_array(view, shape, add, depth)
            found.update((name, read[name]) for name in ("nan", "inf", "items", "more") if name in read)
        return found

    def _as_array(self, value: Any, device: str) -> Any:
        """A tensor's elements as a numpy array; None if they are not directly accessible.

        numpy counts them then: torch would use threads of its own, for which a forked process would wait forever.
        """
        tensor = self._tensor
        if self._array is None or device != "cpu" or str(tensor.layout.__get__(value)) != "torch.strided":
            return None
        detached = tensor.detach(value)
        if not has_memory(detached):
            return None
        return detached.resolve_conj().resolve_neg().numpy() if detached.is_complex() else detached.numpy()

    # pandas

    def _describe_frame(self, value: Any, shape: Shape, add: Add, depth: int) -> Dict[str, Any]:
        manager = manager_of(value, shape)
        if manager is None:
            return {"kind": "opaque", "text": "<{}>".format(shape.name)}
        sizes = [len(axis) for axis in manager.axes][::-1]
        found = self._table(shape, sizes)
        if shape.kind is not self._frame or not is_plain(manager):
            return found
        head = self._libraries.iloc(self._frame, value)[:ROWS, :COLUMNS]
        labels = [_label(one) for one in head.columns.tolist()]
        columns = [head.iloc[:, number] for number in range(len(labels))]
        found["columns"] = [[label, str(column.dtype)] for label, column in zip(labels, columns)]
        texts = [
            self._leave_out(label, column.tolist()) if self._is_secret(label) else column.tolist()
            for label, column in zip(labels, columns)
        ]
        rows = zip(*texts) if columns else ()
        found["items"] = self._rows(head.index.tolist(), [tuple(row) for row in rows], add, depth)
        found["more"] = sizes[0] - len(found["items"])
        if sizes[1] > COLUMNS:
            found["more_columns"] = sizes[1] - COLUMNS
        return found

    def _describe_series(self, value: Any, shape: Shape, add: Add, depth: int) -> Dict[str, Any]:
        manager = manager_of(value, shape)
        if manager is None:
            return {"kind": "opaque", "text": "<{}>".format(shape.name)}
        found = self._table(shape, [len(axis) for axis in manager.axes])
        if shape.kind is not self._series or not is_plain(manager):
            return found
        head = self._libraries.iloc(self._series, value)[: ELEMENTS // 2]
        found["columns"] = [[_label(dict.get(shape.entries(value) or {}, "_name")), str(head.dtype)]]
        is_secret = self._is_secret(found["columns"][0][0])
        elements = self._leave_out(found["columns"][0][0], head.tolist()) if is_secret else head.tolist()
        found["items"] = self._rows(head.index.tolist(), elements, add, depth)
        found["more"] = found["shape"][0] - len(found["items"])
        return found

    def _leave_out(self, name: str, elements: List[Any]) -> List[Any]:
        """Replacements for the elements of a column that is left out because of its name."""
        for one in elements:
            if type(one) is str:
                self._names.keep(name, one)
        return [LEFT_OUT] * len(elements)

    def _table(self, shape: Shape, sizes: List[int]) -> Dict[str, Any]:
        text = "<{} {}>".format(shape.name, tuple(sizes))
        return {"kind": "table", "shape": sizes, "length": sizes[0], "columns": [], "items": [], "text": text}

    def _rows(self, labels: List[Any], rows: List[Any], add: Add, depth: int) -> List[List[int]]:
        found: List[List[int]] = []
        for label, row in zip(labels, rows):
            of_label = add(label, "", depth + 1)
            index = add(row, label if type(label) is str else "", depth + 1)
            if of_label is None or index is None:
                break
            found.append([of_label, index])
        return found


def _label(value: Any) -> str:
    """A column's label as a text."""
    if type(value) is str:
        return value[:100]
    return (
        repr(value)[:100]
        if value is None or is_exactly(value, int, float, bool)
        else "<{}>".format(snapshot_types.class_name(type(value)))
    )


def _builtin_or_none(kind: Any) -> Any:
    """The class if it is written in C; else None."""
    flags: Any = type.__dict__["__flags__"]
    return kind if type(kind) is type and not flags.__get__(kind) & _HEAP_TYPE else None


def _is_extension(modules: Dict[str, Any], name: str) -> bool:
    """Whether a module is loaded, and is an extension module."""
    file = dict.get(snapshot_types.module_entries(modules.get(name)), "__file__")
    return type(file) is str and file.endswith((".so", ".pyd", ".dylib"))


def _product(sizes: List[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count
