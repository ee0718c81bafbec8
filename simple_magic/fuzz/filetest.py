"""Writing a small failing program as a filetest (format: `tests/filetests/README.mir`), with what the interpreter says as expectations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..backends.base import Unit
from ..backends.interpreter import Interpreter
from ..backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue
from ..mir.diagnostics import Origin, Trap
from ..mir.model import Module, StructDef
from ..mir.resolve import Names
from ..mir.text import format_text, parse_text
from ..mir.types import BOOL, CHAR, NUMBERS, TEXT, UNIT, Array, Dict, FixedArray, Named, Option, Tuple, Type
from .compare import RecordingHost, initial_globals, prepare
from .generate import Batch
from .values import Lent


def filetest(batch: Batch, what: str) -> str:
    """Return the text of a filetest: the program, then a line for each call in order. `what` says what went wrong.

    What the format cannot say (globals and lent arrays after a call, an array lent as anything but i64 or f64) stands there as a call without
    an answer, which the reader of the filetest has to complete.
    """
    (program,) = batch.programs
    text = format_text(program.module)
    comments = "".join(f"# {line}\n" for line in what.split("\n"))
    head = comments.count("\n") + 1
    options = [batch.model] * (batch.model != "reference") + [f"fuel={batch.fuel}"] * (batch.fuel is not None)
    brackets = f"[{', '.join(options)}]" if options else ""
    lines = [f"# {_expectation(*answer, brackets, parse_text(text), head)}\n" for answer in _answers(batch)]
    return f"{comments}\n{text}\n{''.join(lines)}"


def _answers(batch: Batch) -> list[tuple]:
    """Return (call, kind of answer, answer) of each call on the interpreter."""
    (program,) = batch.programs
    module = prepare(program.module, batch.model, batch.fuel)
    names = Names.of(module)
    host = RecordingHost()
    interpreter = Interpreter(host)
    slots = {g.name: index for index, g in enumerate(module.globals)}
    compiled = interpreter.compile(Unit(module, "filetest", slots), 0)
    interpreter.write_globals(initial_globals(names), {g.name: (slots[g.name], g.type) for g in module.globals}, names)
    found: list[tuple] = []
    for name, args in program.calls:
        types = [p.type for p in names.functions[name].params]
        call = f"{name}({', '.join(literal(a, t, names) for a, t in zip(args, types))})"
        host.begin()
        try:
            value = compiled.call(name, [ArrayValue(list(a.items), growable=False) if isinstance(a, Lent) else a for a in args], batch.fuel)
            found.append((call, "run", literal(value, names.functions[name].result, names), "".join(host.output)))
        except Trap as trap:
            found.append((call, "trap", trap, "".join(host.output)))
        except Exception as error:
            found.append((call, "raised", error, ""))
    host.flag.close()
    return found


def _expectation(call: str, kind: str, answer: object, output: str, brackets: str, module: Module, head: int) -> str:
    if kind == "trap":
        assert isinstance(answer, Trap)
        line = _line(module, answer.origin)
        return f"trap{brackets}: {call} {answer.kind}" + (f" @ {line + head}" if line is not None else "")
    if kind == "raised":
        return f"not expressible: {call} raises {answer!r}"
    if output:
        return f"print{brackets}: {call} {_text(output)}"
    return f"run{brackets}: {call} == {answer}"


def _line(module: Module, origin: Origin | None) -> int | None:
    for function in module.functions:
        for block in function.blocks:
            if origin is not None and (function.name, block.label) == (origin.function, origin.block):
                span = block.instructions[origin.index].span
                return span.line if span is not None else None
    return None


def literal(value: object, t: Type, names: Names) -> str:
    """Return a value as filetests write it. Types nest as deep as a program spells them, so this recurses over the type's depth."""
    match t:
        case Array(element) | FixedArray(element, _):
            if isinstance(value, Lent):
                return f"numpy([{_sequence(value.items, [element] * len(value.items), names)}])"
            assert isinstance(value, ArrayValue)
            return f"[{_sequence(value.items, [element] * len(value.items), names)}]"
        case Dict(key, inner):
            assert isinstance(value, DictValue)
            return f"{{{', '.join(f'{literal(k, key, names)}: {literal(value.items[k], inner, names)}' for k in sorted(value.items))}}}"
        case Tuple(elements):
            assert isinstance(value, tuple)
            return f"({_sequence(value, elements, names)}{',' * (len(value) == 1)})"
        case Option(inner):
            return "None" if value is None else literal(value.value if isinstance(value, SomeValue) else value, inner, names)
        case Named(name):
            definition = names.types[name]
            if isinstance(definition, StructDef):
                assert isinstance(value, StructValue)
                fields, slots, first = definition.fields, value.slots, ""
            else:
                assert isinstance(value, EnumValue)
                variant = definition.variants[value.tag]
                fields, slots, first = variant.fields, list(value.slots), f'"variant": "{variant.name}"' + ", " * bool(variant.fields)
            return f"{{{first}{', '.join(f'{_text(f.name)}: {literal(v, f.type, names)}' for f, v in zip(fields, slots))}}}"
    return _scalar(value, t)


def _sequence(values: Sequence, types: Sequence[Type], names: Names) -> str:
    return ", ".join(literal(v, t, names) for v, t in zip(values, types))


def _scalar(value: object, t: Type) -> str:
    if t in (TEXT, CHAR):
        return _text(str(value))
    if t == UNIT:
        return "None"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    return repr(value) if t in (*NUMBERS, BOOL) else "?"


def _text(text: str) -> str:
    quoted = ascii(text)
    return quoted if quoted[0] == '"' else '"' + quoted[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
