"""The execution manager: upstream's specification against the real thing, sessions, globals, externs, limits."""

from __future__ import annotations

import threading

import pytest

import simple_magic
from simple_magic import (
    CodeInfo, ExecutionResult, Limits, LocalExecutionManager, MirError, SimpleError, Trap, extern, from_json, get_jit_backend, parse_text,
    set_jit_backend, to_json,
)  # fmt: skip

BACKENDS = ("interpreter", "llvm", "cranelift")
ADD = "fn main(a: i64, b: i64) -> i64:\nentry:\n  c = add a, b\n  ret c\n"


@pytest.fixture(params=BACKENDS)
def em(request):
    with LocalExecutionManager(request.param) as manager:
        yield manager


@pytest.fixture
def default_backend():
    before = get_jit_backend()
    yield
    set_jit_backend(before)


# Upstream's execution_manager_spec, case by case


def test_creates_with_auto_backend():
    with LocalExecutionManager.auto_select() as manager:
        assert manager.backend_name in ("cranelift-jit", "llvm-jit")
        assert "auto" in manager.backend_reason


def test_asking_for_cranelift_without_wasmtime_names_the_install_command(monkeypatch):
    monkeypatch.setattr("simple_magic.execution.defaults.find_spec", lambda name: None if name == "wasmtime" else name)
    with pytest.raises(ValueError, match=r"pip install 'simple_magic\[cranelift\]'"):
        LocalExecutionManager.cranelift()
    with LocalExecutionManager.auto_select() as manager:
        assert (manager.backend_name, manager.backend_reason) == ("llvm-jit", "auto: llvm, because wasmtime is not installed")


def test_a_wasmtime_that_is_too_old_is_not_taken(monkeypatch):
    monkeypatch.setattr("simple_magic.execution.defaults.wasmtime_version", lambda: "20.0.0")
    with pytest.raises(ValueError, match=r"needs wasmtime 45 or later, there is 20\.0\.0: pip install"):
        LocalExecutionManager.cranelift()
    with LocalExecutionManager.auto_select() as manager:
        assert manager.backend_name == "llvm-jit" and "there is 20.0.0" in manager.backend_reason
    assert set_jit_backend("cranelift") is False and get_jit_backend() == "auto"


def test_auto_is_cranelift_where_wasmtime_is_installed():
    with LocalExecutionManager.auto_select() as manager:
        assert (manager.backend_name, manager.backend_reason) == ("cranelift-jit", "auto: cranelift, because wasmtime is installed")


def test_reports_has_function_correctly(em):
    assert not em.has_function("nope")
    em.compile(ADD)
    assert em.has_function("main")
    assert not em.has_function("nope")


def test_gets_default_backend_name(default_backend):
    assert get_jit_backend() == "auto"


def test_sets_and_gets_backend(default_backend):
    assert set_jit_backend("cranelift")
    assert get_jit_backend() in ("cranelift", "cranelift-jit")
    assert not set_jit_backend("gcc")
    assert get_jit_backend() in ("cranelift", "cranelift-jit")
    assert set_jit_backend("interpreter")
    with LocalExecutionManager() as manager:
        assert manager.backend_name == "interpreter"


def test_produces_same_results_across_backends():
    answers = []
    for backend in BACKENDS:
        with LocalExecutionManager(backend) as manager:
            manager.compile(ADD)
            answers.append(manager.execute("main", 20, 22))
    assert answers == [42, 42, 42]


def test_backend_names():
    with LocalExecutionManager.llvm() as llvm, LocalExecutionManager.cranelift() as cranelift, LocalExecutionManager.interpreter() as interpreter:
        assert (llvm.backend_name, cranelift.backend_name, interpreter.backend_name) == ("llvm-jit", "cranelift-jit", "interpreter")


# Compiling and running


def test_compile_tells_what_it_defined(em):
    info = em.compile(ADD + "fn other():\nentry:\n  ret\n")
    assert isinstance(info, CodeInfo)
    assert (info.entry_point, info.symbol_names) == ("main", ("main", "other"))
    assert em.compile("fn first():\nentry:\n  ret\n").entry_point == "first"
    assert em.compile("struct P:\n  x: i64\n").entry_point == ""


def test_compile_takes_text_json_and_modules(em):
    module = parse_text(ADD)
    for source in (ADD, to_json(module), module, from_json(to_json(module))):
        em.compile(source)
        assert em.execute("main", 1, 2) == 3
    with pytest.raises(TypeError):
        em.compile(42)


