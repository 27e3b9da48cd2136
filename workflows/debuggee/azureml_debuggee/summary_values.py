"""Describes arrays, tensors, data frames and series: type, shape, kind of elements, range, NaN, a corner of the values.

What their classes have made of them is not asked: shapes and elements are read by the library's own functions. Nothing
is imported for it, nothing but the corner and the numbers found leaves a GPU, and not more than ten million elements
are looked at, nor for longer than is said.
"""

from __future__ import annotations

import time

from . import snapshot_arrays, snapshot_types
from .snapshot_arrays import COUNTED, Libraries
from .summary_numbers import PIECE, TOO_MANY, TOO_SLOW, Numbers, measure, number_text
from .summary_text import COLUMNS, ELEMENTS, ROWS, Summary, cell, label, listed

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from .snapshot_types import Shape

#: Devices on which an element can be looked at without more being computed for it.
_DEVICES = ("cpu", "cuda", "mps", "xpu")
#: Elements up to which torch works in the thread that asks: others a forked process would wait for in vain.
_ALONE = 16_384
#: Blocks of columns that a data frame is described by.
_BLOCKS = 1000


def describe(value: Any, until: float) -> Optional[Summary]:
    """Describe a value.

    Args:
        value: Any value.
        until: When there is no more time to compute anything, on the monotonic clock.

    Returns:
        None where it is none of these, or where only its own class knows what it is.

    Raises:
        Exception: It cannot be described.
    """
    libraries = Libraries()
    shape = shape_of(libraries, type(value))
    readers: Tuple[Tuple[Any, Callable[..., Optional[Summary]]], ...] = (
        (libraries.array, _array),
        (libraries.tensor, _tensor),
        (libraries.frame, _frame),
        (libraries.series, _series),
    )
    for kind, read in readers:
        if kind is not None and any(one is kind for one in shape.lineage):
            return read(libraries, value, shape, until)
    return None


#: How the libraries' own classes are read: they have many ancestors with many entries.
_shapes: Dict[type, Shape] = {}


def shape_of(libraries: Libraries, kind: type) -> Shape:
    """How the values of a class are read."""
    if not any(kind is one for one in (libraries.array, libraries.tensor, libraries.frame, libraries.series)):
        return snapshot_types.Shape(kind)
    found = _shapes.get(kind)
    if found is None:
        found = _shapes[kind] = snapshot_types.Shape(kind)
    return found


def is_described(kind: type) -> bool:
    """Whether values of a class are described, as far as their library is loaded."""
    libraries = Libraries()
    kinds = (libraries.array, libraries.tensor, libraries.frame, libraries.series)
    return any(one is known for known in kinds if known is not None for one in snapshot_types.ancestors(kind))


def _head(name: str, sizes: Any, *texts: str) -> str:
    """`ndarray (2, 3) float32, min 0, max 5`: a type, a shape, what belongs to them, and what has been found."""
    belonging = [text for text in texts[:1] if text]
    return ", ".join([" ".join([name, str(tuple(sizes)), *belonging]), *filter(None, texts[1:])])


# numpy


def _array(libraries: Libraries, value: Any, shape: Shape, until: float) -> Summary:
    own = libraries.array.__dict__
    sizes, kind = own["shape"].__get__(value), own["dtype"].__get__(value)
    view = libraries.array.view(value, libraries.array)
    name = snapshot_types.short_name(shape.kind)
    dtype = kind.name if kind.names is None else "{{{}}}".format(", ".join(kind.names[:COLUMNS]))
    mask = _mask(libraries, value, shape)
    if snapshot_types.is_a(shape.kind, libraries.numpy.get("memmap") or Libraries):
        numbers = Numbers("not computed: mapped from a file")
    elif mask is None:
        numbers = measure(libraries.numpy, view, until)
    else:
        numbers = measure(libraries.numpy, view[~mask], until) if view.size <= COUNTED else Numbers(TOO_MANY)
    found = numbers.texts()
    if mask is not None:
        found.append("masked {:,}".format(int(libraries.numpy["count_nonzero"](mask))))
    cut = _corner(len(sizes))
    corner = _cells(view[cut], None if mask is None else mask[cut]) if view.size else []
    return _with_corner(_head(name, sizes, str(dtype), *found), sizes, corner)


