"""Collects every `.mir` file under `tests/filetests`: one test per (expectation, model, executor). The format: `tests/filetests/README.mir`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simple_magic import MirError, Trap, format_text, parse_text, verify

if TYPE_CHECKING:
    from simple_magic import LocalExecutionManager

sys.path.insert(0, str(Path(__file__).parent))

from filetests import EXECUTORS, BadExpectation, ErrorExpectation, Expectation, is_same, plain, read_filetest

FILETESTS = Path(__file__).parent / "filetests"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # Shells start what runs behind `&` like that; then no Ctrl-C of a test would arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def new_manager(backend: str) -> LocalExecutionManager:
    """Return a manager whose programs may declare the externs of the filetests, and those of random programs (`simple_magic/fuzz/declare.py`)."""
    from simple_magic import LocalExecutionManager, extern  # Slow to import; most tests do without.

    extern("fn filetest_scale(x: f64, n: i64) -> f64")(lambda x, n: x * n)
    extern("fn filetest_count(label: text, ...) -> i64")(lambda _label, *rest: len(rest))
    extern("fn host_mix(x: f64, n: i64) -> f64")(lambda x, n: x * 0.5 + float(n % 1000))
    extern("fn host_note(what: text, ...)")(lambda *_: None)
    extern("fn host_pick(xs: [i64], default: text?) -> text?")(lambda xs, default: str(len(xs)) if len(xs) % 2 else default)
    extern("fn host_check(x: i64) -> i64")(lambda x: x)
    extern("fn host_again(x: i64) -> i64")(lambda x: 0)
    return LocalExecutionManager(backend)


class Failure(Exception):
    """An expectation that was not met; its text is all that is shown."""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".mir" and FILETESTS in file_path.parents:
        return MirFile.from_parent(parent, path=file_path)
    return None


class MirFile(pytest.File):
    """A `.mir` file. Its calls share one manager per back end, so a function sees the globals as the calls before it left them."""

    def setup(self) -> None:
        self.source = self.path.read_text(encoding="utf-8")
        self.managers: dict[str, LocalExecutionManager] = {}

    def teardown(self) -> None:
        for manager in self.managers.values():
            manager.cleanup()

    def manager(self, backend: str) -> LocalExecutionManager:
        found = self.managers.get(backend)
        if found is None:
            found = new_manager(backend)
            found.compile(self.source)
            self.managers[backend] = found
        return found

    def collect(self) -> Iterator[pytest.Item]:
        try:
            test = read_filetest(self.path.read_text(encoding="utf-8"))
        except BadExpectation as error:
            raise self.CollectError(f"{self.path}: {error}") from None
        if test.errors:
            yield ErrorsItem.from_parent(self, name="errors", errors=test.errors)
            return
        yield FormItem.from_parent(self, name="verifies, and reads back as it prints")
        for expectation in test.expectations:
            for backend, level in EXECUTORS:
                name = f"{expectation.title} [{expectation.model}, {backend} O{level}]"
                yield CallItem.from_parent(self, name=name, expectation=expectation, backend=backend, level=level)


class MirItem(pytest.Item):
    """A test of a `.mir` file."""

    line = 1

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, (Failure, MirError)):
            return f"{self.path}:{self.line}: {excinfo.value}"
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.line - 1, self.name

    @property
    def file(self) -> MirFile:
        assert isinstance(self.parent, MirFile)
        return self.parent


class FormItem(MirItem):
    """The file verifies, and the printed module reads back the same."""

    def runtest(self) -> None:
        module = parse_text(self.file.source, self.path.name)
        verify(module)
        if parse_text(format_text(module)) != module:
            raise Failure("the printed module reads back as another one")


class ErrorsItem(MirItem):
    """Every error is expected on its line, and every expected error is there."""

    def __init__(self, *, errors: tuple[ErrorExpectation, ...], **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.errors = errors

    def runtest(self) -> None:
        try:
            verify(parse_text(self.file.source, self.path.name))
            found = []
        except MirError as error:
            found = list(error.diagnostics)
        problems = []
        for wanted in self.errors:
            on_line = [d for d in found if d.span is not None and d.span.line == wanted.line]
            match = next((d for d in on_line if wanted.code in ("", d.code) and wanted.substring in d.message), None)
            if match is None:
                got = [f"{d.code}: {d.message}" for d in on_line]
                problems.append(f"line {wanted.line}: expected {wanted.code} {wanted.substring!r}, got {got or 'no error'}")
            else:
                found.remove(match)
        problems += [f"line {d.span.line if d.span else '?'}: unexpected {d.code} {d.message}" for d in found]
        if problems:
            raise Failure("\n".join(problems))


class CallItem(MirItem):
    """One call on one executor."""

    def __init__(self, *, expectation: Expectation, backend: str, level: int, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.expectation = expectation
        self.backend = backend
        self.level = level
        self.line = expectation.line

    def runtest(self) -> None:
        wanted = self.expectation
        manager = self.file.manager(self.backend)
        got = manager.execute_captured(wanted.function, *wanted.args(), semantics=wanted.model, opt_level=self.level, fuel=wanted.fuel)
        if got.trap is not None:
            self.check_trap(got.trap)
        elif wanted.trap:
            raise Failure(f"expected trap {wanted.trap}, got {plain(got.value)!r}")
        elif wanted.kind == "print":
            if got.stdout != wanted.expected:
                raise Failure(f"expected output {wanted.expected!r}, got {got.stdout!r}")
        elif not is_same(plain(got.value), wanted.expected):
            raise Failure(f"expected {wanted.expected!r}, got {plain(got.value)!r}")

    def check_trap(self, trap: Trap) -> None:
        wanted = self.expectation
        line = trap.span.line if trap.span else None
        if trap.kind != wanted.trap or (wanted.trap_line is not None and line != wanted.trap_line):
            at = f" @ {wanted.trap_line}" if wanted.trap_line is not None else ""
            raise Failure(f"expected {'trap ' + wanted.trap + at if wanted.trap else wanted.expected!r}, got trap {trap.kind} @ {line}: {trap.message}")