@pytest.mark.parametrize("arity", range(13))
def test_any_arity_with_mixed_types(em, arity):
    kinds = [("i64", 3, 3.0), ("f64", 0.5, 0.5), ("bool", True, 1.0), ("i32", -7, -7.0), ("f32", 0.25, 0.25), ("u8", 200, 200.0), ("text", "héé", 3.0)]
    chosen = [kinds[i % len(kinds)] for i in range(arity)]
    lines, total = [], 0.0
    for index, (kind, _, value) in enumerate(chosen):
        source = f"a{index}"
        if kind == "text":
            lines.append(f"  n{index} = len {source}")
            source = f"n{index}"
        if kind == "bool":
            lines.append(f"  n{index}: i64 = cast {source}")
            source = f"n{index}"
        lines.append(f"  f{index}: f64 = cast {source}" if kind != "f64" else f"  f{index} = copy {source}")
        lines.append(f"  total = add total, f{index}")
        total += value
    params = ", ".join(f"a{i}: {kind}" for i, (kind, _, _) in enumerate(chosen))
    em.compile(f"fn f({params}) -> f64:\nentry:\n  total = const 0.0\n" + "\n".join(lines) + "\n  ret total\n")
    assert em.execute("f", *(value for _, value, _ in chosen)) == total
    with pytest.raises(TypeError, match="argument"):
        em.execute("f", *(value for _, value, _ in chosen), 1)


def test_a_wrong_module_changes_nothing(em):
    em.compile(ADD)
    with pytest.raises(MirError) as caught:
        em.compile("fn main() -> i64:\nentry:\n  x = add 1, 2.0\n  y = sub 1, true\n  ret x\n")
    assert len(caught.value.diagnostics) >= 2
    assert em.last_error and em.execute("main", 1, 1) == 2
    em.clear_error()
    assert em.last_error == ""


def test_execute_captured_returns_the_trap_and_the_output(em):
    em.compile('fn main(x: i64) -> i64:\nentry:\n  print "before"\n  y = div 10, x\n  ret y\n')
    good = em.execute_captured("main", 5)
    assert isinstance(good, ExecutionResult)
    assert (good.value, good.stdout, good.trap, good.exit_code, good.backend) == (2, "before\n", None, 0, em.backend_name)
    bad = em.execute_captured("main", 0)
    assert (bad.trap.kind, bad.stdout, bad.exit_code, bad.trap.span.line) == ("division_by_zero", "before\n", 1, 4)


def test_a_trap_names_its_line_and_its_callers(em):
    em.compile("fn inner(x: i64) -> i64:\nentry:\n  y = div 1, x\n  ret y\nfn main() -> i64:\nentry:\n  z = call inner(0)\n  ret z\n", cell="cell")
    with pytest.raises(Trap) as caught:
        em.execute("main")
    trap = caught.value
    assert (trap.kind, trap.origin.function, trap.span.line) == ("division_by_zero", "inner", 3)
    assert [frame.function for frame in trap.frames] == ["main"]
    assert "cell:3" in str(trap) and "cell:7" in str(trap) and "^" in str(trap)


def test_unknown_functions_are_named_with_a_suggestion(em):
    em.compile(ADD)
    with pytest.raises(MirError, match="did you mean `main`"):
        em.execute("mian")


def test_functions_that_take_code_pointers_are_refused(em):
    em.compile("fn f(g: fn(i64) -> i64) -> i64:\nentry:\n  x = call_indirect g(1)\n  ret x\n")
    with pytest.raises(MirError, match="cannot be called from Python"):
        em.execute("f", None)


# Sessions


def test_redefining_a_callee_reaches_its_callers(em):
    em.compile("fn callee() -> i64:\nentry:\n  ret 1\n")
    em.compile("fn caller() -> i64:\nentry:\n  x = call callee()\n  ret x\n")
    live = em.function("caller")
    assert live() == 1
    em.compile("fn callee() -> i64:\nentry:\n  ret 2\n")
    assert em.execute("caller") == 2 and live() == 2


