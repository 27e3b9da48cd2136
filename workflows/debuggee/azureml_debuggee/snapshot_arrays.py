"""Describes arrays, tensors and tables, by what of their libraries is loaded already: nothing is imported for them.

Shapes and kinds of elements are read by the library's own functions, whatever a class that comes from theirs has made
of them. The elements themselves are looked at only where they are surely in this process's memory.
"""

from __future__ import annotations

import sys
import time

from . import snapshot_types
from .snapshot_names import LEFT_OUT
from .snapshot_types import is_a, is_exactly, plain

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from .snapshot_names import Names
    from .snapshot_types import Shape

    Enter = Callable[[Any, str, int], Optional[int]]

#: Elements that are recorded, and of a table rows and columns.
ELEMENTS, ROWS, COLUMNS = 20, 5, 50
#: Elements among which NaN and infinities are counted, and how many at a time.
COUNTED, _PIECE = 10_000_000, 1_000_000
#: The flag of classes that have been made while Python runs.
_HEAP_TYPE = 1 << 9


class Libraries:
    """What is loaded of numpy, torch and pandas.

    Attributes:
        numpy: What is in the module numpy; nothing where it is not loaded.
        torch: The same of torch.
        pandas: The same of pandas.
        array, generic, tensor, frame, series: Their classes; None for one that is not loaded.
    """

    def __init__(self) -> None:
        modules = sys.modules
        self.numpy = snapshot_types.module_entries(modules.get("numpy"))
        self.array: Any = _of_c(self.numpy.get("ndarray"))
        self.generic: Any = _of_c(self.numpy.get("generic"))
        # A module of the person's may have any of these names; those that are meant come with C code.
        self.torch = snapshot_types.module_entries(modules.get("torch")) if _is_of_c(modules, "torch._C") else {}
        self.tensor: Any = self.torch.get("Tensor")
        is_pandas = _is_of_c(modules, "pandas._libs.lib")
        self.pandas = snapshot_types.module_entries(modules.get("pandas")) if is_pandas else {}
        self.frame: Any = self.pandas.get("DataFrame")
        self.series: Any = self.pandas.get("Series")

    def iloc(self, kind: Any, value: Any) -> Any:
        """What takes rows and columns of a table by their numbers."""
        return kind.iloc.fget(value)

    def without_hooks(self, shape: Shape) -> Any:
        """What keeps torch from calling hooks while a tensor is read; None where its class decides what it is."""
        inner = snapshot_types.module_entries(sys.modules.get("torch._C"))
        for one in shape.lineage:
            if one is self.tensor:
                break
            if any(name == "__torch_dispatch__" for name, _ in snapshot_types.class_entries(one)):
                return None  # Even its shape is what its class makes of it.
        active: Any = inner.get("_len_torch_dispatch_stack")
        if active is not None and active():
            return None
        disabled: Any = inner.get("DisableTorchFunction")
        return None if disabled is None else disabled()


def has_memory(plainly: Any) -> bool:
    """Whether a detached tensor's elements are there: one whose memory has been given back still has its shape."""
    storage = plainly.untyped_storage() if hasattr(plainly, "untyped_storage") else plainly.storage()
    steps = zip(plainly.size(), plainly.stride())
    last = plainly.storage_offset() + sum((size - 1) * step for size, step in steps if size)
    return bool(storage.nbytes() >= (last + 1) * plainly.element_size())


def manager_of(value: Any, shape: Shape) -> Any:
    """What holds a table's columns; None where that is not pandas' own."""
    manager: Any = dict.get(shape.entries(value) or {}, "_mgr")
    return manager if snapshot_types.module_name(type(manager)).startswith("pandas.") else None


def is_plain(manager: Any) -> bool:
    """Whether all of a table's columns are numpy's or pandas' own."""
    return all(
        snapshot_types.module_name(type(block.values)).partition(".")[0] in ("numpy", "pandas")
        for block in getattr(manager, "blocks", ())
    )


