"""Nothing kills the kernel: faults of running programs, in a real kernel for each back end.

Every program below fails at the line that ends in `# trap KIND`. Whatever the back end, the cell fails with that trap at that line; afterwards the
process is the same, globals hold what they held, and the next cell runs.
"""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import pytest

from simple_magic.kernels import running_kernel

BACKENDS = ["interpreter", "llvm", "cranelift"]

SET_UP = """
import os, threading, time
import simple_magic as sm
PID = os.getpid()

@sm.extern("fn host_started()")
def host_started():
    print("started", flush=True)

@sm.extern("fn host_fail(how: i64) -> i64")
def host_fail(how):
    if how == 0:
        raise ValueError("no such thing")
    if how == 1:
        raise KeyboardInterrupt
    if how == 2:
        raise SystemExit(3)
    if how == 3:
        raise StopIteration("over")
    return ["a list", None, 2**63, 1.5][how - 4]

@sm.extern("fn host_again(depth: i64) -> i64")
def host_again(depth):
    return sm.current_manager().execute("nested", depth)

@sm.extern("fn host_sleep(seconds: f64)")
def host_sleep(seconds):
    time.sleep(seconds)

def in_small_thread(call):
    failures = []
    def run():
        try:
            call()
        except BaseException as error:
            failures.append(error)
    before = threading.stack_size(512 << 10)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    raise failures[0]
"""

KEPT = """%%simple_jit keep
class Box:
  items: [i64]
  next: Box?
global kept: Box?
global names: {text: i64}
fn keep():
entry:
  items = array 1, 2, 3
  b = new Box(items: items, next: nil)
  s = some b
  set_field b, next, s
  store_global @kept, s
  d: {text: i64} = dict
  index_set d, "answer", 42
  store_global @names, d
  ret
fn peek() -> i64:
entry:
  s = load_global @kept
  b = unwrap s
  t = get_field b, next
  b = unwrap t
  items = get_field b, items
  last = index_get items, 2
  d = load_global @names
  answer = index_get d, "answer"
  sum = add last, answer
  ret sum
"""


@pytest.fixture(scope="module", params=BACKENDS)
def kernel(request):
    with running_kernel() as running:
        for cell in ("%load_ext simple_magic", f"%config SimpleMagics.backend = {request.param!r}", "%config SimpleMagics.memory = '8M'", SET_UP, KEPT):
            assert running.run(cell).error is None, cell
        yield SimpleNamespace(run=running.run, start=running.start, finish=running.finish, interrupt=running.interrupt, client=running.client, backend=request.param)


@pytest.fixture(autouse=True)
def unharmed(request):
    """After each test: the same process, the same globals, and the next cell runs."""
    yield
    outcome = request.getfixturevalue("kernel").run("%%simple_jit main\nfn main() -> i64:\nentry:\n  ret 7\n", same="os.getpid() == PID", kept="peek()", next="main()")
    assert outcome.error is None, outcome.error
    assert outcome.expressions == {"same": "True", "kept": "45", "next": "7"}


def expected_trap(source: str) -> tuple[str, int]:
    """Return (kind, line) of the program's `# trap` mark; the magic's line is the cell's first."""
    for number, line in enumerate(source.split("\n"), 2):
        mark = re.search(r"# trap (\w+)$", line)
        if mark:
            return mark[1], number
    raise AssertionError("the program has no mark")


def trap_of(outcome) -> tuple[str, int]:
    """Return (kind, line) as the first line of the cell's error tells them."""
    assert outcome.error is not None, "the cell did not fail"
    name, value, traceback = outcome.error
    assert name == "Trap", (name, value)
    assert ".py" not in "\n".join(traceback)
    first = re.fullmatch(r"trap (\w+): .*\((?:.*:|line )(\d+)(?::|, column )\d+\)", value.split("\n")[0])
    assert first is not None, value
    return first[1], int(first[2])


def function(name: str, body: str) -> str:
    """Return a function of one block that calls nothing and returns an i64."""
    return f"fn {name}() -> i64:\nentry:\n{body}\n  ret 0"


