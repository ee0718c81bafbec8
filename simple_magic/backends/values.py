"""Values of running programs as plain Python objects, and the boundary to the user's Python.

The interpreter computes with these, native heaps are encoded from and decoded to them (`heap.py`), and externs receive what `to_python` makes of
them. By type:

    integers int    bool bool    f64, f32 float (f32 already rounded)    char str of one code point    text str    unit None
    [T], [T; n] ArrayValue    {K: V} DictValue    struct, class StructValue    enum EnumValue    (A, B) tuple
    T? None or SomeValue    fn FnValue    ptr PtrValue

Objects compare by identity; the language's `eq` is the interpreter's rule. Everything here is iterative: a list of a million nodes is an ordinary value.

At the boundary (`from_python`, `to_python`) an option is None or the value, a struct, class or enum a `Record`, and a one-dimensional NumPy array of the
element's own dtype is lent: the program works in its memory. Everything else is copied in: what the program writes into a list, dict or record is not
seen by Python. One conversion keeps identity: an object given twice in one call arrives as one object, and one object in the result is one object in
Python; but the result is new, even if it is what was passed, and the next call copies again.
"""

from __future__ import annotations

import ctypes
import gc
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from ..mir.model import EnumDef, Param, StructDef
from ..mir.resolve import Names
from ..mir.types import (
    BOOL, CHAR, F32, F64, INTEGERS, TEXT, UNIT, Array, Dict, FixedArray, Named, Option, Primitive, Tuple, Type, format_type,
    integer_range,
)  # fmt: skip


class ArrayValue:
    """An array. `items` is a list, or a memoryview of a lent NumPy array (`growable` is then False)."""

    __slots__ = ("growable", "items")

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

    __slots__ = ("slots", "type_name")

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
    """Values still to convert, as an iterator of (source, plan, key): what becomes of the source goes to `target[key]`; at the end `finish` is called.

    describe: what to call the place `key` in a message.
    """

    __slots__ = ("describe", "finish", "key", "steps", "target")

    def __init__(self, sources: Iterable, plans: Iterable, target: Any, keys: Iterable, describe: Callable, finish: Callable[[], None] | None = None) -> None:
        self.steps = zip(sources, plans, keys)
        self.target = target
        self.describe = describe
        self.finish = finish
        self.key: object = None


_Plan = Callable[[Any, Any, Any], "_Frame | None"]
"""How values of one type are converted: `plan(source, target, key)` fills `target[key]`, now or at the end of the frame that it returns."""


