"""What only the Cranelift back end has: WebAssembly as bytes and text, control flow rebuilt from graphs, its own memory and stack accounts."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

wasmtime = pytest.importorskip("wasmtime")

from simple_magic import Limits, LocalExecutionManager, MirError, Trap, extern, parse_text  # noqa: E402
from simple_magic.backends import cranelift, cranelift_emit, wasm  # noqa: E402
from simple_magic.backends.wasm_control import reducible, structured  # noqa: E402
from simple_magic.backends.wasmtime_engine import compile_module, new_engine  # noqa: E402
from simple_magic.mir.analysis import is_reducible, live_after, successors  # noqa: E402

# Bytes and text


@pytest.mark.parametrize(("number", "encoded"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (624485, b"\xe5\x8e\x26")])
def test_unsigned_numbers(number, encoded):
    assert wasm.unsigned(number) == encoded


@pytest.mark.parametrize(("number", "encoded"), [(0, b"\0"), (63, b"\x3f"), (64, b"\xc0\0"), (-1, b"\x7f"), (-64, b"\x40"), (-123456, b"\xc0\xbb\x78"),
                                                 (-(2**63), b"\x80" * 9 + b"\x7f")])  # fmt: skip
def test_signed_numbers(number, encoded):
    assert wasm.signed(number) == encoded


def code_of_every_kind() -> tuple[wasm.Instruction, ...]:
    """Return a body with every instruction that there is, each behind an `unreachable`, so that any operand types will do."""
    immediates = {
        "index": (0,), "signed": (-7,), "memory": (8,), "f32": (0x7FC00001,), "f64": (0x7FF0000000000000,), "block": (), "table": ((0, 0), 0),
        "indirect": (wasm.FuncType((), ()),),
    }  # fmt: skip
    code: list[wasm.Instruction] = []
    for name, (_, kind) in wasm.INSTRUCTIONS.items():
        if name in ("end", "else"):
            continue
        code += [("unreachable",), (name, *(immediates[kind] if kind else ()))]
        if kind == "block":
            code += [("else",), ("end",)] if name == "if" else [("end",)]
    return (*code, ("unreachable",))


def test_every_instruction_is_encoded_and_printed_as_the_engine_reads_it():
    function = wasm.Function(wasm.FuncType((wasm.I32,), ()), (), code_of_every_kind(), "f", "all")
    module = wasm.Module((wasm.Import("host", "g", wasm.FuncType((wasm.F64,), (wasm.F32,))),), (function,), 2, (1,))
    with new_engine() as engine:
        wasmtime.Module.validate(engine, module.encode())
    assert wasmtime.wat2wasm(module.to_text()) == _without_custom_sections(module)


def _without_custom_sections(module: wasm.Module) -> bytes:
    """wat2wasm writes what we write, but for the names of functions that it keeps in a custom section at the end."""
    encoded, text = module.encode(), bytes(wasmtime.wat2wasm(module.to_text()))
    assert text[: len(encoded)] == encoded, "text and bytes say different things"
    return text


def test_floats_are_printed_exactly():
    values = {0: "0x0.0p+0", 1 << 63: "-0x0.0p+0", 0x7FF0000000000000: "inf", 0xFFF0000000000000: "-inf", 0x7FF8000000000000: "nan:0x8000000000000", 1: "0x0.0000000000001p-1022"}
    for bits, text in values.items():
        assert wasm._text_of(("f64.const", bits)) == f"f64.const {text}"


def test_no_name_of_the_user_reaches_the_engine():
    with LocalExecutionManager("cranelift") as em:
        em.compile('fn secret_name(inner_param: i64) -> text:\ninner_label:\n  inner_local = add inner_param, 1\n  ret "inner text"\n')
        program = em.compiled("secret_name").program
        data = program.wasm.encode()
        for name in (b"secret", b"inner"):
            assert name not in data
        assert ";; secret_name" in program.wat and "inner" not in program.wat


# Control flow


def random_graph(seed: int, blocks: int) -> str:
    """Return a function whose blocks end in random branches, back and forth; it counts down to its end."""
    pick = random.Random(seed)
    lines = ["fn f(seed: i64) -> i64:", "entry:", "  left = const 60", "  x = copy seed", "  goto b0"]
    for number in range(blocks):
        targets = [f"b{pick.randrange(blocks)}" for _ in range(pick.randint(1, 4))]
        lines += [f"b{number}:", f"  x = mul x, {2 * pick.randrange(1, 50) + 1}", f"  x = add x, {number}", "  left = sub left, 1", "  over = lt left, 0",
                  f"  if over then out else c{number}", f"c{number}:"]  # fmt: skip
        if len(targets) == 1:
            lines.append(f"  goto {targets[0]}")
        elif len(targets) == 2:
            lines += ["  bit = bit_and x, 1", "  odd = eq bit, 1", f"  if odd then {targets[0]} else {targets[1]}"]
        else:
            cases = ", ".join(f"{index}: {label}" for index, label in enumerate(targets[:-1]))
            lines += ["  bits = bit_and x, 3", f"  switch bits [{cases}] else {targets[-1]}"]
    return "\n".join((*lines, "out:", "  ret x", ""))


def test_any_graph_of_blocks_keeps_its_meaning():
    irreducible = 0
    with LocalExecutionManager("interpreter") as expected, LocalExecutionManager("cranelift") as got:
        for seed in range(120):
            source = random_graph(seed, 2 + seed % 11)
            irreducible += not is_reducible(parse_text(source).functions[0])
            for em in (expected, got):
                em.compile(source)
            for argument in (1, 2, 3, 12345):
                assert got.execute("f", argument) == expected.execute("f", argument), source
    assert irreducible > 30, "the graphs are too tame"


def test_structure_has_every_block_once_and_every_target_in_scope():
    em = LocalExecutionManager("interpreter")
    for seed in range(60):
        em.compile(random_graph(seed, 9))
        function = reducible(em.session.unit_of("f").module.functions[0])
        assert is_reducible(function)
        blocks = {b.label: b for b in function.blocks}
        scopes, seen = [], []
        for step in structured(function):
            if step.kind == "code":
                seen.append(step.label)
                assert set(successors(blocks[step.label])) <= set(scopes)
            elif step.kind == "end":
                scopes.pop()
            else:
                scopes.append(step.label)
        assert sorted(seen) == sorted(set(seen)) and not scopes


def test_large_and_deep_functions_compile():
    nested = ["fn f(n: i64) -> i64:", "entry:", "  s = const 0", "  goto h0"]
    for depth in range(101):
        nested += [f"h{depth}:", "  s = add s, 1", f"  more{depth} = lt s, n", f"  if more{depth} then {f'h{depth + 1}' if depth < 100 else 'h100'} else x{depth}"]
        nested += [f"x{depth}:", f"  goto {f'h{depth - 1}' if depth else 'out'}"] if depth < 1 else [f"x{depth}:", f"  done{depth} = ge s, n", f"  if done{depth} then out else h{depth - 1}"]
    nested += ["out:", "  ret s", ""]
    chain = "fn g() -> i64:\nentry:\n  s = const 0\n  goto b0\n" + "".join(f"b{i}:\n  s = add s, {i}\n  goto b{i + 1}\n" for i in range(5_000)) + "b5000:\n  ret s\n"
    many = "fn h(x: i64) -> i64:\nentry:\n" + "".join(f"  t{i} = add {f't{i - 1}' if i else 'x'}, 1\n" for i in range(60_000)) + "  ret t59999\n"
    with LocalExecutionManager("cranelift") as em:
        em.compile("\n".join(nested))
        em.compile(chain)
        em.compile(many)
        assert em.execute("f", 500) == 500
        assert em.execute("g") == sum(range(5_000))
        assert em.execute("h", 1) == 60_001


def test_too_many_locals_at_a_time_are_refused_by_name():
    text = "fn wide(x: i64) -> i64:\nentry:\n" + "".join(f"  t{i} = add x, {i}\n" for i in range(50_001)) + "  goto on\non:\n  s = const 0\n"
    text += "".join(f"  s = add s, t{i}\n" for i in range(50_001)) + "  ret s\n"
    with LocalExecutionManager("cranelift") as em:
        em.compile(text)
        with pytest.raises(MirError, match="`wide` is too large for the Cranelift back end"):
            em.execute("wide", 1)


def test_live_locals_behind_an_instruction():
    function = parse_text("fn f(a: i64, b: i64) -> i64:\nentry:\n  c = add a, 1\n  nop\n  d = add b, c\n  nop\n  ret d\n").functions[0]
    assert live_after(function, "nop") == {("entry", 1): ("b", "c"), ("entry", 3): ("d",)}


# Memory


AXPY = """
extern fn look(xs: [f64]) -> f64
fn scale(xs: [f64], by: f64, upto: i64):
entry:
  i = const 0
  goto head
