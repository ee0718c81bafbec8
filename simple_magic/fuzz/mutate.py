"""Damaged text and JSON for the readers: whatever comes, `parse_text`, `from_json` and `verify` give a module or a MirError, in bounded time."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..mir.diagnostics import MirError
from ..mir.jsonform import from_json, to_json
from ..mir.model import Module
from ..mir.ops import OPS
from ..mir.text import format_text, parse_text
from ..mir.verify import verify
from .generate import make_program
from .values import SeededChooser

SECONDS = 5.0
"""More than reading a small damaged program may take."""
TOKENS = (
    *OPS, "fn", "extern", "struct", "class", "enum", "global", "module", "true", "nil", "inf", "nanf32", "move", "then", "else", "unwind", "->", ":", "=", ",",
    "(", ")", "[", "]", "{", "}", "@", ".", "?", "...", "-", "\"", "'", "#", "\\", "\n", "\t", "\r", "\0", "0x", "1e999", "9" * 5000,
    "\u202e", "\ud800", "\u212b", "e\u0301", "i64", "[i64; 99999999999]", "ptr<", ">", "(" * 300, "[" * 300, "x?" * 200, "never", "unit",
)  # fmt: skip
JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1 << 70, 1.5, 1e999, "", "x", "i64", "nan", "\ud800", [], {}, [[]], [None], {"Local": 0}, {"Copy": -1}, {"Float": "nan"}, 10**30,
)  # fmt: skip


def mutate_text(chooser: random.Random, text: str) -> str:
    """Return the text with a few pieces left out, repeated, exchanged or replaced: lines, words or characters."""
    for _ in range(1 + chooser.randrange(4)):
        separator = chooser.choice(("\n", " ", ""))
        parts = list(text) if not separator else text.split(separator)
        if not parts:
            parts = [""]
        at, other = chooser.randrange(len(parts)), chooser.randrange(len(parts))
        kind = chooser.randrange(6)
        if kind == 0:
            del parts[at : at + 1 + chooser.randrange(3)]
        elif kind == 1:
            parts.insert(at, parts[other])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts[at] = chooser.choice(TOKENS)
        elif kind == 4:
            parts.insert(at, chooser.choice(TOKENS))
        else:
            parts[at] = parts[other]
        text = separator.join(parts)
    return text


def mutate_json(chooser: random.Random, form: Any) -> Any:
    """Return a copy of a JSON value with a few parts left out, exchanged or replaced."""
    form = json.loads(json.dumps(form))
    for _ in range(1 + chooser.randrange(4)):
        spots: list[tuple[Any, Any]] = []
        todo = [form]
        while todo:
            part = todo.pop()
            inner = list(part.items()) if isinstance(part, dict) else list(enumerate(part)) if isinstance(part, list) else []
            spots += [(part, key) for key, _ in inner]
            todo += [value for _, value in inner]
        if not spots:
            return chooser.choice(JSON_VALUES)
        part, key = chooser.choice(spots)
        other, other_key = chooser.choice(spots)
        kind = chooser.randrange(5)
        if kind == 0:
            del part[key]
        elif kind == 1:
            part[key] = chooser.choice(JSON_VALUES)
        elif kind == 2:
            part[key] = json.loads(json.dumps(other[other_key]))
        elif kind == 3 and isinstance(part, dict):
            part[chooser.choice(("", "type", "name", "kind", "args", str(other_key)))] = part.pop(key)
        elif isinstance(part[key], (int, str)) and not isinstance(part[key], bool):
            part[key] = part[key] * chooser.choice((-1, 2, 1000)) if isinstance(part[key], int) else part[key][: len(part[key]) // 2]
    return form


@dataclass
class Readings:
    """How many damaged programs were read or refused, and those that were handled badly: (input, what happened)."""

    counts: Counter = field(default_factory=Counter)
    failures: list[tuple[object, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{sum(self.counts.values())} damaged programs: {', '.join(f'{n} {what}' for what, n in sorted(self.counts.items()))}"]
        return "\n".join([*lines, *(f"{what}\n{given!r}" for given, what in self.failures)])


def read_damaged(given: object, readings: Readings) -> None:
    """Read and verify one input; note what happened."""
    read: Callable[[Any], Module] = parse_text if isinstance(given, str) and not given.lstrip().startswith("{") else from_json
    form = "text" if read is parse_text else "JSON"
    started = time.monotonic()
    try:
        module = read(given)
        readings.counts[f"{form} read"] += 1
        if read is parse_text and parse_text(format_text(module)) != module:
            readings.failures.append((given, "the printed module reads back as another one"))
        verify(module)
        readings.counts[f"{form} sound"] += 1
        if from_json(to_json(module)) != module:
            readings.failures.append((given, "the JSON form reads back as another module"))
    except MirError as error:
        readings.counts[f"{form} refused"] += 1
        str(error)
    except Exception as error:
        readings.failures.append((given, f"{type(error).__name__}: {error}"))
    if time.monotonic() - started > SECONDS:
        readings.failures.append((given, f"took {time.monotonic() - started:.1f} s"))


def run(seed: int, minutes: float, count: int) -> Readings:
    """Damage random programs until the time is over or so many were read."""
    readings = Readings()
    deadline = time.monotonic() + minutes * 60 if minutes else float("inf")
    done = 0
    while time.monotonic() < deadline and (not count or done < count):
        chooser = random.Random(seed)
        module = make_program(SeededChooser(seed), 6).module
        text, form = format_text(module), to_json(module)
        for _ in range(20):
            damaged = mutate_text(chooser, text)
            read_damaged(damaged, readings)
            read_damaged(mutate_json(chooser, form), readings)
            read_damaged(mutate_text(chooser, json.dumps(form)), readings)
            done += 3
        seed += 1
    return readings
