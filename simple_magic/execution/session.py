"""A session is a namespace; a unit is a closure.

The session keeps the latest *unresolved* definition of every function, type, global and extern, with the cell it came from. `unit_of(f)` gives the
functions of the cell that defines f and everything they reach, resolved and verified as one closed module: so a redefinition reaches every caller
at once, and a broken caller is reported when it is called, naming both cells.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..mir.diagnostics import Diagnostic, MirError, Origin, Reporter, Span, VerifyError
from ..mir.model import Extern, Function, Global, IndexHop, Instruction, Item, Module, Operand, Place, StructDef, TypeDef
from ..mir.resolve import Names
from ..mir.text import format_item
from ..mir.types import Named, Type, walk
from ..mir.verify import check
from .externs import check_declaration, declaration_text
from .libraries import suggest_library


@dataclass(frozen=True)
class Definition:
    """The latest definition of a name: the item as written, its cell, and the session's version when it came."""

    item: Item
    cell: str
    version: int


@dataclass(frozen=True)
class Defined:
    """What `define` did: names by kind, warnings (diagnostics), and notes: sentences about globals that were reset or callers that broke."""

    functions: tuple[str, ...]
    types: tuple[str, ...]
    globals: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    notes: tuple[str, ...]
    reset_globals: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedUnit:
    """A closed module, resolved and verified; `key` is the content key of its definitions."""

    module: Module
    key: str
    roots: tuple[str, ...]


def referenced_names(item: Item) -> set[str]:
    """Return every name of a function, type, global or extern that the item mentions."""
    found: set[str] = set()
    if isinstance(item, StructDef):
        _add_types(found, (f.type for f in item.fields))
    elif isinstance(item, Global):
        _add_types(found, (item.type,))
    elif isinstance(item, (Function, Extern)):
        _add_types(found, (*(p.type for p in item.params), item.result))
    else:
        _add_types(found, (f.type for variant in item.variants for f in variant.fields))
    if isinstance(item, Function):
        for block in item.blocks:
            for instruction in block.instructions:
                _add_instruction(found, instruction)
    return found


NAME_OF_ENUM = ("variant", "payload")
NAME_OF_LOCAL = ("drop", "debug_value")


def _add_instruction(found: set[str], instruction: Instruction) -> None:
    _add_types(found, (t for t in (instruction.dest_type, instruction.type) if t is not None))
    if instruction.name is not None and instruction.op not in NAME_OF_LOCAL:
        found.add(instruction.name.partition(".")[0] if instruction.op in NAME_OF_ENUM else instruction.name)
    for operand in instruction.args:
        _add_globals(found, operand)


def _add_globals(found: set[str], operand: Operand) -> None:
    if isinstance(operand, Place):
        if operand.is_global:
            found.add(operand.root)
        for hop in operand.hops:
            if isinstance(hop, IndexHop):
                _add_globals(found, hop.index)


def _add_types(found: set[str], types: Iterable[Type]) -> None:
    for t in types:
        found.update(inner.name for inner in walk(t) if isinstance(inner, Named))