def _walk(source: object, plan: _Plan) -> object:
    """Return what becomes of the source.

    Garbage collection waits meanwhile: what is made here stays, and to look at all of it again and again would take most of the time.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return _walk_frames(source, plan)
    finally:
        if was_collecting:
            gc.enable()


def _walk_frames(source: object, plan: _Plan) -> object:
    result: list = [None]
    frame = _Frame((source,), (plan,), result, (0,), _no_name)
    stack, key = [frame], None
    try:
        while stack:
            frame = stack[-1]
            target = frame.target
            for source, plan, key in frame.steps:
                inner = plan(source, target, key)
                if inner is not None:
                    frame.key = key
                    stack.append(inner)
                    break
            else:
                stack.pop()
                if frame.finish is not None:
                    frame.finish()
    except (TypeError, OverflowError) as error:
        if stack:
            stack[-1].key = key
        where = _where(stack)
        if not where:
            raise
        raise _located(error, where) from None
    return result[0]


def _located(error: Exception, where: str) -> Exception:
    kind = OverflowError if isinstance(error, OverflowError) else TypeError
    return kind(f"{where}: {error}")


def _where(stack: list[_Frame]) -> str:
    """Return the way from the outermost value to the one that is being converted."""
    shown = stack if len(stack) <= 9 else [*stack[:5], *stack[-4:]]
    steps = [f.describe(f.key) for f in shown]
    if len(stack) > 9:
        steps[5:5] = [f"... {len(stack) - 9} more ..."]
    return ", ".join(filter(None, steps))


def _no_name(_key: object) -> str:
    return ""


def _element(key: int) -> str:
    return f"element {key}"


def _dict_key(key: object) -> str:
    return f"key {_got(key)}"


class _Layout:
    """The fields of a struct, class or variant. `plans` is filled in when the first value comes."""

    __slots__ = ("fields", "keys", "name", "names", "plans")

    def __init__(self, name: str, fields: Sequence[Param]) -> None:
        self.name = name
        self.fields = fields
        self.names = tuple(f.name for f in fields)
        self.keys = range(len(fields))
        self.plans: tuple[_Plan, ...] | None = None

    def describe(self, key: int) -> str:
        return f"field {self.names[key]}"

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{f.name}: {format_type(f.type)}' for f in self.fields)})"


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
    return _walk(source, _Reader(names, writes, {} if shared is None else shared).plan(t))


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
    is_number = isinstance(source, (float, int)) or _is_numpy_number(source) or hasattr(type(source), "__index__")
    if is_number and not isinstance(source, bool):
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

_PYTHON_TYPES: dict[Type, type] = {**dict.fromkeys(INTEGERS, int), F64: float, BOOL: bool}


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
"""Stands for a tuple or enum whose parts are being converted."""


class _Reader:
    """One conversion from Python. `shared` maps a type to what was converted to it: id to (object, value)."""

    def __init__(self, names: Names, writes: bool, shared: dict[Type, dict[int, tuple]]) -> None:
        self.names = names
        self.writes = writes
        self.shared = shared
        self.plans: dict[Type, _Plan] = {}

    def plan(self, t: Type) -> _Plan:
        """Return how objects become values of type `t`."""
        known = self.plans.get(t)
        if known is None:
            known = self.plans[t] = self.new_plan(t)
        return known

    def new_plan(self, t: Type) -> _Plan:
        convert = _SCALAR_READERS.get(t)
        if convert is not None:
            return _scalar_plan(convert)
        if isinstance(t, Option):
            return _some_plan(self.plan(t.inner))
        rule = _READ_RULES.get(type(t))
        if rule is None:
            raise TypeError(f"{format_type(t)} cannot cross between Python and MIR")
        make = rule(self, t)
        memo = self.shared.setdefault(t, {})

        def enter(source: object, target: Any, key: Any) -> _Frame | None:
            known = memo.get(id(source))
            if known is None:
                return make(source, target, key, memo)
            if known[1] is _OPEN:
                raise TypeError(f"a value of {format_type(t)} cannot contain itself")
            target[key] = known[1]
            return None

        return enter

    def array_rule(self, t: Array | FixedArray) -> _Make:
        is_scalar, element = t.element in _SCALAR_READERS, self.plan(t.element)

        def make(source: Any, target: Any, key: Any, memo: dict) -> _Frame | None:
            numpy = sys.modules.get("numpy")
            is_numpy = numpy is not None and isinstance(source, numpy.ndarray)
            items: list = []
            if is_numpy and t.element in _DTYPES:
                value = ArrayValue(_lend(source, t, self.writes), growable=False)
            else:
                if is_numpy and source.ndim != 1:
                    raise TypeError(f"expected {format_type(t)}, got an array of {source.ndim} dimensions; pass x.tolist()")
                items = _elements(source, t)
                value = ArrayValue(_read_scalars(items, t.element) if is_scalar else [None] * len(items))
            if isinstance(t, FixedArray) and len(value.items) != t.length:
                raise TypeError(f"expected {t.length} elements for {format_type(t)}, got {len(value.items)}")
            memo[id(source)] = source, value
            target[key] = value
            return None if is_scalar else _Frame(items, repeat(element), value.items, range(len(items)), _element)

        return make

    def dict_rule(self, t: Dict) -> _Make:
        read_key, item = _SCALAR_READERS[t.key], self.plan(t.value)

        def make(source: Any, target: Any, key: Any, memo: dict) -> _Frame | None:
            if not isinstance(source, Mapping):
                raise TypeError(f"expected {format_type(t)}, got {_got(source)}; pass a dict")
            keys, sources = [], []
            for name, held in source.items():
                try:
                    keys.append(read_key(name))
                except (TypeError, OverflowError) as error:
                    raise _located(error, f"key number {len(keys) + 1}") from None
                sources.append(held)
            value = DictValue({})
            memo[id(source)] = source, value
            target[key] = value
            return _Frame(sources, repeat(item), value.items, keys, _dict_key)

        return make

    def tuple_rule(self, t: Tuple) -> _Make:
        plans = [self.plan(e) for e in t.elements]

        def make(source: Any, target: Any, key: Any, memo: dict) -> _Frame | None:
            if isinstance(source, str) or not isinstance(source, Sequence):
                raise TypeError(f"expected {format_type(t)}, got {_got(source)}; pass a tuple")
            if len(source) != len(plans):
                raise TypeError(f"expected {len(plans)} elements for {format_type(t)}, got {len(source)}")
            return _built_last(tuple, source, tuple(source), plans, _element, target, key, memo)

        return make

    def named_rule(self, t: Named) -> _Make:
        definition = self.names.types.get(t.name)
        if isinstance(definition, StructDef):
            return self.struct_rule(definition)
        if isinstance(definition, EnumDef):
            return self.enum_rule(definition)
        raise TypeError(f"type {t.name} is not defined")

    def struct_rule(self, definition: StructDef) -> _Make:
        name, layout = definition.name, _Layout(definition.name, definition.fields)

        def make(source: Any, target: Any, key: Any, memo: dict) -> _Frame | None:
            sources = _field_sources(source, name, layout)
            slots: list = [None] * len(sources)
            value = StructValue(name, slots)
            memo[id(source)] = source, value
            target[key] = value
            return _Frame(sources, self.field_plans(layout), slots, layout.keys, layout.describe)

        return make

    def enum_rule(self, definition: EnumDef) -> _Make:
        name = definition.name
        layouts = [_Layout(f"{name}.{v.name}", v.fields) for v in definition.variants]

        def make(source: Any, target: Any, key: Any, memo: dict) -> _Frame | None:
            number = _variant_of(source, definition)
            layout = layouts[number]
            sources = _field_sources(source, name, layout)
            return _built_last(
                lambda parts: EnumValue(name, number, tuple(parts)), source, sources, self.field_plans(layout), layout.describe, target, key, memo,
            )  # fmt: skip

        return make

    def field_plans(self, layout: _Layout) -> tuple[_Plan, ...]:
        if layout.plans is None:
            layout.plans = tuple(self.plan(f.type) for f in layout.fields)
        return layout.plans


_Make = Callable[[Any, Any, Any, dict], "_Frame | None"]
"""Like a plan, for an object that was not converted yet: it is remembered in the dict."""

_READ_RULES: dict[type, Callable[[_Reader, Any], _Make]] = {
    Array: _Reader.array_rule, FixedArray: _Reader.array_rule, Dict: _Reader.dict_rule, Tuple: _Reader.tuple_rule, Named: _Reader.named_rule,
}  # fmt: skip


def _scalar_plan(convert: Callable[[object], object]) -> _Plan:
    def enter(source: object, target: Any, key: Any) -> None:
        target[key] = convert(source)

    return enter


def _some_plan(plan: _Plan) -> _Plan:
    """Return how objects become options."""

    def enter(source: object, target: Any, key: Any) -> _Frame | None:
        if source is None:
            target[key] = None
            return None
        inner = [_OPEN]
        frame = plan(source, inner, 0)
        if inner[0] is not _OPEN:
            target[key] = SomeValue(inner[0])
            return frame
        assert frame is not None and frame.finish is not None, "only the end of a frame can fill the place"
        build = frame.finish

        def finish() -> None:
            build()
            target[key] = SomeValue(inner[0])

        frame.finish = finish
        return frame

    return enter


def _built_last(build: Callable[[list], object], source: object, sources: Sequence, plans: Iterable, describe: Callable, target: Any, key: Any,
                memo: dict) -> _Frame:  # fmt: skip
    """Return the frame for a value that can only be built from its finished parts."""
    memo[id(source)] = source, _OPEN
    parts: list = [None] * len(sources)

    def finish() -> None:
        value = build(parts)
        memo[id(source)] = source, value
        target[key] = value

    return _Frame(sources, plans, parts, range(len(parts)), describe, finish)


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


def _field_sources(source: object, type_name: str, layout: _Layout) -> Sequence:
    """Return the objects in the fields of a record, a mapping or any other object that has them."""
    try:
        if isinstance(source, Record):
            if source._mir_type != type_name:
                raise TypeError(f"expected {layout}, got a record of type {source._mir_type}")
            table = source.__dict__
            if len(table) > len(layout.names):
                unknown = ", ".join(name for name in table if name not in layout.names)
                raise TypeError(f"expected {layout}, got a record with the further field {unknown}, perhaps of an older {type_name}")
            return [table[name] for name in layout.names]
        if isinstance(source, Mapping):
            sources = [source[name] for name in layout.names]
            unknown = set(map(str, source)) - {*layout.names, "variant" if "." in layout.name else ""}
            if unknown:
                raise TypeError(f"expected {layout}, got a mapping with the unknown field {', '.join(sorted(unknown))}")
            return sources
        if type(source).__module__ == "builtins":
            shown = ", ".join(f"{name}=..." for name in layout.names)
            raise TypeError(f'expected {layout}, got {_got(source)}; pass a dict or simple_magic.Record("{type_name}", {shown})')
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
    raise TypeError(f'expected {definition.name}, got {got}; pass simple_magic.Record("{definition.name}", variant, ...) with one of the variants {", ".join(names)}')


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

    def made(expression: str) -> str:
        """Say how to make a fitting array; what the program writes is in the new one, so the caller must keep it."""
        return f"write x = {expression} first, pass x and read x afterwards: the program writes into it" if writes else f"pass {expression}"

    fitting = f"np.ascontiguousarray(x, dtype={spelled})"
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(a, masked.MaskedArray):
        raise TypeError(f"{expected}, got a masked array; " + made("x.filled(0)"))
    if a.ndim != 1:
        advice = "x.ravel()" if a.ndim else "x.reshape(1)"
        raise TypeError(f"{expected}, a one-dimensional array, got an array of shape {a.shape}; pass {advice}")
    if a.dtype != numpy.dtype(dtype):
        order = " of the other byte order" if a.dtype.newbyteorder("=") == numpy.dtype(dtype) else ""
        raise TypeError(f"{expected}, an array of dtype {dtype}, got dtype {a.dtype}{order}; {made(fitting)}")
    if not a.flags.c_contiguous:
        raise TypeError(f"{expected}, a contiguous array, got strides {a.strides}; {made(fitting)}")
    if not a.flags.aligned:
        raise TypeError(f"{expected}, an aligned array; " + made("x.copy()"))
    if writes and not a.flags.writeable:
        raise TypeError(f"{expected}, an array that the program can write into, got a read-only one; " + made("x.copy()"))
    return memoryview(a)


# To Python


def to_python(value: object, t: Type, names: Names) -> object:
    """Return the Python object for a value of type `t`: arrays become lists, dicts are in key order. Raises: TypeError for fn and ptr."""
    return value if t in _SCALAR_READERS else _walk(value, _Writer(names).plan(t))


class _Writer:
    """One conversion to Python. `shared` maps the id of a value, which lives as long as the conversion, to its object."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.shared: dict[int, object] = {}
        self.plans: dict[Type, _Plan] = {}

    def plan(self, t: Type) -> _Plan:
        """Return how values of type `t` become objects."""
        known = self.plans.get(t)
        if known is None:
            known = self.plans[t] = self.new_plan(t)
        return known

    def new_plan(self, t: Type) -> _Plan:
        if t in _SCALAR_READERS:
            return _scalar_plan(_same)
        if isinstance(t, Option):
            inner = self.plan(t.inner)

            def enter_option(value: SomeValue | None, target: Any, key: Any) -> _Frame | None:
                if value is not None:
                    return inner(value.value, target, key)
                target[key] = None
                return None

            return enter_option
        rule = _WRITE_RULES.get(type(t))
        if rule is None:
            raise TypeError(f"{format_type(t)} cannot cross between Python and MIR")
        make, shared = rule(self, t), self.shared

        def enter(value: object, target: Any, key: Any) -> _Frame | None:
            if id(value) not in shared:
                return make(value, target, key, shared)
            target[key] = shared[id(value)]
            return None

        return enter

    def array_rule(self, t: Array | FixedArray) -> _Make:
        is_scalar, element = t.element in _SCALAR_READERS, self.plan(t.element)

        def make(value: ArrayValue, target: Any, key: Any, shared: dict) -> _Frame | None:
            made = list(value.items) if is_scalar else [None] * len(value.items)
            target[key] = shared[id(value)] = made
            return None if is_scalar else _Frame(value.items, repeat(element), made, range(len(made)), _element)

        return make

    def dict_rule(self, t: Dict) -> _Make:
        item = self.plan(t.value)

        def make(value: DictValue, target: Any, key: Any, shared: dict) -> _Frame | None:
            made: dict = {}
            target[key] = shared[id(value)] = made
            keys = sorted(value.items)
            return _Frame([value.items[k] for k in keys], repeat(item), made, keys, _dict_key)

        return make

    def tuple_rule(self, t: Tuple) -> _Make:
        plans = [self.plan(e) for e in t.elements]

        def make(value: tuple, target: Any, key: Any, shared: dict) -> _Frame | None:
            parts: list = [None] * len(value)

            def finish() -> None:
                target[key] = shared[id(value)] = tuple(parts)

            return _Frame(value, plans, parts, range(len(parts)), _element, finish)

        return make

    def named_rule(self, t: Named) -> _Make:
        name, definition = t.name, self.names.types[t.name]
        variants = [v.name for v in definition.variants] if isinstance(definition, EnumDef) else []
        fields = [v.fields for v in definition.variants] if isinstance(definition, EnumDef) else [definition.fields]
        layouts = [_Layout(name, f) for f in fields]

        def make(value: StructValue | EnumValue, target: Any, key: Any, shared: dict) -> _Frame | None:
            tag = value.tag if isinstance(value, EnumValue) else 0
            layout = layouts[tag]
            if layout.plans is None:
                layout.plans = tuple(self.plan(f.type) for f in layout.fields)
            target[key] = shared[id(value)] = made = Record(name, variants[tag] if variants else None)
            return _Frame(value.slots, layout.plans, made.__dict__, layout.names, _no_name)

        return make


