"""Bodies of random functions, third layer: statements with blocks of their own, and whole functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..mir.model import Block, Function, Instruction, Operand, Place, const, local
from ..mir.types import BOOL, CHAR, I64, INTEGERS, NEVER, NUMBERS, TEXT, UNIT, Array, Type, is_integer, is_signed
from .operations import OperationWriter
from .values import TEXTS_TRIED, scalars_of


class FunctionWriter(OperationWriter):
    """Writes the body of one function."""

    def function(self) -> Function:
        self.start("entry")
        if self.g.below(4):
            self.noted = self.emit("const", const(I64, 0), t=I64, is_constant=True)
        if self.g.rarely(8):
            self.any_order()
        else:
            self.statements(0, 2 + self.g.below(self.g.size))
        if self.block is not None:
            self.leave()
        return replace(self.declared, blocks=tuple(Block(label, tuple(block)) for label, block in self.blocks))

    # Statements

    def statements(self, depth: int, count: int) -> None:
        for _ in range(count):
            if self.block is None:
                return
            self.left -= 1
            self.held.clear()
            kind = self.g.below(14) if depth < 3 and self.left > 0 else 0
            statement = _STATEMENTS.get(kind)
            if statement is None:
                self.operation()
            else:
                statement(self, depth)

    def branch(self, label: str, before: dict[str, Type], depth: int, join: str) -> dict[str, Type] | None:
        """Write a branch that begins at the label and goes on at `join`; return what is assigned then, None if it does not go on."""
        self.assigned = dict(before)
        self.start(label)
        self.statements(depth + 1, 1 + self.g.below(3))
        if self.block is None:
            return None
        self.goto(join)
        return self.assigned

    def join(self, label: str, ends: Sequence[dict[str, Type] | None]) -> None:
        """Go on at the label with what is assigned at the end of every branch that arrives."""
        arriving = [end for end in ends if end is not None]
        if arriving:
            self.assigned = {name: t for name, t in arriving[0].items() if all(name in other for other in arriving)}
            self.start(label)

    def if_statement(self, depth: int) -> None:
        condition = self.operand(BOOL)
        yes, no, after = self.label(), self.label(), self.label()
        before = self.assigned
        if self.g.below(2):
            self.end("if", condition, labels=(yes, no))
            ends = [self.branch(yes, before, depth, after), self.branch(no, before, depth, after)]
        else:
            self.end("if", condition, labels=(yes, after))
            ends = [self.branch(yes, before, depth, after), before]
        self.join(after, ends)

    def loop(self, depth: int) -> None:
        g = self.g
        i = self.emit("const", const(I64, 0), t=I64, is_constant=True)
        head, body, after = self.label(), self.label(), self.label()
        self.goto(head)
        self.start(head)
        more = self.emit("lt", i, const(I64, (2, 1, 3, 9)[g.below(4)]), t=BOOL)
        self.end("if", more, labels=(body, after))
        before, pinned = dict(self.assigned), self.pinned
        self.pinned = pinned | frozenset(before)
        self.start(body)
        self.statements(depth + 1, 1 + g.below(4))
        if self.block is not None and g.rarely(4):
            go_on = self.label()
            self.end("if", self.operand(BOOL), labels=(after, go_on))
            self.start(go_on)
        if self.block is not None:
            self.add(Instruction("add", (i, const(I64, 1)), dest=i.root))
            self.goto(head)
        self.pinned = pinned
        self.assigned = before
        self.start(after)

    def counted_loop(self, depth: int) -> None:
        """Count in some type, direction and step, to a constant, a parameter or the length of an array, and mostly walk over arrays.

        A loop that goes round the whole type is possible: such calls are given up.
        """
        g = self.g
        t = g.pick((I64, I64, I64, *INTEGERS))
        step = (1, 1, 1, 2, -1, 3)[g.below(6)] if is_signed(t) else 1
        arrays = [(name, a) for name, a in self.assigned.items() if isinstance(a, Array)]
        end = self.loop_end(t, depth, arrays)
        first = const(t, (0, 0, 0, 1)[g.below(4)])
        counter = self.emit("copy", end if step < 0 else first, t=t, is_constant=True)
        if step < 0 and g.often(3):
            self.add(Instruction("sub", (counter, const(t, 1)), dest=counter.root))
        sums = self.start_sums(arrays)
        head, body, after = self.label(), self.label(), self.label()
        self.goto(head)
        self.start(head)
        goes_on, ends = (("lt", "ge"), ("le", "gt"), ("ne", "eq"))[(0, 0, 0, 1, 2)[g.below(5)]] if step > 0 else (("ge", "lt"), ("gt", "le"))[g.below(2)]
        limit = end if step > 0 else first
        if g.below(3) == 2:
            self.end("if", self.emit(ends, counter, limit, t=BOOL), labels=(after, body))
        else:
            self.end("if", self.emit(goes_on, counter, limit, t=BOOL), labels=(body, after))
        before, pinned = dict(self.assigned), self.pinned
        self.pinned = pinned | frozenset(before)
        self.start(body)
        self.walk(counter, t, sums, arrays)
        self.statements(depth + 1, g.below(3))
        if self.block is not None:
            self.add(Instruction("add", (counter, const(t, step)), dest=counter.root))
            self.goto(head)
        self.pinned, self.assigned = pinned, before
        self.start(after)

    def loop_end(self, t: Type, depth: int, arrays: list) -> Operand:
        g = self.g
        known = [name for name, other in self.assigned.items() if other == t and name in self.constant]
        kind = g.below(4)
        if kind == 0 and arrays and t == I64:
            return self.emit("len", local(g.pick(arrays)[0]), t=I64, is_constant=True)
        if kind == 1 and known:
            return self.emit("min", local(g.pick(known)), const(t, 50), t=t, is_constant=True)
        return const(t, (5, 2, 17, 70 if depth == 0 else 3)[g.below(4)])

    def start_sums(self, arrays: list) -> list[tuple[str, Place]]:
        """Write locals in which a loop gathers the elements of arrays of numbers; return them with the arrays."""
        chosen = [self.g.pick(arrays) for _ in range(self.g.below(3))] if arrays else []
        sums = []
        for name, a in dict(chosen).items():
            if a.element in NUMBERS:
                sums.append((name, self.emit("const", const(a.element, self.g.pick(scalars_of(a.element)[:2])), t=a.element, is_constant=True)))
        return sums

    def walk(self, counter: Place, t: Type, sums: list[tuple[str, Place]], arrays: list) -> None:
        """Read and write elements at the loop's counter."""
        g = self.g
        if not arrays or g.below(5) == 4:
            return
        index = counter if t == I64 else self.emit("cast", counter, t=I64, annotate=True)
        for name, total in sums:
            element = self.types[total.root]
            found = self.emit("index_get", local(name), index, t=element)
            op = g.pick(("add", "add", "mul", "min", "max", "sub", *(("bit_xor", "bit_or") if is_integer(element) else ("fma",))))
            if op == "fma":
                self.add(Instruction("fma", (found, found, total), dest=total.root))
            else:
                self.add(Instruction(op, (total, found), dest=total.root))
        name, a = g.pick(arrays)
        if g.below(3) == 0:
            self.emit("index_set", local(name), index, self.operand(a.element, nil=True))

    def switch(self, depth: int) -> None:
        g = self.g
        t = g.pick([t for t in self.known_types() if t in (*INTEGERS, BOOL, CHAR)])
        subject = self.operand(t)
        values = list(dict.fromkeys(g.pick(scalars_of(t)) for _ in range(g.below(4))))
        after, before = self.label(), self.assigned
        labels = [self.label() for _ in range(1 + g.below(len(values) + 1))]
        targets = tuple(g.pick(labels) for _ in values)
        self.end("switch", subject, cases=tuple(const(t, v) for v in values), labels=(*targets, labels[0]))
        used = [label for label in labels if label in (*targets, labels[0])]
        self.join(after, [self.branch(label, before, depth, after) for label in used])

    def invoke(self, depth: int) -> None:
        g = self.g
        callee = self.callee()
        if callee is None:
            return
        args = self.arguments(callee)
        normal, unwind, after = self.label(), self.label(), self.label()
        before = dict(self.assigned)
        has_result = callee.result not in (UNIT, NEVER) and g.often(4)
        dest = self.destination(callee.result) if has_result else None
        annotation = None
        if has_result and dest is None:
            dest = g.some_name("v", len(self.types))
            self.types[dest] = annotation = callee.result
        payload, tag = g.some_name("e", len(self.types)), g.some_name("k", len(self.types))
        self.types[payload] = self.types[tag] = I64
        self.end("invoke", *args, name=callee.name, dest=dest, dest_type=annotation, labels=(normal, unwind), unwind=(payload, tag))
        then = {**before, dest: callee.result} if dest is not None else before
        if callee.result == NEVER:
            self.start(normal)
            self.end("unreachable")
            ends: list = []
        else:
            ends = [self.branch(normal, then, depth, after)]
        self.assigned = {**before, payload: I64, tag: I64}
        if g.rarely(6):
            self.start(unwind)
            self.end("resume", local(payload), local(tag))
        else:
            ends.append(self.branch(unwind, self.assigned, depth, after))
        self.join(after, ends)

    def way_out(self, depth: int) -> None:
        """Leave the function on one branch."""
        condition = self.emit(self.g.pick(("eq", "lt")), self.operand(I64), self.operand(I64), t=BOOL)
        out, after = self.label(), self.label()
        self.end("if", condition, labels=(out, after))
        before = dict(self.assigned)
        self.start(out)
        self.leave(is_early=True)
        self.assigned = before
        self.start(after)

    def leave(self, is_early: bool = False) -> None:
        g = self.g
        if g.below(4):
            self.show_locals()
        kind = g.below(8) if is_early else 0
        if kind == 1:
            self.end("throw", self.operand(I64), self.operand(I64))
        elif kind == 2:
            self.end("resume", self.operand(I64), self.operand(I64))
        elif kind == 3:
            self.end("abort", message=g.pick(TEXTS_TRIED))
        elif kind == 4:
            self.end("unreachable")
        elif self.declared.result == NEVER:
            never = [f for f in g.functions[: self.index] if f.result == NEVER]
            if never and g.below(2):
                callee = g.pick(never)
                self.emit("call", *self.arguments(callee), name=callee.name)
                self.end("unreachable")
            else:
                self.end("throw", self.operand(I64), self.operand(I64))
        elif self.declared.result == UNIT:
            self.end("ret")
        else:
            self.end("ret", self.operand(self.declared.result, nil=True))

    def show_locals(self) -> None:
        """Let what was noted and a few locals reach the outside: numbers by the output or a global, objects by an extern."""
        g = self.g
        known = list(self.assigned)
        shown = list(dict.fromkeys(g.pick(known) for _ in range(10))) if known else []
        for name in shown:
            self.note(local(name), self.assigned[name])
        if self.noted is not None:
            kept = [d.name for d in g.names.globals.values() if d.type == I64]
            if kept and g.below(2):
                self.emit("store_global", self.noted, name=kept[0])
            else:
                self.emit("print", self.noted)
        objects = [local(n) for n in shown if n in self.assigned and not g.holds_code(self.assigned[n]) and self.assigned[n] not in NUMBERS]
        if objects and g.below(3) == 0:
            self.emit("call", const(TEXT, "locals"), *objects, name="host_note")

    def guarded_recursion(self, depth: int) -> None:
        """Call a function that may come back here, while a parameter that counts down is positive."""
        g = self.g
        callees = [f for f in g.functions if f.params and f.params[0].type == I64 and f.result != NEVER]
        counts = self.declared.params and self.declared.params[0].type == I64
        if not callees or not counts:
            self.operation()
            return
        callee = g.pick(callees)
        some_left = self.emit("gt", local("p0"), const(I64, 0), t=BOOL)
        again, after = self.label(), self.label()
        self.end("if", some_left, labels=(again, after))
        before = self.assigned
        self.assigned = dict(before)
        self.start(again)
        few = self.emit("min", local("p0"), const(I64, 4), t=I64, is_constant=True)
        few = self.emit("sub", few, const(I64, 1), t=I64, is_constant=True)
        rest = [self.operand(p.type, nil=True) for p in callee.params[1:]]
        self.emit("call", few, *rest, name=callee.name, t=None if callee.result == UNIT else callee.result)
        self.goto(after)
        self.join(after, [before, self.assigned])

    def any_order(self) -> None:
        """Write blocks that jump to each other in any order, for a counted number of times."""
        g = self.g
        left = self.emit("const", const(I64, 12), t=I64, is_constant=True)
        for _ in range(g.below(4)):
            t = g.pick(g.palette)
            self.emit("copy", self.operand(t), t=t)
        names = [self.label() for _ in range(2 + g.below(4))]
        out = self.label()
        before = dict(self.assigned)
        self.pinned = self.pinned | frozenset(before)
        self.goto(g.pick(names))
        for name in names:
            self.assigned = dict(before)
            self.start(name)
            self.add(Instruction("sub", (left, const(I64, 1)), dest=left.root))
            is_over = self.emit("le", left, const(I64, 0), t=BOOL)
            go_on = self.label()
            self.end("if", is_over, labels=(out, go_on))
            self.start(go_on)
            for _ in range(1 + g.below(3)):
                self.operation()
            if g.below(2):
                self.end("if", self.operand(BOOL), labels=(g.pick(names), g.pick(names)))
            else:
                cases = tuple(const(I64, v) for v in range(g.below(3)))
                self.end("switch", self.operand(I64), cases=cases, labels=tuple(g.pick(names) for _ in (*cases, None)))
        self.assigned = before
        self.start(out)


_STATEMENTS: dict[int, Callable[[FunctionWriter, int], None]] = {
    6: FunctionWriter.if_statement, 7: FunctionWriter.loop, 8: FunctionWriter.switch, 9: FunctionWriter.invoke,
    10: FunctionWriter.way_out, 11: FunctionWriter.guarded_recursion, 12: FunctionWriter.counted_loop, 13: FunctionWriter.counted_loop,
}  # fmt: skip
"""Statements with blocks of their own, by number; any other number is an operation."""
