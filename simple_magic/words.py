"""What people write on a line, in a magic or on the command line: literals, numbers of seconds, counts. A wrong word is one sentence."""

from __future__ import annotations

import ast
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from .execution.manager import MAX_TIMEOUT

R = TypeVar("R")

_FLOAT_WORDS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_OPENING, _CLOSING = "([{", ")]}"


def literal(word: str) -> object:
    """Return the value of a Python literal, or of nan, inf, -inf. Raises: ValueError."""
    if word in _FLOAT_WORDS:
        return _FLOAT_WORDS[word]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{word!r} is not a Python literal such as 1, 2.5, True, 'text' or [1,2]") from None


def whole_words(words: Iterable[str]) -> Iterator[str]:
    """Yield the words, with what blanks inside brackets have split put together again: `[1.0,` and `2.0]` are one word."""
    open_words: list[str] = []
    depth = 0
    for word in words:
        if not open_words and word[:1] not in _OPENING:
            yield word
            continue
        open_words.append(word)
        depth += sum(word.count(c) for c in _OPENING) - sum(word.count(c) for c in _CLOSING)
        if depth <= 0:
            yield " ".join(open_words)
            open_words, depth = [], 0
    yield from open_words


def seconds(word: str) -> float:
    """Return a timeout. Raises: ValueError for what is no number of seconds above 0."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not 0 < value <= MAX_TIMEOUT:
        raise ValueError(f"a timeout is a number of seconds above 0, such as 2.5; got {word}")
    return value


def fuel(word: str) -> int:
    """Return a number of instructions. Raises: ValueError."""
    if not word.isascii() or not word.isdecimal() or len(word) > 18:
        raise ValueError(f"fuel is the number of instructions that may run, such as 100000; got {word}")
    return int(word)


def option(read: Callable[[str], R]) -> Callable[[str], R]:
    """Return a reader of an option's word whose sentence argparse shows as it is."""

    def convert(word: str) -> R:
        try:
            return read(word)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return convert