head:
  more = lt i, upto
  if more then body else done
body:
  x = index_get xs, i
  x = mul x, by
  index_set xs, i, x
  i = add i, 1
  goto head
done:
  ret

fn shift(to: [f64], source: [f64]):
entry:
  x = index_get source, 0
  index_set to, 0, x
  x = index_get source, 1
  index_set to, 1, x
  ret

fn first(xs: [f64]) -> f64:
entry:
  x = index_get xs, 0
  ret x

fn asked(xs: [f64]) -> f64:
entry:
  index_set xs, 0, 7.0
  seen = call look(xs)
  x = index_get xs, 1
  s = add seen, x
  ret s
"""


SEEN = []
LENT = np.zeros(2)


@extern("fn look([f64]) -> f64")
def look(xs):
    SEEN.append((xs, LENT.tolist()))
    LENT[1] = 5.0
    return 1.0


@pytest.fixture
def em():
    with LocalExecutionManager("cranelift") as made:
        made.compile(AXPY)
        yield made


def test_writes_into_numpy_arrays_arrive(em):
    xs = np.array([1.0, 2.0, 3.0])
    em.execute("scale", xs, 2.0, 3)
    assert xs.tolist() == [2.0, 4.0, 6.0]


def test_writes_before_a_trap_arrive_too(em):
    xs = np.array([1.0, 2.0])
    with pytest.raises(Trap, match="index_out_of_bounds"):
        em.execute("scale", xs, 2.0, 3)
    assert xs.tolist() == [2.0, 4.0]


def test_overlapping_arrays_overlap_in_the_program(em):
    xs = np.array([1.0, 2.0, 3.0])
    em.execute("shift", xs[1:], xs[:2])
    assert xs.tolist() == [1.0, 1.0, 1.0]


def test_a_host_function_sees_writes_and_its_own_arrive(em):
    SEEN.clear()
    LENT[:] = 1.0, 2.0
    assert em.execute("asked", LENT) == 6.0
    assert SEEN == [([7.0, 2.0], [7.0, 2.0])] and LENT.tolist() == [7.0, 5.0]


def test_large_arrays_do_not_fit_a_small_memory():
    with LocalExecutionManager("cranelift", limits=Limits(memory=1 << 20)) as em:
        em.compile(AXPY)
        with pytest.raises(Trap, match="out_of_memory"):
            em.execute("first", np.zeros(1 << 20))
        assert em.execute("first", np.ones(3)) == 1.0


def test_more_memory_than_addresses_is_refused():
    with LocalExecutionManager("cranelift", limits=Limits(memory=5 << 30)) as em:
        em.compile("fn f() -> i64:\nentry:\n  ret 1\n")
        with pytest.raises(MirError, match="E0608"):
            em.execute("f")


# The stack


DEEP = "fn deep(n: i64) -> i64:\nentry:\n  done = le n, 0\n  if done then out else on\non:\n  m = sub n, 1\n  r = call deep(m)\n  r = add r, 1\n  ret r\nout:\n  ret 0\n"


@pytest.mark.parametrize("size", [None, 512 * 1024])
def test_recursion_ends_in_a_trap_in_any_thread(size):
    ends = []

    def work():
        with LocalExecutionManager("cranelift") as em:
            em.compile(DEEP)
            for _ in range(2):
                try:
                    em.execute("deep", 10**7)
                except Trap as trap:
                    ends.append((trap.kind, trap.span.line))
            ends.append(em.execute("deep", 500))

    if size is None:
        work()
    else:
        before = threading.stack_size(size)
        thread = threading.Thread(target=work)
        thread.start()
        threading.stack_size(before)
        thread.join()
    assert ends == [("stack_overflow", 7), ("stack_overflow", 7), 500]


def test_the_engines_own_check_stands_behind_ours(monkeypatch):
    monkeypatch.setattr(cranelift_emit, "frame_bytes", lambda _function: 0)
    with LocalExecutionManager("cranelift") as em:
        em.compile(DEEP)
        with pytest.raises(Trap, match="stack_overflow"):
            em.execute("deep", 10**7)
        live = em.function("deep")
        assert live(10) == live(10) == 10
        with pytest.raises(Trap, match="stack_overflow"):
            live(10**7)
        assert live(10) == 10


def test_a_broken_module_is_a_diagnostic():
    module = wasm.Module((), (wasm.Function(wasm.FuncType((), (wasm.I32,)), (), (("f64.const", 0),), "f"),), 1)
    with new_engine() as engine, pytest.raises(MirError, match="E0607"):
        compile_module(engine, module.encode())


def test_nothing_is_unsupported():
    assert cranelift.UNSUPPORTED == ()


# NumPy arrays on the native call path


def test_native_calls_copy_arrays_in_and_back(em):
    scale, first, shift = (em.function(name) for name in ("scale", "first", "shift"))
    xs = np.arange(1.0, 4.0)
    frozen = xs.copy()
    frozen.flags.writeable = False
    for _ in range(3):  # the first call goes through the manager
        xs[:] = 1.0, 2.0, 3.0
        scale(xs, 2.0, 3)
        assert xs.tolist() == [2.0, 4.0, 6.0]
        with pytest.raises(Trap, match="index_out_of_bounds"):
            scale(xs, 2.0, 4)
        assert xs.tolist() == [4.0, 8.0, 12.0]
        xs[:] = 1.0, 2.0, 3.0
        shift(xs[1:], xs[:2])
        assert xs.tolist() == [1.0, 1.0, 1.0]
        assert first(np.array([5.0])) == 5.0
        with pytest.raises(Trap):
            first(np.zeros(0))
        assert first([7.0]) == 7.0
    with pytest.raises(TypeError, match="read-only"):
        scale(frozen, 2.0, 3)


def test_native_calls_with_arrays_too_large_for_the_memory():
    with LocalExecutionManager("cranelift", limits=Limits(memory=1 << 20)) as em:
        em.compile(AXPY)
        first = em.function("first")
        for _ in range(2):
            assert first(np.ones(3)) == 1.0
            with pytest.raises(Trap, match="out_of_memory"):
                first(np.zeros(1 << 20))


# What is refused, and where the engine itself would stop


@pytest.mark.parametrize("stack", [64 << 10, 1793 << 10, 8 << 20, 1 << 40])
def test_any_stack_limit_ends_in_our_trap_with_its_place(stack):
    parameters = ", ".join(f"p{i}: i64" for i in range(300))
    source = f"fn main({parameters}) -> i64:\nentry:\n  r = call main({', '.join(f'p{i}' for i in range(300))})\n  s = add r, p0\n  ret s\n"
    with LocalExecutionManager("cranelift", limits=Limits(stack=stack)) as em:
        em.compile(source)
        with pytest.raises(Trap) as caught:
            em.execute("main", *range(300))
    assert (caught.value.kind, caught.value.span.line) == ("stack_overflow", 3)


def test_a_stack_limit_that_is_raised_later_counts():
    source = "fn main(n: i64) -> i64:\nentry:\n  is_last = eq n, 0\n  if is_last then done else more\nmore:\n  m = sub n, 1\n  r = call main(m)\n  s = add r, 1\n  ret s\ndone:\n  ret 0\n"
    with LocalExecutionManager("cranelift", limits=Limits(stack=64 << 10)) as em:
        em.compile(source)
        for call in (lambda: em.execute("main", 3000), lambda: em.function("main")(3000)):
            with pytest.raises(Trap, match="nested too deeply"):
                call()
        with em.limited(stack=1 << 20):
            assert em.execute("main", 3000) == 3000


def test_ordinary_recursion_is_as_deep_as_people_expect():
    source = "fn main(n: i64) -> i64:\nentry:\n  is_last = eq n, 0\n  if is_last then done else more\nmore:\n  m = sub n, 1\n  r = call main(m)\n  s = add r, 1\n  ret s\ndone:\n  ret 0\n"
    with LocalExecutionManager("cranelift") as em:
        em.compile(source)
        assert em.execute("main", 10_000) == 10_000


def test_too_many_parameters_are_refused_by_name():
    source = f"fn main({', '.join(f'p{i}: i64' for i in range(1100))}) -> i64:\nentry:\n  ret p0\n"
    with LocalExecutionManager("cranelift") as em:
        em.compile(source)
        with pytest.raises(MirError, match=r"E0607.*`main` has 11\d\d parameters; the Cranelift back end takes 1000"):
            em.execute("main", *range(1100))


def test_the_text_form_of_deep_nesting_stays_small():
    cases = 1500
    arms = "".join(f"a{i}:\n  ret {i}\n" for i in range(cases))
    source = f"fn main(n: i64) -> i64:\nentry:\n  switch n [{', '.join(f'{i}: a{i}' for i in range(cases))}] else last\n{arms}last:\n  ret -1\n"
    with LocalExecutionManager("cranelift") as em:
        em.compile(source)
        assert em.execute("main", 7) == 7 and len(em.function("main").wat) < 400 * cases