def _mask(libraries: Libraries, value: Any, shape: Shape) -> Any:
    """Which elements of a masked array are masked; None where it is none, or none is."""
    if not any(
        snapshot_types.short_name(one) == "MaskedArray" and snapshot_types.module_name(one).startswith("numpy.")
        for one in shape.lineage
    ):
        return None
    mask: Any = dict.get(shape.entries(value) or {}, "_mask")
    is_one = type(mask) is libraries.array and mask.shape == value.shape and mask.dtype.kind == "b"
    return mask if is_one else None


def _corner(dimensions: int) -> Tuple[Any, ...]:
    """What takes the corner of an array: of its last two dimensions, at the beginning of the others."""
    if dimensions < 2:
        return (slice(ELEMENTS),) * dimensions
    return (0,) * (dimensions - 2) + (slice(ROWS), slice(COLUMNS))


def _cells(corner: Any, mask: Any = None) -> List[List[str]]:
    """The cells of a corner, an array of numpy's with two dimensions at most."""
    if corner.dtype.kind in "mM":
        corner = corner.astype(str).astype(object)
        found: Any = [[str(one) for one in row] for row in _rows(corner.tolist(), corner.ndim)]
    else:
        found = [[cell(one) for one in row] for row in _rows(corner.tolist(), corner.ndim)]
    for cells, hidden in zip(found, () if mask is None else _rows(mask.tolist(), mask.ndim)):
        cells[:] = ["--" if is_hidden else text for text, is_hidden in zip(cells, hidden)]
    return list(found)


def _rows(elements: Any, dimensions: int) -> Any:
    return elements if dimensions == 2 else [elements] if dimensions == 1 else [[elements]]


def _with_corner(head: str, sizes: Any, corner: List[List[str]]) -> Summary:
    """A description whose corner says where there is more."""
    if not corner:
        return Summary(head)
    if not sizes:
        return Summary("{}: {}".format(head, corner[0][0]))
    width, height = sizes[-1], sizes[-2] if len(sizes) > 1 else 1
    rows = [row + ["…"] * (width > len(row)) for row in corner]
    lists = [listed(row, False) for row in rows[:2]]
    brief = lists[0] if len(sizes) == 1 else listed(lists, height > len(lists))
    if height > len(rows):
        rows.append(["…"])
    if len(sizes) > 2:
        head = "{}; [{}]:".format(head, ", ".join(["0"] * (len(sizes) - 2) + [":", ":"]))
        brief = "{}".format(brief)
    return Summary(head, rows, brief)


# torch


def _tensor(libraries: Libraries, value: Any, shape: Shape, until: float) -> Optional[Summary]:
    disabled = libraries.without_hooks(shape)
    if disabled is None:
        return None
    with disabled:
        kind = libraries.tensor
        sizes = [int(one) for one in kind.size(value)]
        dtype = str(kind.dtype.__get__(value)).replace("torch.", "")
        device, layout = str(kind.device.__get__(value)), str(kind.layout.__get__(value)).replace("torch.", "")
        told = ["requires_grad"] if kind.requires_grad.__get__(value) else []
        corner: List[List[str]] = []
        numbers = Numbers()
        try:
            plainly = kind.detach(value)
            if layout != "strided":
                told.insert(0, layout)
                told.append("{:,} values".format(int(plainly._nnz())))
            elif _product(sizes) and _is_readable(libraries, plainly, device):
                corner = _tensor_cells(libraries, plainly[_corner(len(sizes))], len(sizes))
                numbers = _tensor_numbers(libraries, plainly, _product(sizes), device, until)
        except Exception:
            pass  # What it is has been read; its elements are not to be had.
    name = snapshot_types.short_name(shape.kind)
    belonging = " ".join([dtype, device, *told])
    return _with_corner(_head(name, sizes, belonging, *numbers.texts()), sizes, corner)


def _is_readable(libraries: Libraries, plainly: Any, device: str) -> bool:
    """Whether a tensor's elements are there, and can be asked for without doing harm."""
    if device.partition(":")[0] not in _DEVICES or not snapshot_arrays.has_memory(plainly):
        return False
    if device.startswith("cuda"):
        # What is asked while a graph of CUDA's is being captured spoils it.
        return not libraries.torch["cuda"].is_current_stream_capturing()
    return True


