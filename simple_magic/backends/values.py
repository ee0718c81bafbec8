"""Values of running programs as plain Python objects, and the boundary to the user's Python.

The interpreter computes with these, native heaps are encoded from and decoded to them (`heap.py`), and externs receive what `to_python` makes of
them. By type:

    integers int    bool bool    f64, f32 float (f32 already rounded)    char str of one code point    text str    unit None
    [T], [T; n] ArrayValue    {K: V} DictValue    struct, class StructValue    enum EnumValue    (A, B) tuple
    T? None or SomeValue    fn FnValue    ptr PtrValue

Objects compare by identity; the language's `eq` is the interpreter's rule. Everything here is iterative: a list of a million nodes is an ordinary value.

At the boundary (`from_python`, `to_python`) an option is None or the value, a struct, class or enum a `Record`, and a one-dimensional NumPy array of the
element's own dtype is lent: the program works in its memory. One conversion keeps identity: one object on one side is one object on the other.
"""

from __future__ import annotations

import ctypes
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from ..mir.model import EnumDef, Param, StructDef
from ..mir.resolve import Names
from ..mir.types import (
    BOOL, CHAR, F32, F64, FLOATS, INTEGERS, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Option, Primitive, Ptr, Tuple, Type, format_type,
    integer_range, is_integer,
)  # fmt: skip


class ArrayValue:
    """An array. `items` is a list, or a memoryview of a lent NumPy array (`growable` is then False)."""

    __slots__ = ("items", "growable")

    def __init__(self, items: list | memoryview, growable: bool = True) -> None:
        self.items = items
        self.growable = growable


class DictValue:
    """A dict; `items` maps keys to values in any order (`keys` and `values` sort)."""

    __slots__ = ("items",)

    def __init__(self, items: dict) -> None:
        self.items = items


class StructValue:
    """An object of a struct or class: one slot per field, in declaration order."""

    __slots__ = ("type_name", "slots")

    def __init__(self, type_name: str, slots: list) -> None:
        self.type_name = type_name
        self.slots = slots


@dataclass(frozen=True, slots=True, eq=False)
class EnumValue:
    """A value of an enum: the variant's number and its payload fields."""

    type_name: str
    tag: int
    slots: tuple


@dataclass(frozen=True, slots=True, eq=False)
class SomeValue:
    """An option that holds a value; nil is None."""

    value: object


@dataclass(frozen=True, slots=True, eq=False)
class FnValue:
    """A function with its first parameters bound."""

    name: str
    bound: tuple


@dataclass(frozen=True, slots=True, eq=False)
class PtrValue:
    """A pointer: a block (shared list of slots) and an index that only load and store check."""

    block: list
    index: int


class Record:
    """A struct, class or enum value on the Python side: the fields are attributes, and can be assigned.

    >>> Record("Tensor", value=3.0, grad=0.0)
    Tensor(value=3.0, grad=0.0)
    >>> Record("Shape", "Circle", r=1.0).variant
    'Circle'

    `type_name` and, for an enum, `variant` are readable unless a field has that name. Records compare by identity.
    """

    __slots__ = ("__dict__", "__weakref__", "_mir_type", "_mir_variant")

    def __init__(self, type_name: str, variant: str | None = None, /, **fields: object) -> None:
        self._mir_type = type_name
        self._mir_variant = variant
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> object:
        if name == "type_name":
            return self._mir_type
        if name == "variant" and self._mir_variant is not None:
            return self._mir_variant
        raise AttributeError(f"{self._mir_type} has no field {name!r}; its fields are {', '.join(self.__dict__) or 'none'}")

    def __repr__(self) -> str:
        return _show(self, SHOWN_DEPTH)


SHOWN_DEPTH = 6
SHOWN_ELEMENTS = 100


