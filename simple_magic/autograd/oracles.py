"""Two oracles for gradients, independent of each other and of any backward pass.

Both differentiate the *forward* function, under the semantics model that is being judged: what a program computes may depend on the model, and a
gradient is right if it is the derivative of what was computed. `dual_oracle` carries tangents through the interpreter, in one pass for many inputs;
`difference_oracle` runs the program on inputs that are moved a little. Nothing is ever written into a program's memory: inputs go in by the front
door, so what aliases them moves with them.

The forward function is a *driver*: a function of the session with parameters of type f64 and [f64] and an f64 result, such as
`judging.forward_source` writes around a model of any node class. Every run has its own copy of the globals. Each number that goes in is an input,
those of an array one by one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, TypeAlias

from ..backends.base import Host
from ..execution.manager import LocalExecutionManager, RunOptions
from ..mir.diagnostics import Origin, Trap
from ..passes.semantics import Site

if TYPE_CHECKING:
    from .dual import DualEngine

Given: TypeAlias = Sequence[float | Sequence[float]]
"""What a driver is called with: numbers, and arrays of numbers."""
FUEL = 10**8
STEP = 6e-6
"""Step of a central difference, relative to the input but at least this: near the cube root of the rounding error, where its error is least."""
SHRINK = 8.0
"""How much smaller the next step is, where a step turns out to be too large."""
SHRINKS = 8
"""How often the step is made smaller at most."""
TOGETHER = 64
"""For so many inputs one pass carries tangents; each number of the program then holds three arrays of this length."""
WORTH_COMPILING = 40
"""With so many inputs, differences are made by compiled runs."""
EPSILON = 2.0**-52
AGREEMENT = 1e-5
"""How much the two oracles may differ, relatively."""


@dataclass(frozen=True)
class Tangent:
    """The derivative by one input, by dual numbers.

    depends: whether the result depends on the input at all; if not, its derivative is zero for certain. magnitude: the size of the terms that were added
    up, so the derivative is known to about `magnitude * 1e-16`. kinks, underflows: instructions that stood on a point which may be a kink, or rounded
    to zero. non_finite: instructions that made infinite numbers, or none, of finite ones. trap: what ended the pass instead.
    """

    value: float
    derivative: float
    depends: bool
    magnitude: float
    kinks: tuple[Origin | None, ...] = ()
    underflows: tuple[Origin | None, ...] = ()
    non_finite: tuple[Origin | None, ...] = ()
    trap: Trap | None = None


@dataclass(frozen=True)
class Difference:
    """The derivative by one input, by differences: central, and from either side.

    noise: what rounding and the size of the step may have done to them. is_kink: left and right differ, and go on to do so with smaller steps: a kink, or a function that changes
    within the smallest step.
    """

    value: float
    derivative: float
    left: float
    right: float
    step: float
    noise: float
    is_kink: bool = False
    trap: Trap | None = None


@dataclass(frozen=True)
class Oracle:
    """What both oracles say about every input."""

    value: float
    tangents: tuple[Tangent, ...]
    differences: tuple[Difference, ...]


def ask_oracles(manager: LocalExecutionManager, driver: str, inputs: Given, semantics: str, fuel: int = FUEL,
                shared: frozenset[Site] = frozenset(), copied: frozenset[Site] = frozenset(), timeout: float | None = None) -> Oracle:  # fmt: skip
    """Return what both oracles say, without the copies in `shared` and with those in `copied`.

    fuel, timeout: limits of each run. Raises: MirError for a program that cannot be differentiated.
    """
    tangents = dual_oracle(manager, driver, inputs, semantics, fuel, shared, copied, timeout)
    differences = difference_oracle(manager, driver, inputs, semantics, fuel, shared, copied, timeout, tangents)
    return Oracle(tangents[0].value if tangents else math.nan, tangents, differences)


def _options(manager: LocalExecutionManager, semantics: str, shared: frozenset[Site], copied: frozenset[Site], backend: str = "interpreter") -> RunOptions:
    return replace(manager.options(backend=backend, semantics=semantics, fuel=0, isolated=False), shared=shared, copied=copied)


# Dual numbers


def dual_oracle(manager: LocalExecutionManager, driver: str, inputs: Given, semantics: str, fuel: int = FUEL,
                shared: frozenset[Site] = frozenset(), copied: frozenset[Site] = frozenset(), timeout: float | None = None) -> tuple[Tangent, ...]:  # fmt: skip
    """Return the derivative by each input, exact but for rounding. Raises: MirError naming an operation that has none."""
    from .dual import DualEngine  # Here, as it loads NumPy.

    engines: list[DualEngine] = []

    def make(_backend: str, host: Host) -> DualEngine:
        engines.append(DualEngine(host))
        return engines[-1]

    options = _options(manager, semantics, shared, copied)
    with manager.fork("interpreter", make) as copy:
        copy.compiled(driver, options)
        runs, numbers = _Runs(copy, copy.global_values(), driver, options, fuel, timeout, _sizes(inputs)), numbers_of(inputs)
        passes = (range(i, min(i + TOGETHER, len(numbers))) for i in range(0, len(numbers), TOGETHER))
        return tuple(tangent for seeds in passes for tangent in _tangents(runs, engines[0], numbers, seeds))


def _tangents(runs: _Runs, engine: DualEngine, numbers: Sequence[float], seeds: range) -> list[Tangent]:
    """Return the derivatives by some of the inputs, by one pass."""
    engine.begin(seeds)
    try:
        value = runs(numbers)
    except Trap as trap:
        return [Tangent(math.nan, math.nan, True, math.nan, trap=trap) for _ in seeds]
    notes, result, found = engine.notes, engine.result, []
    for i in range(len(seeds)):
        kinks, underflows, non_finite = (tuple(origin for origin, which in kind.items() if which[i]) for kind in (notes.kinks, notes.underflows, notes.non_finite))
        derivative, magnitude = (0.0, 0.0) if result is None else (float(result.tangents[i]), float(result.magnitudes[i]))
        found.append(Tangent(value, derivative, result is not None and bool(result.inputs[i]), magnitude, kinks, underflows, non_finite))
    return found


# Differences


def difference_oracle(manager: LocalExecutionManager, driver: str, inputs: Given, semantics: str, fuel: int = FUEL,
                      shared: frozenset[Site] = frozenset(), copied: frozenset[Site] = frozenset(), timeout: float | None = None,
                      tangents: Sequence[Tangent] | None = None) -> tuple[Difference, ...]:  # fmt: skip
    """Return the derivative by each input as differences of runs.

    tangents: what dual numbers say. Where they differ, smaller steps are tried, and the one is taken at which the differences settle; their magnitude
    says how large the numbers are that a small result is the rest of. Every input takes two runs or more, so those of many are compiled; the numbers
    are the same.
    """
    numbers = numbers_of(inputs)
    backend = "llvm" if len(numbers) >= WORTH_COMPILING else "interpreter"
    with manager.fork(backend) as copy:
        runs = _Runs(copy, copy.global_values(), driver, _options(manager, semantics, shared, copied, backend), fuel, timeout, _sizes(inputs))
        try:
            value = runs(numbers)
        except Trap as trap:
            return tuple(Difference(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, trap=trap) for _ in numbers)
        told = tangents or (None,) * len(numbers)
        terms = max((abs(x) * t.magnitude for x, t in zip(numbers, told) if t is not None and math.isfinite(t.magnitude)), default=0.0)
        return tuple(_Around(runs, numbers, i, value, max(abs(value), terms), told[i]).difference() for i in range(len(numbers)))


def numbers_of(inputs: Given) -> list[float]:
    """Return the inputs of a driver one by one."""
    return [float(x) for given in inputs for x in (given if isinstance(given, Sequence) else (given,))]


def _sizes(inputs: Given) -> tuple[int | None, ...]:
    return tuple(len(given) if isinstance(given, Sequence) else None for given in inputs)


@dataclass
class _Runs:
    """The forward function as a function of its numbers: every call starts from the same globals. sizes: the lengths of arrays, None for a number."""

    manager: LocalExecutionManager
    globals: Mapping[str, object]
    driver: str
    options: RunOptions
    fuel: int
    timeout: float | None
    sizes: tuple[int | None, ...]

    def __call__(self, numbers: Sequence[float]) -> float:
        rest = iter(numbers)
        args = [next(rest) if size is None else list(islice(rest, size)) for size in self.sizes]
        self.manager.set_global_values(self.globals)
        with redirect_stdout(io.StringIO()):
            return self.manager.run(self.driver, args, self.options, self.fuel, self.timeout)[0]  # type: ignore[return-value]


def agree(a: float, b: float, noise: float) -> bool:
    """Whether two derivatives are the same, beside the noise of differences."""
    return abs(a - b) <= AGREEMENT * max(abs(a), abs(b)) + noise


def _jump(d: Difference) -> float:
    return abs(d.right - d.left)


def _has_jump(d: Difference) -> bool:
    return _jump(d) > max(100.0 * d.noise, 1e-4 * max(abs(d.left), abs(d.right)))


@dataclass(frozen=True)
class _Around:
    """The forward function around the value of one input. size: of the numbers that its result is made of, which may cancel in it."""

    runs: _Runs
    inputs: Sequence[float]
    index: int
    value: float
    size: float
    tangent: Tangent | None

    def difference(self) -> Difference:
        step = STEP * max(1.0, abs(self.inputs[self.index]))
        try:
            for _ in range(3):
                found = self.sides(step)
                if math.isfinite(found.left) and math.isfinite(found.right):
                    break
                step /= SHRINK**2  # The step may have left the domain.
            first = found
            if _has_jump(first):
                found = self.without_jump(first)
            if not found.is_kink and math.isfinite(found.derivative) and self.is_doubted(found):
                return self.settled(first)
        except Trap as trap:
            return Difference(self.value, math.nan, math.nan, math.nan, step, math.nan, trap=trap)
        return found

    def is_doubted(self, found: Difference) -> bool:
        """Whether dual numbers say something else."""
        return self.tangent is not None and math.isfinite(self.tangent.derivative) and not agree(found.derivative, self.tangent.derivative, found.noise)

    def without_jump(self, first: Difference) -> Difference:
        """Return the differences with the largest step at which left and right agree; if none does before rounding hides it, the first ones, as a kink.

        What goes with the step is no kink but the bend of a smooth function, at a point where its slope is small. Where rounding hides smaller steps a
        larger one tells.
        """
        tried = [first]
        for _ in range(SHRINKS):
            closer = self.sides(tried[-1].step / SHRINK)
            if 200.0 * closer.noise > _jump(first):
                break
            if not _has_jump(closer):
                return closer
            tried.append(closer)
        if len(tried) == 1:
            tried.insert(0, self.sides(first.step * SHRINK))
        if _jump(tried[-1]) < _jump(tried[-2]) / 4.0:
            return tried[-1]
        return replace(first, is_kink=True)

    def settled(self, first: Difference) -> Difference:
        """Return the differences with the step at which they change least from the step before.

        Their error goes with the square of the step: what remains of it is about a 63rd of that change, and twice that is added to the noise.
        """
        found = [first]
        for _ in range(SHRINKS):
            found.append(self.sides(found[-1].step / SHRINK))
        change, chosen = min(((abs(a.derivative - b.derivative), b) for a, b in pairwise(found)), key=lambda pair: pair[0] + pair[1].noise)
        return replace(chosen, noise=chosen.noise + 2.0 * change / (SHRINK**2 - 1.0))

    def sides(self, step: float) -> Difference:
        x, value = self.inputs[self.index], self.value
        step = max(step, 8.0 * math.ulp(x))
        above, below = x + step, x - step
        high, low = (self.runs([*self.inputs[: self.index], moved, *self.inputs[self.index + 1 :]]) for moved in (above, below))
        noise = 8.0 * EPSILON * max(abs(high), abs(low), self.size) / step
        return Difference(value, (high - low) / (above - below), (value - low) / (x - below), (high - value) / (above - x), step, noise)
