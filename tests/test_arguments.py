"""Python arguments that do not fit, on every back end: an ordinary exception, nothing written, and the next call works."""

from __future__ import annotations

import numpy as np
import pytest

from simple_magic import LocalExecutionManager

SOURCE = """
fn first(a: [i64]) -> i64:
entry:
  index_set a, 0, 9
  n = len a
  ret n
fn size(a: [f64]) -> i64:
entry:
  n = len a
  ret n
fn both(a: [i64], b: [i64]) -> i64:
entry:
  index_set a, 1, 50
  x = index_get b, 0
  ret x
fn grow(a: [i64]) -> i64:
entry:
  push a, 1
  ret 0
fn scalar(x: i64, y: f64, b: bool, c: char, t: text) -> i64:
entry:
  ret x
"""


@pytest.fixture(params=["interpreter", "llvm", "cranelift"])
def em(request):
    with LocalExecutionManager(request.param) as manager:
        manager.compile(SOURCE)
        yield manager
        assert manager.execute("size", [1.0, 2.0]) == 2


def ways(em, name):
    """Return both ways to call a function."""
    return [em.function(name), lambda *args: em.execute(name, *args)]


@pytest.mark.parametrize("array", [
    np.arange(8)[::2], np.arange(8)[::-1], np.arange(4).astype(">i8"), np.arange(4).reshape(2, 2), np.arange(4, dtype=np.int32), np.arange(4.0), np.array(["a"]),
    np.array(5), np.array([1, None], dtype=object), np.zeros(2, dtype=[("x", "i8")]),
], ids=["every second", "backwards", "byte-swapped", "two-dimensional", "i32", "f64", "text", "no dimension", "objects", "records"])  # fmt: skip
def test_arrays_of_other_layouts_are_refused_or_copied_but_never_misread(em, array):
    before = array.copy()
    for call in ways(em, "first"):
        try:
            assert call(array) == len(array)
        except (TypeError, ValueError, OverflowError):
            assert np.array_equal(array, before)
            continue
        assert array[0] in (before[0], 9) and np.array_equal(array[1:], before[1:])


def test_a_read_only_array_is_not_written(em):
    array = np.arange(4)
    array.flags.writeable = False
    for call in ways(em, "first"):
        with pytest.raises((TypeError, ValueError)):
            call(array)
    assert array.tolist() == [0, 1, 2, 3]


def test_empty_arrays(em):
    for call in ways(em, "size"):
        assert call(np.array([], dtype=np.float64)) == call([]) == 0
    for call in ways(em, "first"):
        with pytest.raises(Exception, match="out of bounds"):
            call(np.array([], dtype=np.int64))


def test_overlapping_arrays_are_one_memory(em):
    for call in ways(em, "both"):
        whole = np.arange(4)
        assert call(whole[:3], whole[1:]) == 50 and whole.tolist() == [0, 50, 2, 3]


def test_a_lent_array_cannot_grow(em):
    for call in ways(em, "grow"):
        array = np.arange(4)
        with pytest.raises(Exception, match="NumPy array"):
            call(array)
        assert array.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("args", [
    (2**63, 1.0, True, "c", "t"), (-(2**63) - 1, 1.0, True, "c", "t"), (10**400, 1.0, True, "c", "t"), (1.0, 1.0, True, "c", "t"), ("1", 1.0, True, "c", "t"), (None, 1.0, True, "c", "t"),
    (1, "x", True, "c", "t"), (1, 10**400, True, "c", "t"), (1, 1.0, 1, "c", "t"), (1, 1.0, True, "cc", "t"), (1, 1.0, True, "", "t"), (1, 1.0, True, b"c", "t"), (1, 1.0, True, "c", b"t"),
    (1, 1.0, True, "\ud800", "t"), (1, 1.0, True, "c", "\ud800"), (1, 1.0, True, "c"), (1, 1.0, True, "c", "t", 5), (),
], ids=lambda args: ascii(args)[:40])  # fmt: skip
def test_scalars_that_do_not_fit(em, args):
    for call in ways(em, "scalar"):
        with pytest.raises((TypeError, OverflowError, ValueError)):
            call(*args)
        assert call(7, 1, True, "é", "𝄞") == 7


def test_a_list_that_contains_itself_is_refused(em):
    loop: list = []
    loop.append(loop)
    for call in ways(em, "size"):
        with pytest.raises((TypeError, ValueError)):
            call(loop)
