"""A run of differential testing: batch after batch in warm children; every finding is isolated, made small and kept as a filetest."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..passes.semantics import MODELS
from .child import Child, ChildDied
from .compare import EXECUTORS, Comparison
from .filetest import filetest
from .generate import Batch, make_batch
from .shrink import shrink

CRASH = "the process died"
SHRINK_SECONDS = 60.0
FINDINGS_KEPT = 20
"""After so many findings a run ends: most are then the same bug."""


@dataclass(frozen=True)
class Options:
    """minutes, count: when to stop, whatever comes first (0: never); count is of cases. jobs: children that work at a time."""

    seed: int = 0
    minutes: float = 1.0
    count: int = 0
    executors: tuple[str, ...] = tuple(EXECUTORS)
    models: tuple[str, ...] = tuple(MODELS)
    functions: int = 200
    calls: int = 60
    jobs: int = 1
    save: Path | None = None
    timeout: float = 120.0


@dataclass(frozen=True)
class Finding:
    """A program that executors disagree about, or that kills them. `aspect` tells in a word or two what differs."""

    seed: int
    executor: str
    aspect: str
    batch: Batch
    details: str
    saved: Path | None = None

    @property
    def text(self) -> str:
        """The program as a filetest."""
        try:
            return filetest(self.batch, f"Found with seed {self.seed}: {self.executor}, {self.aspect}.")
        except Exception as error:  # A program that the interpreter cannot run is a finding too, and must be kept.
            return f"# Found with seed {self.seed}: {self.executor}, {self.aspect}. No expectations: {error}\n\n{self.batch!r}\n"


@dataclass
class Summary:
    """What a run has done so far. `cases`: calls that all executors made and that were compared."""

    cases: int = 0
    batches: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def per_minute(self) -> float:
        return self.cases / self.seconds * 60 if self.seconds else 0.0

    def __str__(self) -> str:
        return f"{self.cases} cases in {self.batches} batches and {self.seconds:.0f} s ({self.per_minute:.0f} per minute), {len(self.findings)} findings"


Comparer = Callable[[Batch], Comparison]


def run(options: Options, report: Callable[[str], None] = print) -> Summary:
    """Compare batches until the time, the count or the number of findings is reached."""
    summary = Summary()
    started = time.monotonic()
    children = [Child(options.executors, options.timeout) for _ in range(options.jobs)]
    try:
        for seed, comparison in _answers(options, children, summary, started):
            if isinstance(comparison, Comparison):
                summary.cases += comparison.compared
            summary.batches += 1
            summary.seconds = time.monotonic() - started
            if not isinstance(comparison, Comparison) or comparison.differences:
                helper = Child(options.executors, options.timeout)
                try:
                    for finding in examine(make_batch(seed, options.functions, options.calls, options.models), seed, helper.compare):
                        summary.findings.append(_saved(finding, options.save, len(summary.findings)))
                        report(f"seed {seed}: {finding.executor}: {finding.aspect}\n{finding.details}\n{finding.text}")
                finally:
                    helper.close()
            report(f"seed {seed}: {summary}")
    except KeyboardInterrupt:
        report("interrupted")
    finally:
        for child in children:
            child.close()
    summary.seconds = time.monotonic() - started
    return summary


def _answers(options: Options, children: Sequence[Child], summary: Summary, started: float) -> Iterator[tuple[int, Comparison | Exception]]:
    """Keep all children at work; give seeds with their answers as these come."""
    seed, at_work = options.seed, {}
    for child in children:
        at_work[child] = seed
        child.send((seed, options.functions, options.calls, options.models))
        seed += 1
    while at_work:
        ready = select.select([child.answers for child in at_work], [], [], options.timeout)[0]
        child = next((c for c in at_work if c.answers in ready), next(iter(at_work)))
        answered = at_work.pop(child)
        answer: Comparison | Exception
        try:
            answer = child.receive(0.0 if not ready else None)
        except (ChildDied, RuntimeError) as error:
            answer = error
        yield answered, answer
        is_over = (options.minutes and time.monotonic() - started > options.minutes * 60) or (options.count and summary.cases >= options.count)
        if not is_over and len(summary.findings) < FINDINGS_KEPT:
            at_work[child] = seed
            child.send((seed, options.functions, options.calls, options.models))
            seed += 1


def outcome(batch: Batch, compare: Comparer) -> tuple[str, str, str] | None:
    """Return (executor, aspect, details) of the first thing that is wrong with a batch, None if nothing is."""
    try:
        comparison = compare(batch)
    except ChildDied as error:
        return "native code", CRASH if CRASH in str(error) else "no answer", str(error)
    except RuntimeError as error:
        return "all", str(error).strip().split("\n")[-1][:120], str(error)
    if not comparison.differences:
        return None
    found = comparison.differences[0]
    return found.executor, found.aspect, f"expected {found.expected}\n     got {found.got}"


def examine(batch: Batch, seed: int, compare: Comparer, seconds: float = SHRINK_SECONDS) -> Iterator[Finding]:
    """Give the findings of a batch, each isolated and made small: one for each executor and aspect."""
    seen = set()
    for program in batch.programs:
        alone = replace(batch, programs=(program,))
        found = outcome(alone, compare)
        if found is None or found[:2] in seen:
            continue
        executor, aspect, _ = found
        seen.add((executor, aspect))
        small = shrink(alone, lambda b: _is_similar(outcome(b, compare), executor, aspect), seconds)  # noqa: B023
        _, _, details = outcome(small, compare) or found
        yield Finding(seed, executor, aspect, small, details)
    if not seen:
        found = outcome(batch, compare)
        if found is not None:
            yield Finding(seed, *found[:2], batch, found[2])


def _is_similar(found: tuple[str, str, str] | None, executor: str, aspect: str) -> bool:
    """Whether a smaller program fails in the same way, so that shrinking does not slip to another bug."""
    return found is not None and found[:2] == (executor, aspect)


def _saved(finding: Finding, folder: Path | None, number: int) -> Finding:
    if folder is None:
        return finding
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed{finding.seed}_{number}.mir"
    path.write_text(finding.text, encoding="utf-8")
    return replace(finding, saved=path)