class Session:
    """The namespace of one manager: definitions by name, sources by cell."""

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self.sources: dict[str, str] = {}
        self.version = 0
        self._names: tuple[int, Names] | None = None
        self._units: dict[str, ResolvedUnit] = {}
        self._references: dict[str, tuple[int, frozenset[str]]] = {}

    def items(self, kind: type | tuple[type, ...]) -> Iterator[tuple[str, Definition]]:
        """Yield (name, definition) of every item of a kind, in the order of definition."""
        return ((name, d) for name, d in self.definitions.items() if isinstance(d.item, kind))

    def names(self) -> Names:
        """Return every visible definition, as `resolve` wants it."""
        if self._names is None or self._names[0] != self.version:
            self._names = (self.version, Names.of(self._module(self.definitions)))
        return self._names[1]

    def functions(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.items(Function))

    def function(self, name: str) -> Function | None:
        definition = self.definitions.get(name)
        return definition.item if definition and isinstance(definition.item, Function) else None

    def define(self, module: Module, cell: str, source: str | None) -> Defined:
        """Verify the module against the session and take over its definitions; nothing changes if it is wrong.

        Raises: MirError with every diagnostic; carets refer to `source`.
        """
        sources = {**self.sources, **({cell: source} if source is not None else {})}
        new = {item.name: item for item in module.items}
        self._refuse_kind_changes(module, cell, sources)
        overlay = {**self.definitions, **{name: Definition(item, cell, self.version + 1) for name, item in new.items()}}
        reporter = Reporter()
        check(module, Names.of(self._module(overlay)), reporter)
        for item in module.externs:
            problem = check_declaration(item)
            if problem is not None:
                reporter.report(problem)
        if reporter.errors():
            raise VerifyError([suggest_library(_with_declaration(d), overlay) for d in reporter.errors()], sources)
        changed = {name for name, item in new.items() if name not in self.definitions or self.definitions[name].item != item}
        replaced = {name for name in changed if name in self.definitions}
        reset = self._globals_to_reset(overlay, changed)
        before = {name: self._is_sound(name) for name in self._callers(replaced, overlay) if name not in new}
        self.version += 1
        self.sources = sources
        for name in changed:
            self._references.pop(name, None)
        self.definitions = overlay
        self._units.clear()
        notes = [f"global `{name}` was reset: {why}" for name, why in reset.items()]
        notes += self._broken_callers(before, cell)
        self._forget_unused_sources()
        return Defined(tuple(f.name for f in module.functions), tuple(t.name for t in module.types), tuple(g.name for g in module.globals),
                       reporter.warnings(), tuple(notes), tuple(reset))  # fmt: skip

    def show_source(self, cell: str, source: str) -> None:
        """Let diagnostics show this text for a cell, whose lines are numbered alike (a notebook cell with its magic line)."""
        if cell in self.sources:
            self.sources[cell] = source

    def remove(self, name: str) -> None:
        """Forget a definition. Raises: KeyError."""
        del self.definitions[name]
        self._references.pop(name, None)
        self.version += 1
        self._units.clear()

    def unit_of(self, function: str) -> ResolvedUnit:
        """Return the closed unit that holds `function`: its cell's functions and everything they reach.

        Raises: MirError, naming the cells of the caller and of the definition that broke it; KeyError for an unknown function.
        """
        cell = self.definitions[function].cell
        unit = self._units.get(cell)
        if unit is None:
            roots = tuple(name for name, d in self.items(Function) if d.cell == cell)
            try:
                unit = self._resolve(roots)
            except MirError:
                unit = self._resolve((function,))
                return unit
            self._units[cell] = unit
        return unit

    def locate(self, origin: Origin | None) -> Span | None:
        """Return where an origin stands in the session's current definition, or None."""
        function = self.function(origin.function) if origin else None
        if function is None:
            return None
        for block in function.blocks:
            if block.label == origin.block and origin.index < len(block.instructions):  # type: ignore[union-attr]
                return block.instructions[origin.index].span  # type: ignore[union-attr]
        return None

    def _module(self, definitions: Iterable[str] | dict[str, Definition]) -> Module:
        table = definitions if isinstance(definitions, dict) else {name: self.definitions[name] for name in definitions}
        items = [d.item for d in table.values()]
        return Module(tuple(i for i in items if isinstance(i, TypeDef)), tuple(i for i in items if isinstance(i, Global)),
                      tuple(i for i in items if isinstance(i, Extern)), tuple(i for i in items if isinstance(i, Function)))  # fmt: skip

    def _refuse_kind_changes(self, module: Module, cell: str, sources: dict[str, str]) -> None:
        found = []
        for item in module.items:
            old = self.definitions.get(item.name)
            if old is not None and _kind(old.item) != _kind(item):
                found.append(Diagnostic("E0601", f"`{item.name}` is already a {_kind(old.item)} of {old.cell}", item.span,
                                        help=f"choose another name, or remove the old one first: remove(\"{item.name}\")",
                                        notes=((f"`{item.name}` is defined in {old.cell}", old.item.span),)))  # fmt: skip
        if found:
            raise VerifyError(found, sources)

    def references(self, name: str, definitions: dict[str, Definition] | None = None) -> frozenset[str]:
        """Return the names that a definition mentions."""
        definition = (definitions or self.definitions)[name]
        known = self._references.get(name)
        if known is None or known[0] != definition.version:
            known = (definition.version, frozenset(referenced_names(definition.item)))
            self._references[name] = known
        return known[1]

    def _reach(self, roots: Iterable[str]) -> list[str]:
        found, todo = dict.fromkeys(roots), list(roots)
        while todo:
            for name in sorted(self.references(todo.pop())):
                if name in self.definitions and name not in found:
                    found[name] = None
                    todo.append(name)
        return [name for name in self.definitions if name in found]

    def _resolve(self, roots: tuple[str, ...]) -> ResolvedUnit:
        reached = self._reach(roots)
        module = self._module(reached)
        reporter = Reporter()
        resolved = check(module, Names.of(module), reporter)
        for declared in module.externs:
            problem = check_declaration(declared)
            if problem is not None:
                reporter.report(problem)
        if reporter.errors():
            raise VerifyError([self._with_cells(d, reached) for d in reporter.errors()], self.sources)
        digest = hashlib.sha256("\0".join(format_item(item, comments=False) for item in module.items).encode("utf-8", "surrogatepass"))
        return ResolvedUnit(resolved, digest.hexdigest(), roots)

    def _with_cells(self, diagnostic: Diagnostic, reached: list[str]) -> Diagnostic:
        """Add which newer definitions the faulty function refers to: they are what broke it."""
        if diagnostic.span is None:
            return diagnostic
        owner = self._owner(diagnostic.span, reached)
        if owner is None:
            return diagnostic
        mine = self.definitions[owner]
        notes = [(f"`{owner}` is defined in {mine.cell}", mine.item.span)]
        for name in sorted(self.references(owner)):
            other = self.definitions.get(name)
            if other is None:
                notes.append((f"`{name}` is no longer defined", None))
            elif other.version > mine.version:
                notes.append((f"`{name}` was redefined later, in {other.cell}", other.item.span))
        return replace(diagnostic, notes=(*diagnostic.notes, *notes))

    def _owner(self, span: Span, reached: list[str]) -> str | None:
        best = None
        for name in reached:
            item = self.definitions[name].item
            starts_before = isinstance(item, Function) and item.span and item.span.source == span.source and item.span.line <= span.line
            if starts_before and (best is None or item.span.line > self.definitions[best].item.span.line):  # type: ignore[union-attr]
                best = name
        return best

    def _callers(self, names: set[str], definitions: dict[str, Definition]) -> list[str]:
        if not names:
            return []
        return [name for name, d in definitions.items() if isinstance(d.item, Function) and self.references(name, definitions) & names]

    def _is_sound(self, name: str) -> bool:
        if name not in self.definitions:
            return False
        try:
            self._resolve((name,))
        except MirError:
            return False
        return True

    def _broken_callers(self, before: dict[str, bool], cell: str) -> list[str]:
        notes = []
        for name, was_sound in before.items():
            if was_sound and not self._is_sound(name):
                notes.append(f"`{name}` of {self.definitions[name].cell} no longer fits what {cell} defines; calling it raises MirError")
        return notes

    def _globals_to_reset(self, overlay: dict[str, Definition], changed: set[str]) -> dict[str, str]:
        reset = {}
        for name, definition in overlay.items():
            old = self.definitions.get(name)
            if old is None or not isinstance(definition.item, Global) or not isinstance(old.item, Global):
                continue
            if old.item.type != definition.item.type:
                reset[name] = "its type changed"
            elif old.item.init != definition.item.init:
                reset[name] = "its initial value changed"
            else:
                held = self._types_inside(definition.item.type, overlay) & changed
                if held:
                    reset[name] = f"the type {', '.join(sorted(held))} that it holds changed"
        return reset

    def _types_inside(self, t: Type, definitions: dict[str, Definition]) -> set[str]:
        found: set[str] = set()
        todo = [inner.name for inner in walk(t) if isinstance(inner, Named)]
        while todo:
            name = todo.pop()
            if name not in found and name in definitions:
                found.add(name)
                todo.extend(referenced_names(definitions[name].item))
        return found

    def _forget_unused_sources(self) -> None:
        used = {d.item.span.source for d in self.definitions.values() if d.item.span}
        self.sources = {cell: text for cell, text in self.sources.items() if cell in used}


def _with_declaration(diagnostic: Diagnostic) -> Diagnostic:
    """Tell how to declare a function that Python offers, if that is all that is missing."""
    unknown = _UNKNOWN_FUNCTION.fullmatch(diagnostic.message) if diagnostic.code == "E0202" else None
    declaration = declaration_text(unknown[1]) if unknown else None
    return replace(diagnostic, help=f"Python offers it; declare it in the cell: `{declaration}`") if declaration else diagnostic


_UNKNOWN_FUNCTION = re.compile(r"unknown function `(.*)`")


def _kind(item: Item) -> str:
    if isinstance(item, StructDef):
        return "type"
    return {"EnumDef": "type", "Global": "global", "Extern": "extern", "Function": "function"}[type(item).__name__]
