"""Live callables and NumPy arguments, on every back end, through the native path and through the manager."""

from __future__ import annotations

import gc
import inspect
import threading
import time
import warnings
import weakref

import numpy as np
import pytest

from simple_magic import CopiedArrayWarning, LocalExecutionManager, MirError, Trap

SOURCE = """
# Adds two numbers.
fn add(a: i64, b: i64) -> i64:
entry:
  c = add a, b
  ret c

fn at(xs: [f64], i: i64) -> f64:
entry:
  x = index_get xs, i
  ret x

fn put(xs: [f64], i: i64, x: f64) -> f64:
entry:
  index_set xs, i, x
  y = div 1, i
  ret x

fn grow(xs: [f64]):
entry:
  push xs, 1.0
  ret

fn spin(n: i64) -> i64:
entry:
  i = const 0
  x = const 1
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = mul x, 3
  x = bit_xor x, i
  i = add i, 1
  goto head
done:
  ret x

fn nothing():
entry:
  ret
"""


@pytest.fixture(params=["interpreter", "llvm", "cranelift"])
def em(request):
    with LocalExecutionManager(request.param) as manager:
        manager.compile(SOURCE, cell="cell")
        yield manager


def test_a_callable_describes_itself(em):
    add = em.function("add")
    assert str(inspect.signature(add)) == "(a: 'i64', b: 'i64') -> 'i64'"
    assert add.__name__ == "add" and "Adds two numbers." in add.__doc__ and "defined in cell" in add.__doc__
    assert "c = add a, b" in add.mir and "add" in repr(add)
    assert inspect.getdoc(add)
    assert "define" in add.llvm_ir and add.assembly
    assert "i64.add" in add.wat