def _tensor_cells(libraries: Libraries, corner: Any, dimensions: int) -> List[List[str]]:
    corner = corner.to("cpu")
    try:
        elements = corner.tolist()
    except Exception:
        elements = corner.to(libraries.torch["float32"]).tolist()
    return [[cell(one) for one in row] for row in _rows(elements, min(2, dimensions))]


def _tensor_numbers(libraries: Libraries, plainly: Any, count: int, device: str, until: float) -> Numbers:
    if count > COUNTED:
        return Numbers(TOO_MANY)
    torch, numpy = libraries.torch, libraries.numpy
    if device == "cpu" and numpy:
        if plainly.dtype is torch["bfloat16"]:

            def widened(piece: Any) -> Any:
                return (piece.view(numpy["uint16"]).astype(numpy["uint32"]) << 16).view(numpy["float32"])

            return measure(numpy, plainly.view(torch["int16"]).numpy(), until, widened)
        try:
            view = plainly.resolve_conj().resolve_neg().numpy() if plainly.is_complex() else plainly.numpy()
        except Exception:
            view = None  # Kinds of elements that numpy has not got.
        if view is not None:
            return measure(numpy, view, until)
    if device == "cpu" and count > _ALONE:
        return Numbers()
    return _by_torch(torch, plainly, until)


def _by_torch(torch: Dict[str, Any], plainly: Any, until: float) -> Numbers:
    """What torch finds, where the elements are; only these numbers leave their device."""
    found = Numbers()
    if plainly.is_complex() or plainly.is_quantized:
        return found
    if plainly.numel() > PIECE and time.monotonic() >= until:
        return Numbers(TOO_SLOW)
    if plainly.dtype is torch["bool"]:
        found.true = int(plainly.sum())
        return found
    if plainly.element_size() == 1 and plainly.is_floating_point():
        plainly = plainly.to(torch["float32"])
    flat = plainly.reshape(-1)
    if plainly.is_floating_point():
        missing = torch["isnan"](flat)
        found.nan = int(missing.sum())
        if found.nan:
            flat = flat[~missing]
        found.infinite = int(torch["isinf"](flat).sum())
    if flat.numel():
        low, high = torch["aminmax"](flat)
        found.low, found.high = number_text(low.item()), number_text(high.item())
        found.mean = number_text(float(flat.mean(dtype=torch["float32"]).item()))
    return found


