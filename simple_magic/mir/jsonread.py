"""Reading JSON without trust: checked access with a path, and one way to report.

`loading` turns text into plain objects and everything that goes wrong, here or in the readers built on these helpers, into a ParseError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from .diagnostics import Diagnostic, ParseError
from .text import is_name

MAX_DEPTH = 64
"""How deep types, places and constants may nest."""
MAX_BYTES = 64 * 1024 * 1024
"""The longest text that is read."""

R = TypeVar("R")


class Malformed(Exception):
    """Something in the JSON is not what it has to be."""

    def __init__(self, path: str, message: str, code: str = "E0502") -> None:
        super().__init__(message)
        self.path, self.message, self.code = path, message, code


class DuplicateKey(ValueError):
    """An object names a key twice."""


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(f"the key {key!r} occurs twice in one object")
            seen.add(key)
    return found


def _no_constant(word: str) -> object:
    raise ValueError(f'{word} is not JSON; write {{"Float": "nan"}}, "inf" or "-inf"')


def read_json(source: str | Mapping, reader: Callable[[object], R]) -> R:
    """Return what `reader` makes of JSON text, or of a dict of it. Raises: ParseError with a JSON path."""
    try:
        value: object = source
        if isinstance(source, str):
            if len(source) > MAX_BYTES:
                raise Malformed("$", f"the text is longer than {MAX_BYTES} characters", "E0501")
            value = json.loads(source, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        return reader(value)
    except Malformed as bad:
        raise ParseError([Diagnostic(bad.code, bad.message, path=bad.path)]) from None
    except RecursionError:
        raise ParseError([Diagnostic("E0501", "the JSON is nested too deeply", path="$")]) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ParseError([Diagnostic("E0501", f"not JSON: {error.msg} ({place})", path="$")]) from None
    except ValueError as error:
        raise ParseError([Diagnostic("E0501", f"not acceptable JSON: {str(error).split(';')[0]}", path="$")]) from None


def object_of(value: object, path: str, required: tuple[str, ...] = (), optional: tuple[str, ...] | None = None) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise Malformed(path, f"expected an object, got {kind_of(value)}")
    for key in value:
        if not isinstance(key, str):
            raise Malformed(path, f"keys must be strings, got {key!r}")
    for key in required:
        if key not in value:
            raise Malformed(path, f'the key "{key}" is missing')
    if optional is not None:
        unknown = [key for key in value if key not in required and key not in optional]
        if unknown:
            raise Malformed(f"{path}.{unknown[0]}", "unknown key", "E0503")
    return value


def kind_of(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def list_of(value: object, path: str) -> list:
    if not isinstance(value, (list, tuple)):
        raise Malformed(path, f"expected an array, got {kind_of(value)}")
    return list(value)


def text_of(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise Malformed(path, f"expected a string, got {kind_of(value)}")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise Malformed(path, "the string holds half of a surrogate pair, which is not text", "E0504")
    return value


def bool_of(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(path, f"expected true or false, got {kind_of(value)}")
    return value


def integer_of(value: object, path: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed(path, f"expected an integer, got {kind_of(value)}")
    if not low <= value <= high:
        raise Malformed(path, f"the integer is outside {low}..{high}", "E0505")
    return value


def name_of(value: object, path: str) -> str:
    text = text_of(value, path)
    if not is_name(text):
        raise Malformed(path, f"`{text[:80]}` is not a name", "E0506")
    return text


def qualified_of(value: object, path: str) -> str:
    text = text_of(value, path)
    if text.count(".") > 1 or not all(is_name(part) for part in text.split(".")):
        raise Malformed(path, f"`{text[:80]}` is not a name", "E0506")
    return text


def one_key(value: object, path: str) -> tuple[str, object]:
    body = object_of(value, path)
    if len(body) != 1:
        raise Malformed(path, f"expected an object with one key, got {len(body)}")
    return next(iter(body.items()))
