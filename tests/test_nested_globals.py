"""Externs that use the manager whose program called them."""

from __future__ import annotations

import itertools

import pytest

from simple_magic import LocalExecutionManager, extern

ENGINES = [("interpreter", False), ("llvm", False), ("cranelift", False), ("llvm", True)]


@pytest.fixture(params=ENGINES, ids=lambda p: p[0] + " isolated" * p[1])
def em(request):
    backend, isolated = request.param
    with LocalExecutionManager(backend, isolated=isolated) as manager:
        yield manager


SHARED = """
extern fn host_new_cell() -> i64
class P:
  x: i64
global g: [P]
fn main() -> i64:
e:
  p = new P(x: 1)
  push @g, p
  h = call host_new_cell()
  set_field p, x, 5
  q = index_get @g, 0
  r = get_field q, x
  r = add r, h
  ret r
"""


def test_new_globals_of_a_nested_call_leave_those_of_the_program_alone(em):
    """The program's local and its global stay one object, and what it wrote before is what the nested call reads."""
    numbers = itertools.count()

    @extern("fn host_new_cell() -> i64")
    def host_new_cell():
        n = next(numbers)
        em.compile(f"class P:\n  x: i64\nglobal g: [P]\nglobal extra{n}: i64 = 300\nfn nested() -> i64:\ne:\n  p = index_get @g, 0\n  x = get_field p, x\n  r = add @extra{n}, x\n"
                   f"  store_global @extra{n}, r\n  ret r\n")  # fmt: skip
        return em.execute("nested")

    em.compile(SHARED)
    assert em.execute("main") == 306
    assert em.globals()["g"][0].x == 5 and em.globals()["extra0"] == 301
    assert em.execute("main") == 310
    assert [p.x for p in em.globals()["g"]] == [5, 5] and em.globals()["extra1"] == 305