def _show(value: object, depth: int) -> str:
    """Return the repr of a converted value, with "..." for what is nested deeper or longer than anybody wants to read."""
    if isinstance(value, Record):
        name = value._mir_type if value._mir_variant is None else f"{value._mir_type}.{value._mir_variant}"
        if not value.__dict__ and value._mir_variant is not None:
            return name
        inside = "..." if depth == 0 else ", ".join(f"{k}={_show(v, depth - 1)}" for k, v in value.__dict__.items())
        return f"{name}({inside})"
    if isinstance(value, (list, tuple)):
        parts = ["..."] if depth == 0 and value else [_show(v, depth - 1) for v in value[:SHOWN_ELEMENTS]]
        if depth and len(value) > SHOWN_ELEMENTS:
            parts.append(f"... {len(value) - SHOWN_ELEMENTS} more")
        inside = ", ".join(parts)
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, dict):
        shown = [] if depth == 0 else [f"{k!r}: {_show(v, depth - 1)}" for k, v in list(value.items())[:SHOWN_ELEMENTS]]
        if len(shown) < len(value):
            shown.append(f"... {len(value) - len(shown)} more")
        return "{" + ", ".join(shown) + "}"
    return repr(value)


# The walk that every conversion uses


class _Frame:
    """Values still to convert: each of `sources`, of the type beside it, goes into the same place of `target`; then `finish` is called."""

    __slots__ = ("finish", "index", "labels", "sources", "target", "types")

    def __init__(self, sources: Sequence, types: Sequence, target: list, finish: Callable[[], None] | None = None, labels: Sequence[str] | None = None) -> None:
        self.sources = sources
        self.types = types
        self.target = target
        self.finish = finish
        self.labels = labels
        self.index = 0


_Enter = Callable[[object, object, list, int], "_Frame | None"]


def _walk(frame: _Frame, enter: _Enter) -> None:
    """Convert everything in `frame`. `enter(source, type, target, index)` fills the target, or returns a frame that will."""
    stack = [frame]
    try:
        while stack:
            frame = stack[-1]
            index = frame.index
            if index == len(frame.sources):
                stack.pop()
                if frame.finish is not None:
                    frame.finish()
                continue
            frame.index = index + 1
            inner = enter(frame.sources[index], frame.types[index], frame.target, index)
            if inner is not None:
                stack.append(inner)
    except (TypeError, OverflowError) as error:
        where = _where(stack)
        if not where:
            raise
        raise _located(error, where) from None


def _located(error: Exception, where: str) -> Exception:
    kind = OverflowError if isinstance(error, OverflowError) else TypeError
    return kind(f"{where}: {error}")


def _where(stack: list[_Frame]) -> str:
    """Return the way from the outermost value to the one that is being converted."""
    steps = [_step(f) for f in (stack if len(stack) <= 9 else [*stack[:5], *stack[-4:]])]
    if len(stack) > 9:
        steps[5:5] = [f"... {len(stack) - 9} more ..."]
    return ", ".join(filter(None, steps))


def _step(frame: _Frame) -> str:
    return f"element {frame.index - 1}" if frame.labels is None else frame.labels[frame.index - 1]


_UNNAMED = ("",)


# From Python


def from_python(source: object, t: Type, names: Names, *, writes: bool = True, shared: dict | None = None) -> object:
    """Return the value of type `t` that a Python object stands for.

    writes: whether the program may write into arrays of this argument; a read-only NumPy array is accepted only if not.
    shared: pass one dict for all arguments of a call, so that an object given twice arrives as one object.
    Raises: TypeError, OverflowError; the message says what to do.
    """
    convert = _SCALAR_READERS.get(t)
    if convert is not None:
        return convert(source)
    result: list = [None]
    reader = _Reader(names, writes, {} if shared is None else shared)
    _walk(_Frame((source,), (t,), result, None, _UNNAMED), reader.enter)
    return result[0]


_GOT_LENGTH = 40


def _got(source: object) -> str:
    """Return a short description of an object, which must not run code of its class."""
    name = type(source).__qualname__
    if source is None:
        return "None"
    if type(source) is int and source.bit_length() > 128:
        return f"an int of {source.bit_length()} bits"
    if type(source) in (int, float, bool, str):
        text = repr(source)
        return f"{name} {text if len(text) <= _GOT_LENGTH else text[:_GOT_LENGTH] + '...'}"
    return name


def _read_bool(source: object) -> bool:
    if isinstance(source, bool):
        return source
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(source, numpy.bool_):
        return bool(source)
    raise TypeError(f"expected bool, got {_got(source)}; pass True or False, for example x != 0")