_WRITE_RULES: dict[type, Callable[[_Writer, Any], _Make]] = {
    Array: _Writer.array_rule, FixedArray: _Writer.array_rule, Dict: _Writer.dict_rule, Tuple: _Writer.tuple_rule, Named: _Writer.named_rule,
}  # fmt: skip


def _same(value: object) -> object:
    return value


# Values among themselves

LEAVES = frozenset((int, float, bool, str, type(None)))


def parts_of(value: object) -> Sequence:
    """Return the values inside a value that are not leaves for certain."""
    if isinstance(value, ArrayValue):
        return () if isinstance(value.items, memoryview) or LEAVES.issuperset(map(type, value.items)) else value.items
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
        if type(value) in LEAVES or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, ArrayValue) and isinstance(value.items, memoryview):
            yield value
        todo.extend(parts_of(value))


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

    def enter(value: object, target: Any, key: Any) -> _Frame | None:
        if type(value) in LEAVES:
            target[key] = value
            return None
        if id(value) in shared:
            target[key] = shared[id(value)]
            return None
        parts = parts_of(value)
        copied: list = [None] * len(parts)
        build = _IMMUTABLE_COPIES.get(type(value))
        if build is not None:

            def finish() -> None:
                target[key] = shared[id(value)] = build(value, copied)

            return _Frame(parts, repeat(enter), copied, range(len(parts)), _no_name, finish)
        target[key] = shared[id(value)] = made = _empty_copy(value, copied)
        if isinstance(made, DictValue):
            return _Frame(parts, repeat(enter), made.items, tuple(value.items), _no_name)  # type: ignore[attr-defined]
        return _Frame(parts, repeat(enter), copied, range(len(parts)), _no_name)

    copies: dict[str, object] = {}
    _walk(values, lambda _values, _target, _key: _Frame(values.values(), repeat(enter), copies, values, _no_name))
    return copies


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
