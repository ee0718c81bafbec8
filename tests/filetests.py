"""Read the expectations out of a `.mir` file. Pure functions; `tests/filetests/README.mir` documents the format, `conftest.py` runs them."""

from __future__ import annotations

import ast
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simple_magic.mir.diagnostics import TRAP_KINDS
from simple_magic.passes.semantics import MODELS

EXECUTORS: tuple[tuple[str, int], ...] = (("interpreter", 0), ("llvm", 0), ("llvm", 2), ("cranelift", 2))
"""What every `run`, `trap` and `print` is executed on: back end and optimisation level."""


@dataclass(frozen=True)
class Expectation:
    """One call with its outcome, under one model.

    kind: "run", "trap" or "print". arguments: source text, evaluated anew for each call. expected: the result, or the output of "print".
    trap, trap_line: kind of the trap and the line of its origin, if given. line: where the expectation stands.
    """

    kind: str
    line: int
    function: str
    arguments: str
    model: str
    fuel: int | None
    expected: object = None
    trap: str = ""
    trap_line: int | None = None

    @property
    def title(self) -> str:
        return f"line {self.line}: {self.function}({self.arguments})"

    def args(self) -> list[object]:
        """Return the arguments as new Python values."""
        return [_value(node) for node in _call(f"f({self.arguments})", self.line).args]


@dataclass(frozen=True)
class ErrorExpectation:
    """An error on a line: its code ("": any), and what its message contains."""

    line: int
    code: str
    substring: str


@dataclass(frozen=True)
class Filetest:
    """The expectations of one file, in text order."""

    expectations: tuple[Expectation, ...]
    errors: tuple[ErrorExpectation, ...]


