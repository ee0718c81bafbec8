"""Large units: compiled within seconds, or refused; and they run within the stack."""

from __future__ import annotations

import time

import pytest

from simple_magic import LocalExecutionManager, MirError
from simple_magic.mir.diagnostics import Reporter
from simple_magic.mir.resolve import Names
from simple_magic.mir.text import parse_text
from simple_magic.mir.verify import check
from simple_magic.passes.lower import lower
from simple_magic.passes.polls import frame_bytes
from simple_magic.passes.share import MOST_LOCALS


@pytest.fixture(params=["llvm", "cranelift"])
def em(request):
    with LocalExecutionManager(request.param) as manager:
        yield manager


def repeated(line: str, count: int) -> str:
    return f"fn main(n: i64) -> i64:\nentry:\n  sum = const 0\n  a: [i64] = array\n{line * count}  m = len a\n  sum = add sum, m\n  ret sum\n"


DEEP_TYPE = f"fn main() -> bool:\nentry:\n  x: {'[' * 60}i64{']' * 60} = array\n  y = aggregate_copy x\n  r = eq x, y\n  ret r\n"


@pytest.mark.parametrize(("source", "args", "value"), [
    (repeated("  sum = add sum, n\n", 20_000), (2,), 40_000), (repeated("  push a, n\n", 2_000), (2,), 2_000), (repeated("  sum = div sum, n\n", 5_000), (2,), 0), (DEEP_TYPE, (), True),
    (repeated("  assert true, \"fine\"\n  t = to_text n\n  k = len t\n  sum = add sum, k\n", 3_000), (12,), 6_000),
], ids=["additions", "pushes", "divisions", "a deep type", "texts"])  # fmt: skip
def test_a_long_function_compiles_in_seconds_and_runs(em, source, args, value):
    em.compile(source)
    start = time.monotonic()
    assert em.execute("main", *args) == value
    assert time.monotonic() - start < 30, "a few seconds, and room for a busy machine"


def test_twenty_thousand_prints(em):
    em.compile(repeated("  print n\n", 20_000))
    assert em.execute_captured("main", 7).stdout == "7\n" * 20_000


def test_what_would_take_long_is_refused(em):
    em.compile(repeated("  d: {i64: i64} = dict\n  index_set d, n, n\n  a = array n, n\n", 20_000))
    with pytest.raises(MirError, match=r"E0604.*machine operations"):
        em.execute("main", 1)
    em.compile("fn main() -> i64:\nentry:\n  ret 1\n")
    assert em.execute("main") == 1


LOOPED = """fn main(n: i64) -> i64:
entry:
  i = const 0
  old = const 0
  sum = const 0
  a: [i64] = array
  goto head
head:
  more = lt i, n
  if more then body else done
body:
{body}
  sum = add sum, old
  old = copy i
  i = add i, 1
  goto head
done:
  ret sum
"""


def test_values_of_one_round_of_a_loop_reach_the_next_though_locals_are_shared(em):
    """`old` is read before it is written in the body; the many temporaries around must not take its place."""
    body = "\n".join(f"  t{k} = mul i, {k}\n  u{k} = add t{k}, {k}\n  z{k} = eq u{k}, -1\n  if z{k} then done else go{k}\ngo{k}:" for k in range(1, 1001))
    em.compile(LOOPED.format(body=body))
    assert em.execute("main", 5) == 0 + 0 + 1 + 2 + 3


def test_shared_locals_keep_a_long_functions_frame_small():
    module = check(parse_text(repeated("  push a, n\n", 3_000)), Names(), Reporter())
    (function,) = [f for f in lower(module, Names.of(module), {}).module.functions if f.name == "main"]
    assert frame_bytes(function) < 16 * MOST_LOCALS