def test_a_broken_caller_warns_now_and_names_both_cells_when_called(em):
    em.compile("fn callee() -> i64:\nentry:\n  ret 1\n", cell="In[1]")
    em.compile("fn caller() -> i64:\nentry:\n  x = call callee()\n  ret x\n", cell="In[2]")
    info = em.compile("fn callee(x: i64) -> i64:\nentry:\n  ret x\n", cell="In[3]")
    assert any("caller" in note and "In[3]" in note for note in info.notes)
    with pytest.raises(MirError) as caught:
        em.execute("caller")
    assert "In[2]" in str(caught.value) and "In[3]" in str(caught.value)
    em.compile("fn callee() -> i64:\nentry:\n  ret 5\n", cell="In[4]")
    assert em.execute("caller") == 5


def test_globals_live_across_cells_and_back_ends(em):
    em.compile("global counter: i64 = 40\nfn bump() -> i64:\nentry:\n  c = load_global @counter\n  c = add c, 1\n  store_global @counter, c\n  ret c\n")
    assert em.execute("bump") == 41
    em.compile("fn read() -> i64:\nentry:\n  c = load_global @counter\n  ret c\n")
    assert em.execute("read") == 41
    em.set_backend("llvm" if em.backend_name == "interpreter" else "interpreter")
    assert em.execute("bump") == 42
    assert em.globals() == {"counter": 42}


def test_aggregates_in_globals_survive_a_switch_with_identity_and_cycles():
    source = """
class Node:
  value: i64
  next: Node?
global left: Node?
global right: Node?
fn build():
entry:
  n = new Node(value: 1, next: nil)
  s = some n
  set_field n, next, s
  store_global @left, s
  store_global @right, s
  ret
fn poke():
entry:
  s = load_global @left
  n = unwrap s
  set_field n, value, 7
  ret
fn peek() -> i64:
entry:
  s = load_global @right
  n = unwrap s
  t = get_field n, next
  m = unwrap t
  v = get_field m, value
  ret v
"""
    with LocalExecutionManager("llvm") as em:
        em.compile(source)
        em.execute("build")
        em.set_backend("interpreter")
        em.execute("poke")
        em.set_backend("llvm")
        assert em.execute("peek") == 7


def test_a_global_whose_type_changes_is_reset_with_a_word_about_it(em):
    em.compile("struct P:\n  x: i64\nglobal p: P\nfn set():\nentry:\n  set_field @p, x, 5\n  ret\n")
    em.execute("set")
    info = em.compile("struct P:\n  x: i64\n  y: f64\n")
    assert any("`p` was reset" in note and "P" in note for note in info.notes)
    em.compile("fn get() -> i64:\nentry:\n  v = get_field @p, x\n  ret v\n")
    assert em.execute("get") == 0


def test_re_running_a_cell_keeps_the_globals(em):
    source = "global n: i64\nfn bump() -> i64:\nentry:\n  v = load_global @n\n  v = add v, 1\n  store_global @n, v\n  ret v\n"
    em.compile(source)
    em.execute("bump")
    em.compile(source)
    assert em.execute("bump") == 2


def test_cleanup_forgets_everything_and_close_is_final(em):
    em.compile(ADD)
    live = em.function("main")
    em.cleanup()
    assert not em.has_function("main")
    with pytest.raises(MirError):
        live(1, 2)
    em.compile(ADD)
    assert em.execute("main", 1, 2) == 3
    em.close()
    em.close()
    with pytest.raises(SimpleError, match="closed"):
        em.execute("main", 1, 2)


def test_remove(em):
    em.compile(ADD)
    em.remove("main")
    assert em.functions() == ()
    with pytest.raises(MirError):
        em.remove("main")


# Limits


def test_fuel_counts_instructions_as_written(em):
    em.compile("fn f() -> i64:\nentry:\n  a = const 1\n  b = add a, a\n  ret b\n")
    assert em.execute("f", fuel=3) == 2
    with pytest.raises(Trap) as caught:
        em.execute("f", fuel=2)
    assert (caught.value.kind, caught.value.origin.index) == ("out_of_fuel", 0)


def test_timeout(em):
    em.compile("fn f():\nentry:\n  goto entry2\nentry2:\n  goto entry2\n")
    with pytest.raises(Trap) as caught:
        em.execute("f", timeout=0.2)
    assert caught.value.kind == "timeout"
    em.compile(ADD)
    assert em.execute("main", 1, 2) == 3