class BadExpectation(Exception):
    """An expectation cannot be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


_COMMENT = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\#(?P<comment>.*)""")
_DIRECTIVE = re.compile(r"\s*(?P<kind>run|trap|print|error)(?:\[(?P<options>[^\]]*)\])?:(?P<rest>.*)")
_TRAP = re.compile(r"(?P<call>.*\))\s+(?P<kind>\w+)(?:\s*@\s*(?P<below>\+?)(?P<line>\d+))?")
_PRINT = re.compile(r'(?P<call>.*\))\s+(?P<output>"(?:[^"\\]|\\.)*")')


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text after "#") of every comment."""
    for number, line in enumerate(source.split("\n"), 1):
        for match in _COMMENT.finditer(line):
            if match["comment"] is not None:
                yield number, match["comment"]
                break


def read_filetest(source: str) -> Filetest:
    """Return the expectations in the comments of a source. Raises: BadExpectation."""
    expectations: list[Expectation] = []
    errors: list[ErrorExpectation] = []
    for line, comment in comments(source):
        match = _DIRECTIVE.fullmatch(comment)
        if match is None:
            continue
        rest = match["rest"].strip()
        if match["kind"] == "error":
            errors.append(ErrorExpectation(line, match["options"] or "", rest))
            continue
        models, fuel = _options(match["options"] or "", line)
        read = _READERS[match["kind"]]
        expectations += [read(rest, line, model, fuel) for model in models]
    return Filetest(tuple(expectations), tuple(errors))


def _options(text: str, line: int) -> tuple[tuple[str, ...], int | None]:
    """Read what stands in brackets: names of models, `all`, `fuel=N`."""
    models: list[str] = []
    fuel = None
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word == "all":
            models += MODELS
        elif word.startswith("fuel=") and word[5:].isdigit():
            fuel = int(word[5:])
        elif word in MODELS:
            models.append(word)
        else:
            raise BadExpectation(line, f"{word!r} is no semantics model, `all` or `fuel=N`")
    return tuple(models) or ("reference",), fuel


def _read_run(text: str, line: int, model: str, fuel: int | None) -> Expectation:
    tree = _parse(text, line)
    if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or not isinstance(tree.ops[0], ast.Eq):
        raise BadExpectation(line, f"expected `f(arguments) == result`, got {text!r}")
    call = _checked_call(tree.left, line)
    return Expectation("run", line, *_spelled(call), model, fuel, expected=_checked_value(tree.comparators[0], line))


def _read_trap(text: str, line: int, model: str, fuel: int | None) -> Expectation:
    match = _TRAP.fullmatch(text)
    if match is None or match["kind"] not in TRAP_KINDS:
        raise BadExpectation(line, f"expected `f(arguments) kind`, then perhaps `@ line` or `@ +lines`, got {text!r}")
    origin = int(match["line"]) + (line if match["below"] else 0) if match["line"] else None
    return Expectation("trap", line, *_spelled(_call(match["call"], line)), model, fuel, trap=match["kind"], trap_line=origin)


def _read_print(text: str, line: int, model: str, fuel: int | None) -> Expectation:
    match = _PRINT.fullmatch(text)
    if match is None:
        raise BadExpectation(line, f'expected `f(arguments) "output"`, got {text!r}')
    return Expectation("print", line, *_spelled(_call(match["call"], line)), model, fuel, expected=ast.literal_eval(match["output"]))


_READERS: dict[str, Callable[[str, int, str, int | None], Expectation]] = {"run": _read_run, "trap": _read_trap, "print": _read_print}


# Calls and literals


def _parse(text: str, line: int) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise BadExpectation(line, f"{error.msg}: {text!r}") from None


def _call(text: str, line: int) -> ast.Call:
    return _checked_call(_parse(text, line), line)


def _checked_call(node: ast.expr, line: int) -> ast.Call:
    if not isinstance(node, ast.Call) or node.keywords:
        raise BadExpectation(line, f"expected a call `f(arguments)`, got {ast.unparse(node)!r}")
    for argument in node.args:
        _checked_value(argument, line)
    return node


def _checked_value(node: ast.expr, line: int) -> object:
    try:
        return _value(node)
    except ValueError as error:
        raise BadExpectation(line, str(error)) from None


def _spelled(call: ast.Call) -> tuple[str, str]:
    """Return the name of the function and the text of its arguments."""
    return ast.unparse(call.func), ", ".join(ast.unparse(a) for a in call.args)


_WORDS = {"nan": math.nan, "inf": math.inf}


def _value(node: ast.expr) -> object:
    """Return the value of a literal: Python's, and `nan`, `inf`, `numpy([1.0, 2.0])` for an array that cannot grow. Raises: ValueError."""
    match node:
        case ast.Name(id=name) if name in _WORDS:
            return _WORDS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _value(operand)
            if isinstance(inner, (int, float)) and not isinstance(inner, bool):
                return -inner
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return value
        case ast.List(elts=elements):
            return [_value(e) for e in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(e) for e in elements)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(k): _value(v) for k, v in zip(keys, values)}  # type: ignore[arg-type]
        case ast.Call(func=ast.Name(id="numpy"), args=[items], keywords=[]):
            return np.array(_value(items))
    raise ValueError(f"{ast.unparse(node)!r} is not a literal")


# Comparing


def plain(value: object) -> object:
    """Return a result with records as dicts of their fields, the variant of an enum first."""
    match value:
        case list():
            return [plain(v) for v in value]
        case tuple():
            return tuple(plain(v) for v in value)
        case dict():
            return {k: plain(v) for k, v in value.items()}
        case None | bool() | int() | float() | str():
            return value
    variant = getattr(value, "variant", None)
    return {**({} if variant is None else {"variant": variant}), **{k: plain(v) for k, v in vars(value).items()}}


def is_same(a: object, b: object) -> bool:
    """Return whether two plain values are the same: equal types, floats by their bits (NaN equals NaN), dicts in the same order."""
    if type(a) is not type(b):
        return False
    match a:
        case float():
            return (math.isnan(a) and math.isnan(b)) or struct.pack("<d", a) == struct.pack("<d", b)  # type: ignore[arg-type]
        case list() | tuple():
            return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a, b))  # type: ignore[arg-type]
        case dict():
            return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a.items(), b.items()))  # type: ignore[union-attr]
    return a == b