def _integer_reader(t: Type) -> Callable[[object], int]:
    low, high = integer_range(t)
    name = format_type(t)

    def read_integer(source: object) -> int:
        value = source
        if type(value) is not int:
            if isinstance(value, bool):
                raise TypeError(f"expected {name}, got bool {value}; a bool is not an integer here, pass int(x)")
            if not hasattr(type(value), "__index__"):
                raise TypeError(f"expected {name}, got {_got(value)}; pass {'int(x) or round(x)' if isinstance(value, float) else 'an int'}")
            value = int(operator.index(value))  # type: ignore[arg-type]
        if low <= value <= high:
            return value
        raise OverflowError(f"{_got(value)} does not fit {name}; pass a number from {low} to {high}")

    return read_integer


def _read_f64(source: object) -> float:
    if type(source) is float:
        return source
    if not isinstance(source, bool):
        if isinstance(source, (float, int)) or _is_numpy_number(source) or hasattr(type(source), "__index__"):
            try:
                return float(source)  # type: ignore[arg-type]
            except OverflowError:
                raise OverflowError(f"{_got(source)} is too large for a float") from None
    raise TypeError(f"expected a float, got {_got(source)}; pass {'float(x)' if isinstance(source, (bool, str)) else 'a float or an int'}")


def _is_numpy_number(source: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(source, (numpy.floating, numpy.integer))


def _read_f32(source: object) -> float:
    return ctypes.c_float(_read_f64(source)).value


def _read_text(source: object) -> str:
    if not isinstance(source, str):
        raise TypeError(f"expected text, got {_got(source)}; pass {'x.decode()' if isinstance(source, (bytes, bytearray)) else 'a str, for example str(x)'}")
    text = str.__str__(source)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"text holds the lone surrogate U+{ord(text[error.start]):04X} at index {error.start}; "
                            "replace it, for example x.encode('utf-8', 'replace').decode()") from None  # fmt: skip
    return text


def _read_char(source: object) -> str:
    if not isinstance(source, str) or len(source) != 1:
        what = f"str of {len(source)} code points" if isinstance(source, str) else _got(source)
        raise TypeError(f"expected char, a str of exactly one code point, got {what}")
    if 0xD800 <= ord(source) <= 0xDFFF:
        raise TypeError(f"a char cannot be the surrogate U+{ord(source):04X}")
    return str.__str__(source)


def _read_unit(source: object) -> None:
    if source is not None:
        raise TypeError(f"expected None, the only value of unit, got {_got(source)}")


_SCALAR_READERS: dict[Type, Callable[[object], object]] = {
    **{t: _integer_reader(t) for t in INTEGERS}, F64: _read_f64, F32: _read_f32, BOOL: _read_bool, CHAR: _read_char, TEXT: _read_text, UNIT: _read_unit,
}  # fmt: skip

_PYTHON_TYPES: dict[Type, type] = {**{t: int for t in INTEGERS}, F64: float, BOOL: bool}


def _read_scalars(items: list, t: Type) -> list:
    """Return the list of the values that the objects stand for."""
    wanted = _PYTHON_TYPES.get(t)
    if wanted is not None and (not items or set(map(type, items)) == {wanted}):
        if wanted is not int or not items:
            return items
        low, high = integer_range(t)
        if low <= min(items) and max(items) <= high:
            return items
    convert, values = _SCALAR_READERS[t], []
    try:
        for item in items:
            values.append(convert(item))
    except (TypeError, OverflowError) as error:
        raise _located(error, f"element {len(values)}") from None
    return values


_OPEN = object()
"""Stands in `shared` for a tuple or enum whose parts are being converted."""


