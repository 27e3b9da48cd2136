"""Describes arrays, tensors, data frames and series: type, shape, element type, range, NaN, a corner of the values.

Shapes and elements are read by the libraries' own functions, whatever a subclass has overridden. Nothing is imported
for it, only the corner and the computed numbers leave a GPU, and at most ten million elements are read, within the
given time.
"""

from __future__ import annotations

import time

from . import snapshot_arrays, snapshot_types
from .snapshot_arrays import COUNTED, Libraries
from .summary_numbers import PIECE, TOO_MANY, TOO_SLOW, Numbers, measure, number_text
from .summary_text import COLUMNS, ELEMENTS, ROWS, Summary, cell, in_brackets, label

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from .snapshot_types import Shape

#: Devices on which an element can be read without further computation.
_DEVICES = ("cpu", "cuda", "mps", "xpu")
#: Elements up to which torch works in the calling thread; a forked process would wait forever for its other threads.
_SINGLE_THREADED = 16_384
#: Blocks of columns up to which the columns of a data frame are described.
_BLOCKS = 1000


def describe(value: Any, until: float) -> Optional[Summary]:
    """Describe a value.

    Args:
        value: Any value.
        until: The end of the time for computations, on the monotonic clock.

    Returns:
        None if it is none of these, or if its class overrides how it is read.

    Raises:
        Exception: It cannot be described.
    """
    libraries = Libraries()
    shape = shape_of(libraries, type(value))
    readers: Tuple[Tuple[Any, Callable[..., Optional[Summary]]], ...] = (
        (libraries.array, _summarize_array),
        (libraries.tensor, _summarize_tensor),
        (libraries.frame, _summarize_frame),
        (libraries.series, _summarize_series),
    )
    for kind, read in readers:
        if kind is not None and any(one is kind for one in shape.lineage):
            return read(libraries, value, shape, until)
    return None


#: The shapes of the libraries' own classes, which have many ancestors with many attributes.
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
    """Whether values of a class can be described with the libraries that are loaded."""
    libraries = Libraries()
    kinds = (libraries.array, libraries.tensor, libraries.frame, libraries.series)
    return any(one is known for known in kinds if known is not None for one in snapshot_types.ancestors(kind))


def _head(name: str, sizes: Any, *texts: str) -> str:
    """`ndarray (2, 3) float32, min 0, max 5`: type, shape, element type, and results."""
    properties = [text for text in texts[:1] if text]
    return ", ".join([" ".join([name, str(tuple(sizes)), *properties]), *filter(None, texts[1:])])


# numpy


def _summarize_array(libraries: Libraries, value: Any, shape: Shape, until: float) -> Summary:
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
    cut = _corner_index(len(sizes))
    corner = _cells(view[cut], None if mask is None else mask[cut]) if view.size else []
    return _with_corner(_head(name, sizes, str(dtype), *found), sizes, corner)


def _mask(libraries: Libraries, value: Any, shape: Shape) -> Any:
    """The mask of a masked array; None for other arrays, or if there is no mask."""
    if not any(
        snapshot_types.short_name(one) == "MaskedArray" and snapshot_types.module_name(one).startswith("numpy.")
        for one in shape.lineage
    ):
        return None
    mask: Any = dict.get(shape.entries(value) or {}, "_mask")
    is_mask = type(mask) is libraries.array and mask.shape == value.shape and mask.dtype.kind == "b"
    return mask if is_mask else None


def _corner_index(dimensions: int) -> Tuple[Any, ...]:
    """The index of an array's corner: in its last two dimensions, at index 0 of the others."""
    if dimensions < 2:
        return (slice(ELEMENTS),) * dimensions
    return (0,) * (dimensions - 2) + (slice(ROWS), slice(COLUMNS))


def _cells(corner: Any, mask: Any = None) -> List[List[str]]:
    """The cells of a corner, which is a numpy array with at most two dimensions."""
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
    """A summary whose corner marks where there is more."""
    if not corner:
        return Summary(head)
    if not sizes:
        return Summary("{}: {}".format(head, corner[0][0]))
    width, height = sizes[-1], sizes[-2] if len(sizes) > 1 else 1
    rows = [row + ["…"] * (width > len(row)) for row in corner]
    lists = [in_brackets(row, False) for row in rows[:2]]
    brief = lists[0] if len(sizes) == 1 else in_brackets(lists, height > len(lists))
    if height > len(rows):
        rows.append(["…"])
    if len(sizes) > 2:
        head = "{}; [{}]:".format(head, ", ".join(["0"] * (len(sizes) - 2) + [":", ":"]))
        brief = "{}".format(brief)
    return Summary(head, rows, brief)


