"""The options of a gradient experiment, once for the cell magic and the command line, and how a call such as `model(x=3.0)` is read."""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from ...autograd.experiment import FUEL
from ...autograd.verdicts import WORDS
from ...execution.defaults import BACKENDS
from ...passes.semantics import MODELS
from ...words import fuel, literal, option, seconds
from .report import SECTIONS, check_options


def _pairs(word: str) -> tuple[tuple[str, str], ...]:
    """Read `interpreter/value,llvm/reference`."""
    found = []
    for part in word.split(","):
        backend, slash, model = part.strip().partition("/")
        if not slash or backend not in BACKENDS or model not in MODELS:
            raise ValueError(f"{part!r} is no run: write BACKEND/MODEL, such as interpreter/value; back ends: {', '.join(BACKENDS)}; models: {', '.join(MODELS)}")
        found.append((backend, model))
    return tuple(found)


def _choices(known: tuple[str, ...], what: str) -> Callable[[str], tuple[str, ...]]:
    def read(word: str) -> tuple[str, ...]:
        found = tuple(part.strip() for part in word.split(",") if part.strip())
        unknown = [part for part in found if part not in known]
        if unknown or not found:
            raise ValueError(f"{unknown[0] if unknown else word!r} is no {what}; choose among {', '.join(known)}")
        return found

    return read


def _leaves(word: str) -> dict[str, str]:
    """Read `w1=layer_1,w2=layer_2`."""
    parts = [part.strip().partition("=")[::2] for part in word.split(",")]
    found = dict(parts)
    if not all(found) or not all(found.values()) or len(found) < len(parts):
        raise ValueError(f"{word!r}: write PARAMETER=FUNCTION,PARAMETER=FUNCTION, each parameter once")
    return found


def _count(word: str) -> int:
    if not word.isascii() or not word.isdecimal() or len(word) > 9:
        raise ValueError(f"a number of steps is 0, 1, 2, ...; got {word}")
    return int(word)


def _rate(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"a rate is a number such as 0.1; got {word}") from None


BACKEND_LIST: dict[str, Any] = {"type": option(_choices(tuple(BACKENDS), "back end"))}
read_words = _choices(WORDS, "verdict")
read_fail_on = _choices((*WORDS, "any"), "verdict")
OPTIONS: tuple[tuple[tuple[str, ...], dict], ...] = (
    (("--runs",), {"type": option(_pairs), "help": "Which runs: BACKEND/MODEL,...; default: interpreter/value,llvm/reference."}),
    (("--backends",), {**BACKEND_LIST, "help": "Back ends; each runs under each of --models."}),
    (("--models",), {"type": option(_choices(tuple(MODELS), "semantics model")), "help": "Semantics models: which instructions copy."}),
    (("--steps",), {"type": option(_count), "default": 0, "help": "Train: so many steps of gradient descent."}),
    (("--lr",), {"type": option(_rate), "default": 0.1, "help": "The rate of the descent; default: 0.1."}),
    (("--node",), {"default": "Value", "help": "The class of the nodes; default: Value, of the library."}),
    (("--leaf",), {"default": "", "help": "The function that makes a leaf of a number; default: NODE.leaf."}),
    (("--leaves",), {"type": option(_leaves), "help": "Functions that make the leaves of single parameters: w=weight,b=bias."}),
    (("--backward",), {"default": "", "help": "The function that is called on the result; default: NODE.backward, with --store NODE.store_backward."}),
    (("--value",), {"default": "data", "help": "The field that holds a node's value; default: data."}),
    (("--gradient",), {"default": "grad", "help": "The field that holds a node's gradient; default: grad."}),
    (("--reader",), {"default": "", "help": "fn(node) -> gradient, where gradients do not stand in the node; default with --store: NODE.stored_gradient."}),
    (("--store",), {"default": "", "help": "The global dict that gradients are kept in, if so; that of the library is grads."}),
    (("--try-fix",), {"action": "store_true", "help": "Run again without each copy that is blamed, and say what then was right."}),
    (("--fuel",), {"type": option(fuel), "default": FUEL, "help": "How many instructions each run may spend; default: 100000000."}),
    (("--timeout",), {"type": option(seconds), "help": "How many seconds each run may take."}),
    (("--show",), {"type": option(_choices(SECTIONS, "section")), "default": (), "help": f"Show unfolded: {', '.join(SECTIONS)}."}),
)
"""Flags and what argparse wants to know of each."""
_OF_EXPERIMENT = ("runs", "backends", "models", "steps", "lr", "node", "leaf", "leaves", "backward", "value", "gradient", "reader", "store", "fuel", "timeout", "try_fix")