class _Reader:
    """One conversion from Python. `shared` maps (id, type) to the object and its value."""

    def __init__(self, names: Names, writes: bool, shared: dict) -> None:
        self.names = names
        self.writes = writes
        self.shared = shared
        self.layouts: dict[str, _Layout] = {}

    def enter(self, source: object, t: Type, target: list, index: int) -> _Frame | None:
        convert = _SCALAR_READERS.get(t)
        if convert is not None:
            target[index] = convert(source)
            return None
        if isinstance(t, Option):
            if source is None:
                target[index] = None
                return None
            return self.read_some(source, t.inner, target, index)
        known = self.shared.get((id(source), t))
        if known is not None:
            if known[1] is _OPEN:
                raise TypeError(f"a value of {format_type(t)} cannot contain itself")
            target[index] = known[1]
            return None
        rule = _COMPOSITE_READERS.get(type(t))
        if rule is None:
            raise TypeError(f"{format_type(t)} cannot cross between Python and MIR")
        return rule(self, source, t, target, index)

    def read_some(self, source: object, t: Type, target: list, index: int) -> _Frame | None:
        inner = [_OPEN]
        frame = self.enter(source, t, inner, 0)
        if inner[0] is not _OPEN:
            target[index] = SomeValue(inner[0])
            return frame
        assert frame is not None and frame.finish is not None, "only the end of a frame can fill the place"
        build = frame.finish

        def finish() -> None:
            build()
            target[index] = SomeValue(inner[0])

        frame.finish = finish
        return frame

    def layout(self, name: str, fields: Sequence[Param]) -> _Layout:
        """Return what a conversion needs to know of fields, made once per conversion."""
        known = self.layouts.get(name)
        if known is None:
            known = self.layouts[name] = _Layout(name, fields)
        return known

    def make(self, source: object, t: Type, value: object, target: list, index: int) -> None:
        """Put a finished value in its place and remember it."""
        self.shared[id(source), t] = (source, value)
        target[index] = value

    def later(self, source: object, t: Type, build: Callable[[list], object], sources: Sequence, types: Sequence, target: list, index: int,
              labels: Sequence[str]) -> _Frame:  # fmt: skip
        """Return the frame for a value that can only be built from its finished parts."""
        self.shared[id(source), t] = (source, _OPEN)
        parts: list = [None] * len(sources)
        return _Frame(sources, types, parts, lambda: self.make(source, t, build(parts), target, index), labels)

    def read_array(self, source: object, t: Array | FixedArray, target: list, index: int) -> _Frame | None:
        numpy = sys.modules.get("numpy")
        is_numpy = numpy is not None and isinstance(source, numpy.ndarray)
        if is_numpy and t.element in _DTYPES:
            value = ArrayValue(_lend(source, t, self.writes), growable=False)
            items: list = []
        else:
            if is_numpy and source.ndim != 1:  # type: ignore[attr-defined]
                raise TypeError(f"expected {format_type(t)}, got an array of {source.ndim} dimensions; pass x.tolist()")  # type: ignore[attr-defined]
            items = _elements(source, t)
            value = ArrayValue(_read_scalars(items, t.element) if t.element in _SCALAR_READERS else [None] * len(items))
        if isinstance(t, FixedArray) and len(value.items) != t.length:
            raise TypeError(f"expected {t.length} elements for {format_type(t)}, got {len(value.items)}")
        self.make(source, t, value, target, index)
        if t.element in _SCALAR_READERS:
            return None
        return _Frame(items, (t.element,) * len(items), value.items)  # type: ignore[arg-type]

    def read_dict(self, source: object, t: Dict, target: list, index: int) -> _Frame | None:
        if not isinstance(source, Mapping):
            raise TypeError(f"expected {format_type(t)}, got {_got(source)}; pass a dict")
        read_key = _SCALAR_READERS[t.key]
        keys, sources = [], []
        for key, item in source.items():
            try:
                keys.append(read_key(key))
            except (TypeError, OverflowError) as error:
                raise _located(error, f"key number {len(keys) + 1}") from None
            sources.append(item)
        value = DictValue({})
        self.make(source, t, value, target, index)
        parts: list = [None] * len(keys)
        labels = [f"key {_got(key)}" for key in keys]
        return _Frame(sources, (t.value,) * len(keys), parts, lambda: value.items.update(zip(keys, parts)), labels)

    def read_tuple(self, source: object, t: Tuple, target: list, index: int) -> _Frame | None:
        if isinstance(source, str) or not isinstance(source, Sequence):
            raise TypeError(f"expected {format_type(t)}, got {_got(source)}; pass a tuple")
        if len(source) != len(t.elements):
            raise TypeError(f"expected {len(t.elements)} elements for {format_type(t)}, got {len(source)}")
        return self.later(source, t, tuple, tuple(source), t.elements, target, index, [f"element {i}" for i in range(len(source))])

    def read_named(self, source: object, t: Named, target: list, index: int) -> _Frame | None:
        definition = self.names.types.get(t.name)
        if isinstance(definition, StructDef):
            layout = self.layout(t.name, definition.fields)
            value = StructValue(t.name, [None] * len(layout.names))
            sources = _field_sources(source, t.name, layout)
            self.make(source, t, value, target, index)
            return _Frame(sources, layout.types, value.slots, None, layout.labels)
        if not isinstance(definition, EnumDef):
            raise TypeError(f"type {t.name} is not defined")
        number = _variant_of(source, definition)
        variant = definition.variants[number]
        layout = self.layout(f"{t.name}.{variant.name}", variant.fields)
        sources = _field_sources(source, t.name, layout)

        def build(parts: list) -> EnumValue:
            return EnumValue(t.name, number, tuple(parts))

        return self.later(source, t, build, sources, layout.types, target, index, layout.labels)