# torch


def _summarize_tensor(libraries: Libraries, value: Any, shape: Shape, until: float) -> Optional[Summary]:
    disabled = libraries.without_hooks(shape)
    if disabled is None:
        return None
    with disabled:
        kind = libraries.tensor
        sizes = [int(one) for one in kind.size(value)]
        dtype = str(kind.dtype.__get__(value)).replace("torch.", "")
        device, layout = str(kind.device.__get__(value)), str(kind.layout.__get__(value)).replace("torch.", "")
        notes = ["requires_grad"] if kind.requires_grad.__get__(value) else []
        corner: List[List[str]] = []
        numbers = Numbers()
        try:
            detached = kind.detach(value)
            if layout != "strided":
                notes.insert(0, layout)
                notes.append("{:,} values".format(int(detached._nnz())))
            elif _product(sizes) and _is_readable(libraries, detached, device):
                corner = _tensor_cells(libraries, detached[_corner_index(len(sizes))], len(sizes))
                numbers = _tensor_numbers(libraries, detached, _product(sizes), device, until)
        except Exception:
            pass  # Type and shape have been read; the elements are not accessible.
    name = snapshot_types.short_name(shape.kind)
    properties = " ".join([dtype, device, *notes])
    return _with_corner(_head(name, sizes, properties, *numbers.texts()), sizes, corner)


def _is_readable(libraries: Libraries, detached: Any, device: str) -> bool:
    """Whether a tensor's elements exist, and can be read without side effects."""
    if device.partition(":")[0] not in _DEVICES or not snapshot_arrays.has_memory(detached):
        return False
    if device.startswith("cuda"):
        # Reading while a CUDA graph is being captured would break the capture.
        return not libraries.torch["cuda"].is_current_stream_capturing()
    return True


def _tensor_cells(libraries: Libraries, corner: Any, dimensions: int) -> List[List[str]]:
    corner = corner.to("cpu")
    try:
        elements = corner.tolist()
    except Exception:
        elements = corner.to(libraries.torch["float32"]).tolist()
    return [[cell(one) for one in row] for row in _rows(elements, min(2, dimensions))]


def _tensor_numbers(libraries: Libraries, detached: Any, count: int, device: str, until: float) -> Numbers:
    if count > COUNTED:
        return Numbers(TOO_MANY)
    torch, numpy = libraries.torch, libraries.numpy
    if device == "cpu" and numpy:
        if detached.dtype is torch["bfloat16"]:

            def widened(piece: Any) -> Any:
                return (piece.view(numpy["uint16"]).astype(numpy["uint32"]) << 16).view(numpy["float32"])

            return measure(numpy, detached.view(torch["int16"]).numpy(), until, widened)
        try:
            view = detached.resolve_conj().resolve_neg().numpy() if detached.is_complex() else detached.numpy()
        except Exception:
            view = None  # numpy does not have this element type.
        if view is not None:
            return measure(numpy, view, until)
    if device == "cpu" and count > _SINGLE_THREADED:
        return Numbers()
    return _measure_with_torch(torch, detached, until)


def _measure_with_torch(torch: Dict[str, Any], detached: Any, until: float) -> Numbers:
    """Compute the numbers with torch on the elements' device; only the results leave it."""
    found = Numbers()
    if detached.is_complex() or detached.is_quantized:
        return found
    if detached.numel() > PIECE and time.monotonic() >= until:
        return Numbers(TOO_SLOW)
    if detached.dtype is torch["bool"]:
        found.true = int(detached.sum())
        return found
    if detached.element_size() == 1 and detached.is_floating_point():
        detached = detached.to(torch["float32"])
    flat = detached.reshape(-1)
    if detached.is_floating_point():
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