TRAPS = {
    **{f"{op} by zero, {t}": f"fn main() -> {t}:\nentry:\n  a = const 1{t}\n  b = const 0{t}\n  c = {op} a, b  # trap division_by_zero\n  ret c"
       for op in ("div", "rem") for t in ("i8", "i64", "u64")},
    **{f"{op} of MIN and -1, i{bits}": f"fn main() -> i{bits}:\nentry:\n  a = const {-(2 ** (bits - 1))}i{bits}\n  b = const -1i{bits}\n"
                                       f"  c = {op} a, b  # trap integer_overflow\n  ret c" for op in ("div", "rem") for bits in (8, 16, 32, 64)},
    **{f"read at {index}": function("main", f"  a = array 1, 2, 3\n  i = const {index}\n  x = index_get a, i  # trap index_out_of_bounds")
       for index in (-1, 3, 2**40, 2**61, -(2**63))},
    **{f"write at {index}": function("main", f"  a = array 1, 2, 3\n  i = const {index}\n  index_set a, i, 9  # trap index_out_of_bounds")
       for index in (-1, 3, 2**40, 2**61, -(2**63))},
    "insert far outside": function("main", "  a = array 1\n  insert a, 1099511627776, 9  # trap index_out_of_bounds"),
    "slice backwards": function("main", "  a = array 1, 2\n  b = slice a, 2, 1  # trap index_out_of_bounds"),
    "pop of nothing": function("main", "  a: [i64] = array\n  x = pop a  # trap index_out_of_bounds"),
    "missing key": function("main", '  d: {text: i64} = dict\n  x = index_get d, "k"  # trap key_missing'),
    "unwrap of nil": function("main", "  o: i64? = const nil\n  x = unwrap o  # trap nil_unwrap"),
    **{f"float {x} to int": function("main", f"  f: f64 = const {x}\n  x: i64 = cast f  # trap float_to_int") for x in ("nan", "inf", "-inf", "1e30", "9223372036854775808.0")},
    "float to u8": function("main", "  f: f64 = const -1.0\n  x: u8 = cast f  # trap float_to_int"),
    "surrogate char": function("main", "  n = const 55296\n  c: char = cast n  # trap invalid_char"),
    "checked overflow": function("main", "  n = const 9223372036854775807\n  m = checked_add n, 1  # trap integer_overflow"),
    "a wild pointer": function("main", "  p = alloc i64, 4\n  q = gep p, 1099511627776\n  store q, 1  # trap bad_pointer"),
    "assertion": function("main", '  no = const false\n  assert no, "told you"  # trap assertion_failed'),
    "abort": 'fn main():\nentry:\n  abort "done for"  # trap abort',
    "throw": 'fn main():\nentry:\n  throw 1, 2  # trap uncaught_throw',
    "2**40 elements": function("main", "  a = array_fill 1, 1099511627776  # trap out_of_memory"),
    "2**62 elements": function("main", "  a = array_fill 1, 4611686018427387904  # trap out_of_memory"),
    "2**40 cells": function("main", "  p = alloc i64, 1099511627776  # trap out_of_memory"),
    "all memory by elements": "fn main():\nentry:\n  a: [i64] = array\n  goto again\nagain:\n  push a, 7  # trap out_of_memory\n  goto again",
    "all memory by objects": "class Cell:\n  next: Cell?\nfn main():\nentry:\n  head: Cell? = const nil\n  goto again\nagain:\n"
                             "  c = new Cell(next: head)  # trap out_of_memory\n  head = some c\n  goto again",
    "all memory by text": 'fn main():\nentry:\n  t = const "abcdefgh"\n  goto again\nagain:\n  t = concat t, t  # trap out_of_memory\n  goto again',
    "all memory by keys": "fn main():\nentry:\n  d: {i64: i64} = dict\n  n = const 0\n  goto again\nagain:\n  n = add n, 1\n  index_set d, n, n  # trap out_of_memory\n  goto again",
    "output flood": "fn main():\nentry:\n  goto again\nagain:\n  print 12345678901234567  # trap output_limit\n  goto again",
    "recursion": "fn main() -> i64:\nentry:\n  r = call down(10000000)\n  ret r\nfn down(n: i64) -> i64:\nentry:\n  stop = le n, 0\n  if stop then done else more\nmore:\n  m = sub n, 1\n"
                 "  r = call down(m)  # trap stack_overflow\n  r = add r, 1\n  ret r\ndone:\n  ret 0",
}  # fmt: skip

MUTUAL = """fn main() -> i64:
entry:
  r = call even(10000000)
  ret r
fn even(n: i64) -> i64:
entry:
  m = sub n, 1
  r = call odd(m)
  r = add r, 1
  ret r
fn odd(n: i64) -> i64:
entry:
  m = sub n, 1
  r = call even(m)
  r = add r, 1
  ret r
"""


@pytest.mark.parametrize("source", TRAPS.values(), ids=TRAPS)
def test_a_trap_has_one_kind_and_line_on_every_back_end(kernel, source):
    assert trap_of(kernel.run(f"%%simple_jit main\n{source}\n")) == expected_trap(source)


def test_mutual_recursion_overflows_at_one_of_its_calls(kernel):
    kind, line = trap_of(kernel.run(f"%%simple_jit main\n{MUTUAL}"))
    assert kind == "stack_overflow" and line in (9, 15)


@pytest.mark.parametrize("source", [TRAPS["recursion"], MUTUAL], ids=["recursion", "mutual recursion"])
def test_recursion_in_a_thread_with_a_small_stack(kernel, source):
    assert kernel.run(f"%%simple_jit peek\n{source}").error is None
    assert trap_of(kernel.run("in_small_thread(main)"))[0] == "stack_overflow"
    assert trap_of(kernel.run("in_small_thread(lambda: sm.current_manager().execute('main'))"))[0] == "stack_overflow"