_COMPOSITE_READERS: dict[type, Callable[[_Reader, object, object, list, int], _Frame | None]] = {
    Array: _Reader.read_array, FixedArray: _Reader.read_array, Dict: _Reader.read_dict, Tuple: _Reader.read_tuple, Named: _Reader.read_named,
}  # type: ignore[dict-item]  # fmt: skip


def _elements(source: object, t: Type) -> list:
    """Return the elements of a sequence as a new list."""
    if isinstance(source, (list, tuple)):
        return list(source)
    if isinstance(source, str):
        raise TypeError(f"expected {format_type(t)}, got {_got(source)}; a str is not a sequence here, pass list(x)")
    is_sequence = isinstance(source, Sequence) or (hasattr(type(source), "__len__") and hasattr(type(source), "__getitem__"))
    if not is_sequence or isinstance(source, (Mapping, Set)):
        advice = "pass list(x)" if hasattr(type(source), "__iter__") else "pass a list or another sequence"
        raise TypeError(f"expected {format_type(t)}, got {_got(source)}; {advice}")
    return list(source)  # type: ignore[call-overload]


class _Layout:
    """The fields of a struct, class or variant."""

    __slots__ = ("labels", "name", "names", "types")

    def __init__(self, name: str, fields: Sequence[Param]) -> None:
        self.name = name
        self.names = tuple(f.name for f in fields)
        self.types = tuple(f.type for f in fields)
        self.labels = tuple(f"field {f.name}" for f in fields)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}: {format_type(t)}' for name, t in zip(self.names, self.types))})"