def test_calls_by_position_and_by_name(em):
    add = em.function("add")
    for _ in range(3):
        assert add(20, 22) == 42
        assert add(20, b=22) == add(a=20, b=22) == 42
    for wrong in ({"c": 1}, {"a": 1}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(TypeError):
            add(1, **wrong)
    assert em.function("nothing")() is None


@pytest.mark.parametrize(("bad", "error", "says"), [((1,), TypeError, "takes 2 arguments, got 1"), ((1, 2, 3), TypeError, "got 3"), ((1, 2.5), TypeError, "argument b"),
                                                    ((True, 1), TypeError, "bool"), ((2**63, 1), OverflowError, "does not fit i64"), (("1", 1), TypeError, "str")])  # fmt: skip
def test_wrong_arguments_say_what_to_do(em, bad, error, says):
    add = em.function("add")
    add(1, 2)
    for _ in range(2):
        with pytest.raises(error, match=says):
            add(*bad)
    assert add(1, 2) == 3
    assert add(2**63 - 1, 1) == -(2**63)


def test_numpy_writes_are_visible_even_after_a_trap(em):
    put, xs = em.function("put"), np.zeros(4)
    for _ in range(2):
        assert put(xs, 2, 7.0) == 7.0
        with pytest.raises(Trap) as caught:
            put(xs, 0, 9.0)
        assert (caught.value.kind, caught.value.span.line) == ("division_by_zero", 16)
    assert xs.tolist() == [9.0, 0.0, 7.0, 0.0]


def test_a_list_goes_in_as_a_copy(em):
    put, xs = em.function("put"), [0.0] * 4
    assert put(xs, 2, 7.0) == 7.0 and xs == [0.0] * 4


def test_a_read_only_array_is_accepted_if_the_program_writes_none(em):
    xs = np.arange(4.0)
    xs.flags.writeable = False
    with pytest.raises(TypeError, match="read-only"):
        em.function("put")(xs, 1, 1.0)
    em.compile("fn last(xs: [f64]) -> f64:\nentry:\n  x = index_get xs, 3\n  ret x\n")
    last = em.function("last")
    assert [last(xs) for _ in range(3)] == [3.0] * 3


@pytest.mark.parametrize(("make", "says"), [(lambda: np.zeros((2, 2)), "ravel"), (lambda: np.zeros(8)[::2], "ascontiguousarray"), (lambda: np.zeros(3, np.int64), "ascontiguousarray"),
                                            (lambda: np.zeros(3, ">f8"), "ascontiguousarray"), (lambda: "text", "str"), (lambda: [1.0, "x"], "str"), (lambda: 3.0, "float")])  # fmt: skip
def test_arrays_that_do_not_fit_say_what_to_do(em, make, says):
    at = em.function("at")
    at(np.zeros(2), 0)
    with pytest.raises(TypeError, match=says):
        at(make(), 0)


def test_a_lent_array_cannot_grow_and_a_list_can(em):
    grow = em.function("grow")
    for _ in range(2):
        with pytest.raises(Trap) as caught:
            grow(np.zeros(2))
        assert caught.value.kind == "array_not_growable"
        assert grow([1.0]) is None


def test_bounds_are_checked_on_lent_arrays(em):
    at, xs = em.function("at"), np.arange(3.0)
    assert at(xs, 2) == 2.0
    for index in (3, -1, 2**40, -(2**63)):
        with pytest.raises(Trap) as caught:
            at(xs, index)
        assert caught.value.kind == "index_out_of_bounds"


def test_an_array_that_a_global_keeps_is_copied_and_said_so(em):
    em.compile("global kept: [f64]\nfn keep(xs: [f64]):\nentry:\n  store_global @kept, xs\n  ret\nfn first() -> f64:\nentry:\n  x = index_get @kept, 0\n  ret x\n")
    xs = np.arange(1.0, 4.0)
    with pytest.warns(CopiedArrayWarning, match="keep"):
        em.execute("keep", xs)
    xs[0] = 100.0
    del xs
    gc.collect()
    assert em.execute("first") == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert em.execute("at", np.arange(3.0), 1) == 1.0


def test_a_redefinition_reaches_a_callable_that_was_native(em):
    add = em.function("add")
    assert [add(2, 3) for _ in range(3)] == [5] * 3
    em.compile("fn add(a: i64, b: i64) -> i64:\nentry:\n  c = mul a, b\n  ret c\n")
    assert [add(2, 3) for _ in range(3)] == [6] * 3
    em.compile("fn add(a: f64) -> f64:\nentry:\n  ret a\n")
    assert add(0.5) == 0.5
    em.remove("add")
    with pytest.raises(MirError):
        add(0.5)
    assert "no longer defined" in repr(add)


def test_switching_the_back_end_reaches_a_callable(em):
    add = em.function("add")
    assert add(1, 2) == 3
    for backend in ("interpreter", "llvm", "interpreter"):
        em.set_backend(backend)
        assert add(1, 2) == 3


def test_callables_are_collected(em):
    add = em.function("add")
    add(1, 2)
    dead = weakref.ref(add)
    del add
    gc.collect()
    assert dead() is None


def test_python_runs_on_while_native_code_loops():
    with LocalExecutionManager("llvm") as em:
        em.compile(SOURCE)
        spin = em.function("spin")
        spin(1)
        ticks, done = 0, threading.Event()
        worker = threading.Thread(target=lambda: (spin(1_000_000_000), done.set()))
        worker.start()
        while not done.wait(0.005):
            ticks += 1
        worker.join()
        assert ticks > 10, "the loop held the GIL"


def test_overlapping_arrays_of_two_types_agree_with_the_interpreter():
    source = """
fn mix(xs: [f64], ys: [i64]) -> f64:
entry:
  i = const 0
  acc = const 0.0
  goto head
head:
  more = lt i, 4
  if more then body else done
body:
  index_set xs, i, 1.5
  index_set ys, i, 4611686018427387904
  x = index_get xs, i
  acc = add acc, x
  i = add i, 1
  goto head
done:
  ret acc
"""
    answers = []
    for backend, level in (("interpreter", 0), ("llvm", 0), ("llvm", 2)):
        with LocalExecutionManager(backend, opt_level=level) as em:
            em.compile(source)
            memory = np.zeros(4)
            answers.append((em.execute("mix", memory, memory.view(np.int64)), em.function("mix")(memory, memory.view(np.int64)), memory.tolist()))
    assert answers[0] == answers[1] == answers[2] == (8.0, 8.0, [2.0] * 4)


def test_a_resized_array_is_refused_while_a_call_holds_it():
    with LocalExecutionManager("llvm") as em:
        em.compile("fn slow(xs: [f64], n: i64) -> f64:\nentry:\n  i = const 0\n  goto head\nhead:\n  more = lt i, n\n  if more then body else done\nbody:\n  j = rem i, 4\n  x = index_get xs, j\n  index_set xs, j, x\n  i = add i, 1\n  goto head\ndone:\n  ret 0.0\n")
        xs = np.zeros(4)
        slow = em.function("slow")
        slow(xs, 1)
        worker = threading.Thread(target=slow, args=(xs, 300_000_000))
        worker.start()
        time.sleep(0.05)
        if worker.is_alive():
            with pytest.raises(ValueError, match="resize"):
                xs.resize(1_000_000)
        worker.join()


def test_the_help_says_which_parameters_are_written_and_what_python_sees():
    manager = LocalExecutionManager("interpreter")
    manager.compile("fn first(xs: [f64], k: f64):\nentry:\n  index_set xs, 0, k\n  ret\nfn size(xs: [f64]) -> i64:\nentry:\n  n = len xs\n  ret n\n")
    first, size = manager.function("first"), manager.function("size")
    assert "Writes into xs." in first.__doc__ and "copied in" in first.__doc__ and "Writes into" not in size.__doc__
    xs = [1.0]
    first(xs, 2.0)
    assert xs == [1.0]


def test_advice_for_an_array_that_is_written_keeps_the_array():
    import numpy as np

    manager = LocalExecutionManager("interpreter")
    manager.compile("fn first(xs: [f64], k: f64):\nentry:\n  index_set xs, 0, k\n  ret\n")
    with pytest.raises(TypeError, match=r"write x = np.ascontiguousarray.* first, pass x and read x afterwards"):
        manager.execute("first", np.zeros(2, dtype=np.float32), 1.0)


def test_a_record_of_an_older_struct_is_refused():
    manager = LocalExecutionManager("interpreter")
    manager.compile("struct P:\n  x: i64\n  y: i64\nfn make() -> P:\nentry:\n  p = new P(x: 1, y: 2)\n  ret p\n")
    old = manager.execute("make")
    manager.remove("make")
    manager.compile("struct P:\n  x: i64\nfn read(p: P) -> i64:\nentry:\n  x = get_field p, x\n  ret x\n")
    with pytest.raises(TypeError, match="further field y"):
        manager.execute("read", old)


def test_calling_an_offered_extern_without_its_declaration_says_what_to_write():
    from simple_magic import extern

    extern("fn offered_only(x: f64) -> f64")(abs)
    with pytest.raises(MirError, match=r"declare it in the cell: `extern fn offered_only\(x: f64\) -> f64`"):
        LocalExecutionManager("interpreter").compile("fn f() -> f64:\nentry:\n  y = call offered_only(1.0)\n  ret y\n")