@pytest.mark.parametrize(("option", "kind"), [("--timeout 0.2", "timeout"), ("--fuel 1000", "out_of_fuel"), ("--fuel 0", "out_of_fuel")])
def test_timeout_and_fuel_end_an_endless_loop(kernel, option, kind):
    assert trap_of(kernel.run(f"%%simple_jit main {option}\nfn main():\nentry:\n  goto again\nagain:\n  goto again\n"))[0] == kind


LOOPS = {
    "an empty body": "extern fn host_started()\nfn main():\nentry:\n  call host_started()\n  goto again\nagain:\n  goto again\n",
    "calls": "extern fn host_started()\nfn main():\nentry:\n  call host_started()\n  n = const 0\n  goto again\nagain:\n  n = call next(n)\n  goto again\n"
             "fn next(n: i64) -> i64:\nentry:\n  m = add n, 1\n  ret m\n",
    "allocation": "extern fn host_started()\nfn main():\nentry:\n  call host_started()\n  goto again\nagain:\n  a = array_fill 1, 1000\n  drop a\n  d: {i64: i64} = dict\n  goto outer\n"
                  "outer:\n  goto outer\n",
    "an extern that sleeps": "extern fn host_started()\nextern fn host_sleep(seconds: f64)\nfn main():\nentry:\n  call host_started()\n  goto again\nagain:\n"
                             "  call host_sleep(60.0)\n  goto again\n",
    "an extern that is quick": "extern fn host_started()\nextern fn host_sleep(seconds: f64)\nfn main():\nentry:\n  call host_started()\n  goto again\nagain:\n"
                               "  call host_sleep(0.0)\n  goto again\n",
    "a runtime loop": "extern fn host_started()\nfn main():\nentry:\n  call host_started()\n  a = array_fill 1.5, 100000\n  goto again\nagain:\n  has = contains a, 2.5\n  goto again\n",
}  # fmt: skip


def wait_for_output(kernel, wanted: str, timeout: float = 30.0) -> None:
    """Wait until the running cell has written a text. Raises: queue.Empty."""
    end = time.monotonic() + timeout
    while True:
        message = kernel.client.get_iopub_msg(timeout=max(0.01, end - time.monotonic()))
        if message["msg_type"] == "stream" and wanted in message["content"]["text"]:
            return


@pytest.mark.parametrize("call", ["main()", "%simple call main"])
@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
def test_an_endless_loop_ends_within_a_second_of_the_interrupt_twice_in_a_row(kernel, source, call):
    assert kernel.run(f"%%simple_jit peek\n{source}").error is None
    for _ in range(2):
        message = kernel.start(call)
        wait_for_output(kernel, "started")
        asked = time.monotonic()
        kernel.interrupt()
        outcome = kernel.finish(message, timeout=30)
        assert outcome.error is not None and outcome.error[0] == "KeyboardInterrupt"
        assert time.monotonic() - asked < 3, "one second, and room for a busy machine"


CALL_HOST = "extern fn host_fail(how: i64) -> i64\nfn main() -> i64:\nentry:\n  r = call host_fail({how})\n  ret r\n"


@pytest.mark.parametrize(("how", "name", "value"), [
    (0, "ValueError", "no such thing"), (1, "KeyboardInterrupt", ""), (2, "SystemExit", "3"), (3, "StopIteration", "over"),
    (4, "TypeError", "extern `host_fail` must return i64"), (5, "TypeError", "extern `host_fail` must return i64"),
    (6, "OverflowError", "extern `host_fail` must return i64"), (7, "TypeError", "extern `host_fail` must return i64"),
])  # fmt: skip
def test_what_an_extern_raises_surfaces_unchanged(kernel, how, name, value):
    assert kernel.run("%%simple_jit peek\n" + CALL_HOST.format(how=how)).error is None
    for call in ("main()", "%simple call main"):
        outcome = kernel.run(call)
        assert outcome.error is not None and outcome.error[0] == name, outcome.error
        assert value in outcome.error[1]


NESTED = "extern fn host_again(depth: i64) -> i64\nfn nested(depth: i64) -> i64:\nentry:\n  more = gt depth, 0\n  if more then again else done\nagain:\n  d = sub depth, 1\n  r = call host_again(d)\n  r = add r, 1\n  ret r\ndone:\n  ret 0\n"


def test_an_extern_calls_the_manager_again(kernel):
    assert kernel.run(f"%%simple_jit peek\n{NESTED}", shallow="nested(10)").expressions == {"shallow": "10"}


@pytest.mark.parametrize("call", ["nested(10**6)", "in_small_thread(lambda: nested(10**6))"])
def test_endless_recursion_through_an_extern(kernel, call):
    """Python's limit comes first. (The error is not shown: IPython takes half a minute to print hundreds of Python frames.)"""
    assert kernel.run(f"%%simple_jit peek\n{NESTED}").error is None
    assert kernel.run(f"try:\n    {call}\nexcept RecursionError:\n    print('too deep')").stdout == "too deep\n"