def _field_sources(source: object, type_name: str, layout: _Layout) -> Sequence:
    """Return the objects in the fields of a record, a mapping or any other object that has them."""
    try:
        if isinstance(source, Record):
            if source._mir_type != type_name:
                raise TypeError(f"expected {layout}, got a record of type {source._mir_type}")
            table = source.__dict__
            return [table[name] for name in layout.names]
        if isinstance(source, Mapping):
            sources = [source[name] for name in layout.names]
            unknown = set(map(str, source)) - {*layout.names, "variant" if "." in layout.name else ""}
            if unknown:
                raise TypeError(f"expected {layout}, got a mapping with the unknown field {', '.join(sorted(unknown))}")
            return sources
        if type(source).__module__ == "builtins":
            raise TypeError(f'expected {layout}, got {_got(source)}; pass a dict or Record("{type_name}", ...)')
        return [getattr(source, name) for name in layout.names]
    except (KeyError, AttributeError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else error.name
        raise TypeError(f"expected {layout}, but {_got(source)} has no field {missing}") from None


def _variant_of(source: object, definition: EnumDef) -> int:
    """Return the number of the variant that a record, mapping or object names."""
    if isinstance(source, Record):
        chosen: object = source._mir_variant
    elif isinstance(source, Mapping):
        chosen = source.get("variant")
    else:
        chosen = getattr(source, "variant", None)
    names = [variant.name for variant in definition.variants]
    if isinstance(chosen, str) and chosen in names:
        return names.index(chosen)
    got = _got(source) if chosen is None else f"variant {_got(chosen)}"
    raise TypeError(f'expected {definition.name}, got {got}; pass Record("{definition.name}", variant, ...) with one of the variants {", ".join(names)}')


_DTYPES: dict[Type, str] = {
    **{t: ("int" if t.name[0] == "i" else "uint") + t.name[1:] for t in INTEGERS if isinstance(t, Primitive)}, F64: "float64", F32: "float32", BOOL: "bool",
}  # fmt: skip


def _lend(array: object, t: Array | FixedArray, writes: bool) -> memoryview:
    """Return a view of a NumPy array that a program can work in, or tell how to get one that it can."""
    numpy = sys.modules["numpy"]
    dtype = _DTYPES[t.element]
    spelled = "bool" if dtype == "bool" else f"np.{dtype}"
    a: numpy.ndarray = array  # type: ignore[name-defined]
    expected = f"expected {format_type(t)}"
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(a, masked.MaskedArray):
        raise TypeError(f"{expected}, got a masked array; pass x.filled(...)")
    if a.ndim != 1:
        advice = "x.ravel()" if a.ndim else "x.reshape(1)"
        raise TypeError(f"{expected}, a one-dimensional array, got an array of shape {a.shape}; pass {advice}")
    if a.dtype != numpy.dtype(dtype):
        order = " of the other byte order" if a.dtype.newbyteorder("=") == numpy.dtype(dtype) else ""
        raise TypeError(f"{expected}, an array of dtype {dtype}, got dtype {a.dtype}{order}; pass np.ascontiguousarray(x, dtype={spelled})")
    if not a.flags.c_contiguous:
        raise TypeError(f"{expected}, a contiguous array, got strides {a.strides}; pass np.ascontiguousarray(x, dtype={spelled})")
    if not a.flags.aligned:
        raise TypeError(f"{expected}, an aligned array; pass x.copy()")
    if writes and not a.flags.writeable:
        raise TypeError(f"{expected}, an array that the program can write into, got a read-only one; pass x.copy()")
    return memoryview(a)


# To Python


def to_python(value: object, t: Type, names: Names) -> object:
    """Return the Python object for a value of type `t`: arrays become lists, dicts are in key order. Raises: TypeError for fn and ptr."""
    if t in _SCALAR_READERS:
        return value
    result: list = [None]
    writer = _Writer(names)
    _walk(_Frame((value,), (t,), result, None, _UNNAMED), writer.enter)
    return result[0]


class _Writer:
    """One conversion to Python. `shared` maps the id of a value, which lives as long as the conversion, to its object."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.shared: dict[int, object] = {}
        self.layouts: dict[tuple[str, int], tuple[str | None, _Layout]] = {}

    def enter(self, value: object, t: Type, target: list, index: int) -> _Frame | None:
        while isinstance(t, Option):
            if value is None:
                break
            value, t = value.value, t.inner  # type: ignore[attr-defined]
        if value is None or t in _SCALAR_READERS:
            target[index] = value
            return None
        known = self.shared.get(id(value))
        if known is not None:
            target[index] = known
            return None
        rule = _COMPOSITE_WRITERS.get(type(t))
        if rule is None:
            raise TypeError(f"{format_type(t)} cannot cross between Python and MIR")
        return rule(self, value, t, target, index)

    def make(self, value: object, made: object, target: list, index: int) -> None:
        self.shared[id(value)] = made
        target[index] = made

    def write_array(self, value: ArrayValue, t: Array | FixedArray, target: list, index: int) -> _Frame | None:
        if t.element in _SCALAR_READERS:
            self.make(value, list(value.items), target, index)
            return None
        made: list = [None] * len(value.items)
        self.make(value, made, target, index)
        return _Frame(value.items, (t.element,) * len(made), made)

    def write_dict(self, value: DictValue, t: Dict, target: list, index: int) -> _Frame | None:
        made: dict = {}
        self.make(value, made, target, index)
        keys = sorted(value.items)
        parts: list = [None] * len(keys)
        return _Frame([value.items[k] for k in keys], (t.value,) * len(keys), parts, lambda: made.update(zip(keys, parts)))

    def write_tuple(self, value: tuple, t: Tuple, target: list, index: int) -> _Frame | None:
        parts: list = [None] * len(value)
        return _Frame(value, t.elements, parts, lambda: self.make(value, tuple(parts), target, index))

    def write_named(self, value: StructValue | EnumValue, t: Named, target: list, index: int) -> _Frame | None:
        variant, layout = self.layout(t.name, value.tag if isinstance(value, EnumValue) else -1)
        made = Record(t.name, variant)
        self.make(value, made, target, index)
        parts: list = [None] * len(layout.names)
        return _Frame(value.slots, layout.types, parts, lambda: made.__dict__.update(zip(layout.names, parts)))

    def layout(self, name: str, tag: int) -> tuple[str | None, _Layout]:
        """Return the variant, if the type is an enum, and the fields, looked up once per conversion."""
        known = self.layouts.get((name, tag))
        if known is None:
            definition = self.names.types[name]
            if isinstance(definition, EnumDef):
                variant = definition.variants[tag]
                known = variant.name, _Layout(name, variant.fields)
            else:
                known = None, _Layout(name, definition.fields)
            self.layouts[name, tag] = known
        return known


_COMPOSITE_WRITERS: dict[type, Callable[[_Writer, object, object, list, int], _Frame | None]] = {
    Array: _Writer.write_array, FixedArray: _Writer.write_array, Dict: _Writer.write_dict, Tuple: _Writer.write_tuple, Named: _Writer.write_named,
}  # type: ignore[dict-item]  # fmt: skip


# Values among themselves

_LEAVES = frozenset((int, float, bool, str, type(None)))


def _parts(value: object) -> Sequence:
    """Return the values inside a value that are not leaves for certain."""
    if isinstance(value, ArrayValue):
        return () if isinstance(value.items, memoryview) or _LEAVES.issuperset(map(type, value.items)) else value.items
    if isinstance(value, DictValue):
        return tuple(value.items.values())
    if isinstance(value, (StructValue, EnumValue)):
        return value.slots
    if isinstance(value, SomeValue):
        return (value.value,)
    if isinstance(value, tuple):
        return value
    if isinstance(value, FnValue):
        return value.bound
    return value.block if isinstance(value, PtrValue) else ()


def _lent_arrays(values: Iterable) -> Iterable[ArrayValue]:
    """Yield every lent array that is reachable."""
    todo, seen = list(values), set()
    while todo:
        value = todo.pop()
        if type(value) in _LEAVES or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, ArrayValue) and isinstance(value.items, memoryview):
            yield value
        todo.extend(_parts(value))


def is_lent(value: object) -> bool:
    """Return whether a lent NumPy array is reachable from the value."""
    return any(True for _ in _lent_arrays((value,)))


def detach_lent(values: Iterable) -> None:
    """Give every lent array that is reachable from the values a list of its own; afterwards it can grow."""
    for array in list(_lent_arrays(values)):
        array.items = list(array.items)
        array.growable = True


def copy_values(values: Mapping[str, object]) -> dict[str, object]:
    """Return a deep copy; what is shared or cyclic stays so, lent arrays become ordinary ones."""
    shared: dict[int, object] = {}

    def enter(value: object, _type: object, target: list, index: int) -> _Frame | None:
        if type(value) in _LEAVES:
            target[index] = value
            return None
        if id(value) in shared:
            target[index] = shared[id(value)]
            return None
        parts = _parts(value)
        copied: list = [None] * len(parts)
        build = _IMMUTABLE_COPIES.get(type(value))
        if build is not None:

            def finish() -> None:
                shared[id(value)] = target[index] = build(value, copied)

            return _Frame(parts, parts, copied, finish)
        shared[id(value)] = target[index] = made = _empty_copy(value, copied)
        if isinstance(value, DictValue):
            keys = tuple(value.items)
            return _Frame(parts, parts, copied, lambda: made.items.update(zip(keys, copied)))
        return _Frame(parts, parts, copied)

    result: list = [None] * len(values)
    _walk(_Frame(tuple(values.values()), (None,) * len(values), result), enter)
    return dict(zip(values, result))


def _empty_copy(value: object, copied: list) -> ArrayValue | StructValue | DictValue:
    """Return the copy of a value that can be referred to before its parts are there; they come into `copied`."""
    if isinstance(value, ArrayValue):
        return ArrayValue(copied if copied else list(value.items))
    if isinstance(value, StructValue):
        return StructValue(value.type_name, copied)
    assert isinstance(value, DictValue), f"a {type(value).__name__} does not outlive a call"
    return DictValue({})


_IMMUTABLE_COPIES: dict[type, Callable] = {
    tuple: lambda _, parts: tuple(parts),
    SomeValue: lambda _, parts: SomeValue(parts[0]),
    EnumValue: lambda value, parts: EnumValue(value.type_name, value.tag, tuple(parts)),
    FnValue: lambda value, parts: FnValue(value.name, tuple(parts)),
}
