"""What a random program declares: types, globals, functions without their bodies; and the arguments of the calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ..backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue
from ..mir.model import EnumDef, Extern, Function, Global, Param, StructDef, Variant, const
from ..mir.places import Rejected, TypeFacts
from ..mir.resolve import Names
from ..mir.types import (
    BOOL, CHAR, DICT_KEYS, F64, I64, NEVER, NUMBERS, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Option, Ptr, Tuple, Type,
)  # fmt: skip
from .values import LENT, Chooser, Lent, scalars_of

T = TypeVar("T")


EXTERNS = (
    Extern("host_mix", (Param("x", F64), Param("n", I64)), F64),
    Extern("host_note", (Param("what", TEXT),), UNIT, variadic=True),
    Extern("host_pick", (Param("xs", Array(I64)), Param("default", Option(TEXT))), Option(TEXT)),
    Extern("host_check", (Param("x", I64),), I64),
    Extern("host_again", (Param("x", I64),), I64),
)
"""What generated programs may call; `compare.RecordingHost` serves them."""


class Declarations:
    """What one program declares; `size` is roughly the number of statements in a function. Names of items begin with `prefix`."""

    def __init__(self, chooser: Chooser, size: int = 10, prefix: str = "") -> None:
        self.chooser = chooser
        self.size = size
        self.prefix = prefix
        self.names = Names()
        self.facts = TypeFacts(self.names)
        self.palette: list[Type] = [I64, F64, BOOL, TEXT]
        self.functions: list[Function] = []
        """Declared so far, without blocks."""

    # Choosing

    def below(self, count: int) -> int:
        return self.chooser.below(count)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.chooser.below(len(items))]

    def often(self, of: int = 8) -> bool:
        """True but once in `of`."""
        return self.chooser.below(of) != of - 1

    def rarely(self, of: int = 8) -> bool:
        return not self.often(of)

    # Declarations

    def declare(self, has_globals: bool) -> None:
        """Declare everything; functions that come later know more types."""
        self.declare_types()
        for _ in range(1 + self.below(4)):
            self.palette.append(self.composite())
        if has_globals:
            self.declare_globals()
        for _ in range(1 + self.below(3)):
            self.declare_function()
        for _ in range(self.below(3)):
            self.palette.append(self.pick(self.function_types()))
        for _ in range(self.below(3)):
            self.palette.append(self.composite())
        for _ in range(1 + self.below(3)):
            self.declare_function()
        self.use(externs={e.name: e for e in EXTERNS}, functions={f.name: f for f in self.functions})

    def use(self, **tables: dict) -> None:
        self.names = replace(self.names, **tables)
        self.facts = TypeFacts(self.names)

    def some_name(self, base: str, count: int) -> str:
        return self.pick(("", "", "", "len_", "goto_", "\u03c0", "_")) + base + str(count)

    def declare_types(self) -> None:
        for _ in range(self.below(4)):
            self.palette.append(self.pick((*NUMBERS, CHAR)))
        for number in range(self.below(4)):
            name = f"{self.prefix}T{number}"
            is_class, is_enum = self.below(3) == 1, self.below(3) == 2
            if is_enum:
                variants = []
                for index in range(1 + self.below(3)):
                    fields = [Param(f"f{i}", self.pick(self.palette)) for i in range(self.below(3))]
                    if fields and self.rarely():
                        fields[0] = Param("tail", Option(Named(name)))
                    variants.append(Variant(f"V{index}", tuple(fields)))
                made: StructDef | EnumDef = EnumDef(name, tuple(variants))
            else:
                fields = [Param(f"f{i}", self.pick(self.palette)) for i in range(1 + self.below(3))]
                if is_class and self.rarely(3):
                    fields.append(Param("next", Option(Named(name))))
                made = StructDef(name, tuple(fields), is_class)
            self.use(types={**self.names.types, name: made})
            self.palette.append(Named(name))
            if self.below(2):
                self.palette.append(self.composite())

    def composite(self) -> Type:
        kind, inner = self.below(7), self.pick(self.palette)
        if kind == 0:
            return Array(inner)
        if kind == 1:
            return Option(inner)
        if kind == 2:
            return Dict(self.pick((I64, TEXT, *DICT_KEYS)), inner)
        if kind == 3:
            return Tuple((inner, *(self.pick(self.palette) for _ in range(self.below(3)))))
        if kind == 4:
            return FixedArray(inner, self.below(4))
        return Ptr(inner) if kind == 5 else Array(self.pick(NUMBERS))

    def has_zero(self, t: Type) -> bool:
        try:
            self.facts.require_zero(t)
        except Rejected:
            return False
        return True

    def holds_code(self, t: Type, through_classes: bool = True) -> bool:
        return self.facts.code_inside(t, through_classes) is not None

    def declare_globals(self) -> None:
        table = {}
        for number in range(self.below(5)):
            t = self.pick(self.palette)
            if self.holds_code(t) or not self.has_zero(t):
                t = I64
            name = self.prefix + self.some_name("g", number)
            init = const(t, self.pick(scalars_of(t))) if t in (*NUMBERS, BOOL, CHAR, TEXT) and self.below(2) else None
            table[name] = Global(name, t, init)
        self.use(globals=table)

    def declare_function(self) -> None:
        number = len(self.functions)
        types = [self.pick(self.palette) for _ in range(self.below(4))]
        if self.below(3) == 1:
            types.insert(0, I64)
        name = self.prefix + self.some_name("f", number)
        if types and isinstance(types[0], Named) and self.below(2):
            name = f"{types[0].name}.m{number}"
        result = UNIT if self.rarely(6) else NEVER if self.rarely(16) else self.pick(self.palette)
        self.functions.append(Function(name, tuple(Param(f"p{i}", t) for i, t in enumerate(types)), result, ()))

    def function_types(self) -> list[Type]:
        """Return the types of function values that can be made of the functions declared so far."""
        return [Fn(tuple(p.type for p in f.params)[bound:], f.result) for f in self.functions for bound in range(min(3, len(f.params) + 1))]

    # Calls

    def calls(self, count: int) -> tuple[tuple[str, tuple], ...]:
        """Return calls of every function that can be called from outside: half of `count` to `count`, one without parameters."""
        callable_functions = [f for f in self.functions if not any(self.holds_code(t) for t in (*(p.type for p in f.params), f.result))]
        calls = []
        for function in callable_functions:
            for _ in range(1 if not function.params else count // 2 + self.below(count // 2 + 1)):
                calls.append((function.name, tuple(self.value(p.type, True) for p in function.params)))
        return tuple(calls)

    def value(self, t: Type, lend: bool = False) -> object:
        """Return an argument: a value as back ends take them, or `Lent`."""
        match t:
            case Array(element):
                if lend and element in NUMBERS and self.rarely(6):
                    return Lent(LENT[element.name], tuple(self.value(element) for _ in range((2, 1, 3, 40)[self.below(4)])))  # type: ignore[union-attr]
                return ArrayValue([self.value(element) for _ in range((2, 1, 3, 0, 9)[self.below(5)])])
            case FixedArray(element, length):
                return ArrayValue([self.value(element) for _ in range(length)])
            case Dict(key, value):
                return DictValue({self.value(key): self.value(value) for _ in range(self.below(3))})
            case Tuple(elements):
                return tuple(self.value(e) for e in elements)
            case Option(inner):
                return SomeValue(self.value(inner)) if self.often(4) and not self.is_endless(inner) else None
            case Named(name):
                definition = self.names.types[name]
                if isinstance(definition, StructDef):
                    return StructValue(name, [self.value(f.type) for f in definition.fields])
                tag = self.below(len(definition.variants))
                return EnumValue(name, tag, tuple(self.value(f.type) for f in definition.variants[tag].fields))
        return self.pick(scalars_of(t))

    def is_endless(self, t: Type) -> bool:
        """Whether values of the type lead to an option of the type, and it is time to stop."""
        return isinstance(t, Named) and self.below(2) == 0