def _summarize_frame(libraries: Libraries, value: Any, shape: Shape, until: float) -> Optional[Summary]:
    manager = snapshot_arrays.manager_of(value, shape)
    if manager is None or shape.kind is not libraries.frame or not snapshot_arrays.is_plain(manager):
        return None
    height, width = [len(axis) for axis in manager.axes][::-1]
    blocks = manager.blocks
    notes: List[str] = []
    if len(blocks) <= _BLOCKS:
        kinds: Dict[str, int] = {}
        for block in blocks:
            column_count = block.values.shape[0] if len(block.values.shape) > 1 else 1
            kinds[str(block.values.dtype)] = kinds.get(str(block.values.dtype), 0) + column_count
        notes = ["{}: {:,}".format(kind, kinds[kind]) for kind in list(kinds)[:COLUMNS]]
        notes += ["…"] * (len(kinds) > COLUMNS)
    head = libraries.iloc(libraries.frame, value)[:ROWS, :COLUMNS]
    labels = [label(one) for one in head.columns.tolist()]
    columns = [libraries.iloc(libraries.frame, value)[:, number] for number in range(len(labels))]
    missing: Optional[int] = 0
    if height * width > COUNTED:
        notes.append(TOO_MANY)
        missing = None
    elif len(blocks) <= _BLOCKS:
        for block in blocks:
            is_late = height * width > PIECE and time.monotonic() >= until
            missing_count = None if is_late else _count_missing(libraries, block.values, until)
            missing = None if missing is None or missing_count is None else missing + missing_count
        notes.append(TOO_SLOW if missing is None else "NaN {:,}".format(missing))
    texts = [[cell(one) for one in head.iloc[:, number].tolist()] for number in range(len(labels))]
    rows = [["", *labels], ["", *(str(column.dtype) for column in columns)]]
    rows += [[label(one), *row] for one, row in zip(head.index.tolist(), list(zip(*texts)) or [()] * ROWS)]
    if height > ROWS:
        rows.append(["…"])
    rows += _statistics_rows(libraries, columns if height * width <= COUNTED else [], until)
    if width > len(labels):
        rows = [[*row, "…"] if len(row) > 1 else row for row in rows]
    name = snapshot_types.short_name(shape.kind)
    brief = in_brackets(labels, width > len(labels)) if labels else ""
    return Summary(_head(name, (height, width), "", *notes), rows if labels else [], brief)


def _statistics_rows(libraries: Libraries, columns: List[Any], until: float) -> List[List[str]]:
    """Rows with the columns' smallest and largest elements, their means, and the numbers of missing elements."""
    numbers = [_column_numbers(libraries, column, until) for column in columns]
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


def _summarize_series(libraries: Libraries, value: Any, shape: Shape, until: float) -> Optional[Summary]:
    manager = snapshot_arrays.manager_of(value, shape)
    if manager is None or shape.kind is not libraries.series or not snapshot_arrays.is_plain(manager):
        return None
    sizes = (len(manager.axes[0]),)
    head = libraries.iloc(libraries.series, value)[:ELEMENTS]
    name = dict.get(shape.entries(value) or {}, "_name")
    properties = str(head.dtype) if name is None else "{} {}".format(head.dtype, cell(name))
    texts = [cell(one) for one in head.tolist()]
    rows = [[label(one), text] for one, text in zip(head.index.tolist(), texts)]
    if sizes[0] > len(rows):
        rows.append(["…"])
    found = _column_numbers(libraries, value, until).texts()
    brief = in_brackets(texts, sizes[0] > len(texts)) if texts else ""
    return Summary(_head(snapshot_types.short_name(shape.kind), sizes, properties, *found), rows, brief)


def _column_numbers(libraries: Libraries, series: Any, until: float) -> Numbers:
    """Compute the numbers of a column's elements."""
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
    found.nan = _count_missing(libraries, values, until)
    if found.nan is None:
        found.note = TOO_SLOW
    return found


def _count_missing(libraries: Libraries, values: Any, until: float) -> Optional[int]:
    """How many of a block's elements are missing; None if counting takes too long."""
    numpy = libraries.numpy
    if type(values) is libraries.array:
        if values.dtype.kind in "biuSU":
            return 0
        if values.dtype.kind in "fcmM":
            return _count_missing_numbers(numpy, values, until)
    is_missing = libraries.pandas["isna"]
    count, rows = 0, values if getattr(values, "ndim", 1) == 2 else [values]
    for row in rows:
        for at in range(0, len(row), PIECE):
            if len(row) > PIECE and time.monotonic() >= until:
                return None
            count += int(numpy["count_nonzero"](is_missing(row[at : at + PIECE])))
    return count


def _count_missing_numbers(numpy: Any, values: Any, until: float) -> Optional[int]:
    is_nan, count_nonzero = numpy["isnat" if values.dtype.kind in "mM" else "isnan"], numpy["count_nonzero"]
    count = 0
    for piece in numpy["nditer"](values, flags=["external_loop", "buffered", "zerosize_ok"], buffersize=PIECE):
        if values.size > PIECE and time.monotonic() >= until:
            return None
        count += int(count_nonzero(is_nan(piece)))
    return count