def experiment_options(found: Namespace, inputs: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments of `gradient_experiment` that the options say. Raises: ValueError for options that contradict each other or the inputs."""
    options = {name: getattr(found, name) for name in _OF_EXPERIMENT}
    check_options(inputs, options, dashes="--")
    return options


def split_call(line: str) -> tuple[str, ast.Call | None, str]:
    """Split `model(x=3.0) --steps 5` into the model's name, the call and the rest; there is no call if only a name stands there. Raises: ValueError."""
    text = line.strip()
    name = text.split("(", 1)[0].split(None, 1)[0] if text else ""
    if not name or name.startswith("-"):
        raise ValueError("name the model and its inputs, such as model(x=3.0, y=4.0)")
    if not text[len(name) :].lstrip().startswith("("):
        return name, None, text[len(name) :]
    end = text.find(")")
    while end >= 0:
        try:
            call = ast.parse(text[: end + 1].strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            end = text.find(")", end + 1)
            continue
        if isinstance(call, ast.Call):
            return name, call, text[end + 1 :]
        break
    raise ValueError(f"{text.split(' --')[0]!r} is no call such as {name}(x=3.0, y=4.0)")


def call_inputs(call: ast.Call | None, variables: Mapping[str, object]) -> dict[str, object]:
    """Return the inputs of a call: literals, or names of variables that hold numbers; `**start`: all of a variable that is a dict. Raises: ValueError."""
    if call is None:
        return {}
    if call.args:
        raise ValueError("name every input: model(x=3.0, y=4.0)")
    found: dict[str, object] = {}
    for keyword in call.keywords:
        more = {keyword.arg: _input(keyword.value, variables)} if keyword.arg else _dict(keyword.value, variables)
        twice = sorted(set(more) & set(found))
        if twice:
            raise ValueError(f"input {twice[0]} is given twice")
        found.update(more)
    return found


def _dict(node: ast.expr, variables: Mapping[str, object]) -> dict[str, object]:
    value = variables.get(node.id) if isinstance(node, ast.Name) else None
    if not isinstance(value, Mapping):
        raise ValueError(f"**{ast.unparse(node)}: no variable of this name holds a dict of inputs")
    return {str(name): _plain(number) for name, number in value.items()}


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else value


def _input(node: ast.expr, variables: Mapping[str, object]) -> object:
    text = ast.unparse(node)
    if isinstance(node, ast.Name) and node.id in variables:
        return _plain(variables[node.id])
    try:
        return literal(text)
    except ValueError:
        if isinstance(node, ast.Name):
            raise ValueError(f"no variable is named {node.id}") from None
        raise ValueError(f"{text} is neither a literal, such as 3.0 or [1, 2], nor the name of a variable") from None


def word_inputs(words: list[str]) -> dict[str, object]:
    """Return the inputs of a command line, `x=3.0 y=[1,2]`. Raises: ValueError."""
    found: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{word!r}: write an input as NAME=NUMBER, such as x=3.0")
        if name in found:
            raise ValueError(f"input {name} is given twice")
        try:
            found[name] = literal(value)
        except ValueError as error:
            raise ValueError(f"input {name}: {error}") from None
    return found