class Arrays:
    """Describes them, as far as their libraries are loaded.

    Args:
        until: When there is no more time, on the monotonic clock.
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

    def describe(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Optional[Dict[str, Any]]:
        """An array's or a table's description; None where it is none.

        Args:
            value: The value.
            shape: How it is read.
            enter: Takes in a value that is in it.
            depth: How deep it lies.
        """
        for kind, read in (
            (self._generic, self._of_generic),
            (self._array, self._of_array),
            (self._tensor, self._of_tensor),
            (self._frame, self._of_frame),
            (self._series, self._of_series),
        ):
            if kind is not None and any(one is kind for one in shape.lineage):
                return read(value, shape, enter, depth)
        return None

    # numpy

    def _of_generic(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Dict[str, Any]:
        number = self._generic.item(value)
        text = repr(number) if is_exactly(number, int, float, bool, complex, str, bytes) else "<{}>".format(shape.name)
        found: Dict[str, Any] = {"kind": "scalar", "text": text[:1000]}
        if is_exactly(number, int, float, bool) and number == number and number not in (float("inf"), float("-inf")):
            found["value"] = number if abs(number) < 2**53 or type(number) is float else None
        return found

    def _of_array(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Dict[str, Any]:
        own = self._array.__dict__
        sizes = [int(one) for one in own["shape"].__get__(value)]
        kind = own["dtype"].__get__(value)
        name = plain(kind.name if kind.names is None and kind.kind in "biufcMmSUO?V" else kind.str)
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
            self._left_out(field, first[field].tolist())
        if not secrets:
            indices = (enter(one, "", depth + 1) for one in first.tolist())
            found["items"] = [[None, index] for index in indices if index is not None]
        found["more"] = count - len(found["items"])
        if kind.kind in "fc":
            found["nan"], found["inf"] = self._unusual(view, count)
        return found

    def _is_in_memory(self, value: Any) -> bool:
        """Whether an array's elements are memory of this process, and no file's that may have gone."""
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

    def _unusual(self, view: Any, count: int) -> Tuple[Optional[int], Optional[int]]:
        """How many elements are NaN, and how many infinite; None where that takes too long."""
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

    def _of_tensor(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Dict[str, Any]:
        disabled = self._libraries.without_hooks(shape)
        if disabled is None:
            return {"kind": "opaque", "text": "<{}>".format(shape.name)}
        with disabled:
            return self._read_tensor(value, shape, enter, depth)

    def _read_tensor(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Dict[str, Any]:
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
            read = self._of_array(view, shape, enter, depth)
            found.update((name, read[name]) for name in ("nan", "inf", "items", "more") if name in read)
        return found

    def _as_array(self, value: Any, device: str) -> Any:
        """A tensor's elements as numpy sees them; None where they are not plainly there.

        By numpy, and not by torch: that would count with threads of its own, which a forked process waits for in vain.
        """
        tensor = self._tensor
        if self._array is None or device != "cpu" or str(tensor.layout.__get__(value)) != "torch.strided":
            return None
        plainly = tensor.detach(value)
        if not has_memory(plainly):
            return None
        return plainly.resolve_conj().resolve_neg().numpy() if plainly.is_complex() else plainly.numpy()

    # pandas

    def _of_frame(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Dict[str, Any]:
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
            self._left_out(label, column.tolist()) if self._is_secret(label) else column.tolist()
            for label, column in zip(labels, columns)
        ]
        rows = zip(*texts) if columns else ()
        found["items"] = self._rows(head.index.tolist(), [tuple(row) for row in rows], enter, depth)
        found["more"] = sizes[0] - len(found["items"])
        if sizes[1] > COLUMNS:
            found["more_columns"] = sizes[1] - COLUMNS
        return found

    def _of_series(self, value: Any, shape: Shape, enter: Enter, depth: int) -> Dict[str, Any]:
        manager = manager_of(value, shape)
        if manager is None:
            return {"kind": "opaque", "text": "<{}>".format(shape.name)}
        found = self._table(shape, [len(axis) for axis in manager.axes])
        if shape.kind is not self._series or not is_plain(manager):
            return found
        head = self._libraries.iloc(self._series, value)[: ELEMENTS // 2]
        found["columns"] = [[_label(dict.get(shape.entries(value) or {}, "_name")), str(head.dtype)]]
        is_secret = self._is_secret(found["columns"][0][0])
        elements = self._left_out(found["columns"][0][0], head.tolist()) if is_secret else head.tolist()
        found["items"] = self._rows(head.index.tolist(), elements, enter, depth)
        found["more"] = found["shape"][0] - len(found["items"])
        return found

    def _left_out(self, name: str, elements: List[Any]) -> List[Any]:
        """What stands for the elements of a column that is left out by its name."""
        for one in elements:
            if type(one) is str:
                self._names.keep(name, one)
        return [LEFT_OUT] * len(elements)

    def _table(self, shape: Shape, sizes: List[int]) -> Dict[str, Any]:
        text = "<{} {}>".format(shape.name, tuple(sizes))
        return {"kind": "table", "shape": sizes, "length": sizes[0], "columns": [], "items": [], "text": text}

    def _rows(self, labels: List[Any], rows: List[Any], enter: Enter, depth: int) -> List[List[int]]:
        found: List[List[int]] = []
        for label, row in zip(labels, rows):
            of_label = enter(label, "", depth + 1)
            index = enter(row, label if type(label) is str else "", depth + 1)
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


def _of_c(kind: Any) -> Any:
    """A class that is written in C; None for another."""
    flags: Any = type.__dict__["__flags__"]
    return kind if type(kind) is type and not flags.__get__(kind) & _HEAP_TYPE else None


def _is_of_c(modules: Dict[str, Any], name: str) -> bool:
    """Whether a module is loaded, and is a library."""
    file = dict.get(snapshot_types.module_entries(modules.get(name)), "__file__")
    return type(file) is str and file.endswith((".so", ".pyd", ".dylib"))


def _product(sizes: List[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count