def test_memory_limit():
    source = "fn f(n: i64) -> i64:\nentry:\n  a = array_fill 0, n\n  l = len a\n  ret l\n"
    for backend in BACKENDS:
        with LocalExecutionManager(backend, limits=Limits(memory=1 << 24)) as em:
            em.compile(source)
            assert em.execute("f", 1000) == 1000
            for n in (2**40, 2**62):
                with pytest.raises(Trap) as caught:
                    em.execute("f", n)
                assert caught.value.kind == "out_of_memory"
            assert em.execute("f", 1000) == 1000


def test_runaway_recursion_is_a_trap(em):
    em.compile("fn f(n: i64) -> i64:\nentry:\n  m = add n, 1\n  r = call f(m)\n  r = add r, 1\n  ret r\n")
    for _ in range(2):
        with pytest.raises(Trap) as caught:
            em.execute("f", 0)
        assert caught.value.kind == "stack_overflow"
        assert len(caught.value.frames) == 64 and caught.value.frames_omitted > 1000


def test_output_limit():
    for backend in BACKENDS:
        with LocalExecutionManager(backend, limits=Limits(output=1000)) as em:
            em.compile('fn f():\nentry:\n  goto again\nagain:\n  print "0123456789"\n  goto again\n')
            result = em.execute_captured("f")
            assert result.trap.kind == "output_limit" and len(result.stdout) <= 1000


def test_a_unit_that_is_too_large_is_refused_before_it_is_compiled():
    with LocalExecutionManager("llvm", limits=Limits(unit_instructions=10)) as em, pytest.raises(MirError, match="E0604"):
        em.compile("fn f():\nentry:\n" + "  nop\n" * 20 + "  ret\n")


# Externs


@extern("fn host_twice(x: f64) -> f64")
def host_twice(x):
    return 2 * x


@extern("fn host_fails(x: i64) -> i64")
def host_fails(x):
    raise LookupError(f"no {x}")


def test_python_externs(em):
    em.compile("extern fn host_twice(x: f64) -> f64\nfn f(x: f64) -> f64:\nentry:\n  y = call host_twice(x)\n  z = add y, 1.0\n  ret z\n")
    assert em.execute("f", 4.0) == 9.0


def test_an_exception_of_an_extern_surfaces_unchanged_with_a_note(em):
    em.compile("extern fn host_fails(x: i64) -> i64\nfn f() -> i64:\nentry:\n  y = call host_fails(3)\n  ret y\n", cell="cell")
    with pytest.raises(LookupError, match="no 3") as caught:
        em.execute("f")
    assert any("host_fails" in note and "cell:4" in note for note in caught.value.__notes__)
    assert em.execute_captured is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_any_exception_passes_through_an_extern(em, error):
    def fail():
        raise error("stop")

    extern("fn host_stops()")(fail)
    em.compile("extern fn host_stops()\nfn f():\nentry:\n  call host_stops()\n  ret\n")
    with pytest.raises(error):
        em.execute("f")
    em.compile(ADD)
    assert em.execute("main", 1, 2) == 3


def test_an_extern_may_call_back_into_its_manager(em):
    @extern("fn host_back(x: i64) -> i64")
    def back(x):
        return em.execute("main", x, 1)

    em.compile(ADD)
    em.compile("extern fn host_back(x: i64) -> i64\nfn f(xs: [i64]) -> i64:\nentry:\n  a = call host_back(41)\n  l = len xs\n  r = add a, l\n  ret r\n")
    assert em.execute("f", [1, 2, 3]) == 45


def test_a_trap_that_passes_through_an_extern_is_never_caught(em):
    extern("fn host_back(x: i64) -> i64")(lambda x: em.execute("thrower"))
    em.compile("""
extern fn host_back(x: i64) -> i64

fn thrower() -> i64:
entry:
  throw 1, 2

fn calls_back() -> i64:
entry:
  a = call host_back(0)
  ret a

fn f() -> i64:
entry:
  a = invoke calls_back() then fine unwind caught(p, t)
fine:
  ret 0
caught:
  ret 1
""")
    with pytest.raises(Trap) as caught:
        em.execute("f")
    assert (caught.value.kind, caught.value.origin.function) == ("uncaught_throw", "thrower")


def test_an_undeclared_or_misdeclared_extern_is_refused(em):
    with pytest.raises(MirError, match="E0611"):
        em.compile("extern fn nobody_offers_this()\n")
    with pytest.raises(MirError, match="E0612"):
        em.compile("extern fn host_twice(x: i64) -> f64\n")