def _product(sizes: List[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


# pandas


def _frame(libraries: Libraries, value: Any, shape: Shape, until: float) -> Optional[Summary]:
    manager = snapshot_arrays.manager_of(value, shape)
    if manager is None or shape.kind is not libraries.frame or not snapshot_arrays.is_plain(manager):
        return None
    height, width = [len(axis) for axis in manager.axes][::-1]
    blocks = manager.blocks
    told: List[str] = []
    if len(blocks) <= _BLOCKS:
        kinds: Dict[str, int] = {}
        for block in blocks:
            several = block.values.shape[0] if len(block.values.shape) > 1 else 1
            kinds[str(block.values.dtype)] = kinds.get(str(block.values.dtype), 0) + several
        told = ["{}: {:,}".format(kind, kinds[kind]) for kind in list(kinds)[:COLUMNS]]
        told += ["…"] * (len(kinds) > COLUMNS)
    head = libraries.iloc(libraries.frame, value)[:ROWS, :COLUMNS]
    labels = [label(one) for one in head.columns.tolist()]
    columns = [libraries.iloc(libraries.frame, value)[:, number] for number in range(len(labels))]
    missing: Optional[int] = 0
    if height * width > COUNTED:
        told.append(TOO_MANY)
        missing = None
    elif len(blocks) <= _BLOCKS:
        for block in blocks:
            is_late = height * width > PIECE and time.monotonic() >= until
            lost = None if is_late else _missing(libraries, block.values, until)
            missing = None if missing is None or lost is None else missing + lost
        told.append(TOO_SLOW if missing is None else "NaN {:,}".format(missing))
    texts = [[cell(one) for one in head.iloc[:, number].tolist()] for number in range(len(labels))]
    rows = [["", *labels], ["", *(str(column.dtype) for column in columns)]]
    rows += [[label(one), *row] for one, row in zip(head.index.tolist(), list(zip(*texts)) or [()] * ROWS)]
    if height > ROWS:
        rows.append(["…"])
    rows += _measured(libraries, columns if height * width <= COUNTED else [], until)
    if width > len(labels):
        rows = [[*row, "…"] if len(row) > 1 else row for row in rows]
    name = snapshot_types.short_name(shape.kind)
    brief = listed(labels, width > len(labels)) if labels else ""
    return Summary(_head(name, (height, width), "", *told), rows if labels else [], brief)


def _measured(libraries: Libraries, columns: List[Any], until: float) -> List[List[str]]:
    """Rows with the columns' smallest and largest elements, their means, and how many are missing."""
    numbers = [_numbers(libraries, column, until) for column in columns]
    rows = []
    for name, texts in (
        ("min", [one.low for one in numbers]),
        ("max", [one.high for one in numbers]),
        ("mean", [one.mean for one in numbers]),
        ("NaN", ["" if one.nan is None else "{:,}".format(one.nan) for one in numbers]),
    ):
        if any(texts):
            rows.append([name, *texts])
    return rows


def _series(libraries: Libraries, value: Any, shape: Shape, until: float) -> Optional[Summary]:
    manager = snapshot_arrays.manager_of(value, shape)
    if manager is None or shape.kind is not libraries.series or not snapshot_arrays.is_plain(manager):
        return None
    sizes = (len(manager.axes[0]),)
    head = libraries.iloc(libraries.series, value)[:ELEMENTS]
    name = dict.get(shape.entries(value) or {}, "_name")
    belonging = str(head.dtype) if name is None else "{} {}".format(head.dtype, cell(name))
    texts = [cell(one) for one in head.tolist()]
    rows = [[label(one), text] for one, text in zip(head.index.tolist(), texts)]
    if sizes[0] > len(rows):
        rows.append(["…"])
    found = _numbers(libraries, value, until).texts()
    brief = listed(texts, sizes[0] > len(texts)) if texts else ""
    return Summary(_head(snapshot_types.short_name(shape.kind), sizes, belonging, *found), rows, brief)


def _numbers(libraries: Libraries, series: Any, until: float) -> Numbers:
    """What is found of a column's elements."""
    if len(series) > COUNTED:
        return Numbers(TOO_MANY)
    values = series._values
    if type(values) is libraries.array and values.dtype.kind in "biufcmM":
        found = measure(libraries.numpy, values, until)
        if values.dtype.kind in "biu":
            found.nan = 0
        return found
    mask: Any = getattr(values, "_mask", None)
    numbers: Any = getattr(values, "_data", None)
    if type(mask) is libraries.array and type(numbers) is libraries.array and mask.shape == numbers.shape:
        found = measure(libraries.numpy, numbers[~mask], until)
        found.nan = (found.nan or 0) + int(libraries.numpy["count_nonzero"](mask))
        return found
    found = Numbers()
    found.nan = _missing(libraries, values, until)
    if found.nan is None:
        found.note = TOO_SLOW
    return found


def _missing(libraries: Libraries, values: Any, until: float) -> Optional[int]:
    """How many of a block's elements are missing; None where that takes too long."""
    numpy = libraries.numpy
    if type(values) is libraries.array:
        if values.dtype.kind in "biuSU":
            return 0
        if values.dtype.kind in "fcmM":
            return _missing_numbers(numpy, values, until)
    is_missing = libraries.pandas["isna"]
    count, rows = 0, values if getattr(values, "ndim", 1) == 2 else [values]
    for row in rows:
        for at in range(0, len(row), PIECE):
            if len(row) > PIECE and time.monotonic() >= until:
                return None
            count += int(numpy["count_nonzero"](is_missing(row[at : at + PIECE])))
    return count


def _missing_numbers(numpy: Any, values: Any, until: float) -> Optional[int]:
    is_nan, several = numpy["isnat" if values.dtype.kind in "mM" else "isnan"], numpy["count_nonzero"]
    count = 0
    for piece in numpy["nditer"](values, flags=["external_loop", "buffered", "zerosize_ok"], buffersize=PIECE):
        if values.size > PIECE and time.monotonic() >= until:
            return None
        count += int(several(is_nan(piece)))
    return count