MANAGER_PROGRAM = '''
extern fn rt_exec_manager_create(backend: text) -> i64
extern fn rt_exec_manager_compile(h: i64, mir: text) -> text
extern fn rt_exec_manager_execute(h: i64, name: text, ...) -> i64
extern fn rt_exec_manager_get_last_error(h: i64) -> text
extern fn rt_exec_manager_backend_name(h: i64) -> text
extern fn rt_exec_manager_cleanup(h: i64)

fn main() -> (i64, text, text, text):
entry:
  h = call rt_exec_manager_create("llvm")
  e = call rt_exec_manager_compile(h, "fn f(a: i64, b: f64, c: text) -> i64:\\nentry:\\n  n = len c\\n  t: i64 = cast b\\n  s = add a, t\\n  s = add s, n\\n  ret s\\n")
  r = call rt_exec_manager_execute(h, "f", 30, 9.5, "abc")
  bad = call rt_exec_manager_execute(h, "missing")
  why = call rt_exec_manager_get_last_error(h)
  name = call rt_exec_manager_backend_name(h)
  call rt_exec_manager_cleanup(h)
  answer = tuple r, e, why, name
  ret answer
'''


def test_a_program_compiles_and_runs_another(em):
    em.compile(MANAGER_PROGRAM)
    result, error, why, name = em.execute("main")
    assert (result, error, name) == (42, "", "llvm-jit")
    assert "missing" in why


def test_failures_of_the_manager_externs_are_readable(em):
    em.compile('''
extern fn rt_exec_manager_create(backend: text) -> i64
extern fn rt_exec_manager_compile(h: i64, mir: text) -> text
extern fn rt_exec_manager_compile_source(h: i64, source: text) -> text
extern fn rt_exec_manager_get_last_error(h: i64) -> text
extern fn rt_exec_manager_is_valid(h: i64) -> bool
fn bad_backend() -> (i64, text):
entry:
  h = call rt_exec_manager_create("gcc")
  e = call rt_exec_manager_get_last_error(h)
  r = tuple h, e
  ret r
fn bad_source() -> (text, text, bool):
entry:
  h = call rt_exec_manager_create("interpreter")
  a = call rt_exec_manager_compile(h, "fn f(")
  b = call rt_exec_manager_compile_source(h, "val x = 1")
  v = call rt_exec_manager_is_valid(h)
  r = tuple a, b, v
  ret r
''')
    handle, why = em.execute("bad_backend")
    assert handle == 0 and "gcc" in why
    text_error, source_error, valid = em.execute("bad_source")
    assert "error[E" in text_error and "no front end" in source_error and valid


# Threads


def test_threads_wait_for_each_other_and_all_get_their_answer(em):
    em.compile("fn f(n: i64) -> i64:\nentry:\n  i = const 0\n  goto head\nhead:\n  more = lt i, n\n  if more then body else done\nbody:\n  i = add i, 1\n  goto head\ndone:\n  ret i\n")
    live = em.function("f")
    answers = []

    def work(n):
        answers.extend(live(n) for _ in range(20))

    threads = [threading.Thread(target=work, args=(100 + k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == sorted((100 + k) for k in range(4) for _ in range(20))


def test_the_public_names_are_there():
    for name in simple_magic.__all__:
        assert getattr(simple_magic, name) is not None
    with pytest.raises(AttributeError):
        simple_magic.nothing_of_the_kind  # noqa: B018


HOSTILE_NAMES = ["import_", "lambda", "__class__", "v0", "f0", "None", "os", "ret", "main", "x" * 10_000, "größe", "數", "_", "define", "ptr", "entry"]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda n: n[:12])
def test_names_mean_nothing_to_any_engine(em, name):
    em.compile(f"struct S_{name}:\n  {name}: i64\nfn {name}({name}: i64) -> i64:\n{name}_b:\n  s = new S_{name}({name}: {name})\n  y = get_field s, {name}\n  {name} = add y, 1\n  ret {name}\n")
    assert em.execute(name, 1) == 2 and em.function(name)(41) == 42


@pytest.mark.parametrize("name", ['"; import os', "@llvm.trap", "a b", "a-b", "\u202egnp", "a\0", "f(", "x\n  ret 1", "$f", "1x", "é" + "\u0301" * 40, ""])
def test_what_is_no_name_is_a_diagnostic(em, name):
    with pytest.raises(MirError) as caught:
        em.compile(f"fn {name}() -> i64:\nentry:\n  ret 1\n")
    assert caught.value.diagnostics[0].code.startswith("E0")
