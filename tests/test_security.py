"""Programs and their texts are untrusted: they reach neither memory outside the heap, nor Python names, nor the page that shows them."""

from __future__ import annotations

import json

import pytest

from simple_magic import LocalExecutionManager, MirError, Trap, parse_text, to_json
from simple_magic.kernels import running_kernel
from simple_magic.mir.model import Block, Function, Instruction, Module, const
from simple_magic.mir.ops import OPS, USER_OPS
from simple_magic.mir.types import I64

BACKENDS = ["interpreter", "llvm", "cranelift"]
INTERNAL = sorted(set(OPS) - set(USER_OPS))
WILD = 0x7F00_0000_0000


@pytest.fixture(params=BACKENDS)
def em(request):
    with LocalExecutionManager(request.param) as manager:
        yield manager


# Internal operations: each reaches memory, the host or the stack without checks

LOAD = to_json(parse_text("fn main() -> i64:\nentry:\n  p = alloc i64, 4\n  x = load p\n  ret x\n"))


def smuggled(op: str, **more: object) -> dict:
    """Return the JSON of a program with one instruction replaced by `op` on a wild address."""
    program = json.loads(json.dumps(LOAD))
    (function,) = program["functions"]
    instruction = {"op": op, "args": [{"Const": {"value": {"Int": WILD}, "type": "I64"}}], "dest": 1, "type": "I64", **more}
    function["blocks"][0]["instructions"][1] = {"Instruction": instruction}
    return program


@pytest.mark.parametrize("more", [{}, {"attributes": {"offset": 8, "alias": "control"}}, {"attributes": {"site": 0}}, {"internal": True}], ids=str)
@pytest.mark.parametrize("op", INTERNAL)
def test_internal_operations_are_refused_in_json(em, op, more):
    with pytest.raises(MirError):
        em.compile(smuggled(op, **more))
    assert em.functions() == ()


@pytest.mark.parametrize("op", INTERNAL)
def test_internal_operations_are_refused_in_text_and_in_models(em, op):
    with pytest.raises(MirError, match="E0012"):
        em.compile(f"fn main() -> i64:\nentry:\n  x = {op} i64, {WILD}\n  ret 0\n")
    for instruction in (Instruction(op, (const(I64, WILD),), dest="x", type=I64), Instruction(op, (const(I64, WILD),))):
        body = Block("entry", (instruction, Instruction("ret", (const(I64, 0),))))
        with pytest.raises(MirError):
            em.compile(Module(functions=(Function("main", (), I64, (body,)),)))


@pytest.mark.parametrize("attributes", [{"offset": WILD}, {"alias": "control"}, {"site": 10**6}, {"frame": -(2**40)}], ids=str)
def test_attributes_in_json_change_no_access(em, attributes):
    """They are refused or have no effect, never an offset that is added unchecked."""
    program = smuggled("load", args=[{"Copy": 0}], attributes=attributes)
    del program["functions"][0]["blocks"][0]["instructions"][1]["Instruction"]["type"]
    try:
        em.compile(program)
    except MirError:
        return
    assert em.execute("main") == 0


@pytest.mark.parametrize("source", [
    "fn main() -> i64:\nentry:\n  p = call rt.alloc(8)\n  ret p\n", "fn rt.alloc(n: i64) -> i64:\nentry:\n  ret 99999999999\n",
    "fn thunk$main$0(n: i64) -> i64:\nentry:\n  ret n\n", "extern fn rt_print(t: text)\n", "extern fn rt_float_text(t: i64) -> [i64]\n",
    "extern fn system(t: text) -> i64\n", "extern fn puts(t: text) -> i64\n",
])  # fmt: skip
def test_the_runtime_and_the_c_library_cannot_be_named(em, source):
    with pytest.raises(MirError, match=r"E0009|E0202|E0213|E0611"):
        em.compile(source)
        em.execute("main")


# Pointers

ACCESS = """fn main(blocks: i64, i: i64) -> {t}:
entry:
  p = alloc {t}, blocks
  q = gep p, i
  {what}
  ret x
"""


@pytest.mark.parametrize("what", ["x = load q", "x = load p\n  store q, x"])
@pytest.mark.parametrize("t", ["i8", "i64", "f64", "bool"])
@pytest.mark.parametrize(("count", "index"), [
    (4, -1), (4, 4), (4, 2**31), (4, 2**40), (4, 2**60), (4, 2**61), (4, 2**63 - 1), (4, -(2**63)), (4, -(2**61)), (0, 0), (1, 1), (4, WILD), (4, -WILD),
])  # fmt: skip
def test_pointers_are_checked(em, what, t, count, index):
    em.compile(ACCESS.format(t=t, what=what))
    with pytest.raises(Trap) as caught:
        em.execute("main", count, index)
    assert caught.value.kind == "bad_pointer"


@pytest.mark.parametrize("source", [
    *(f"fn main() -> i64:\nentry:\n  p: ptr<i64> = {op} {WILD}\n  x = load p\n  ret x\n" for op in ("cast", "bitcast", "const", "copy")),
    "fn main() -> i64:\nentry:\n  a = alloc i8, 8\n  p: ptr<i64> = cast a\n  x = load p\n  ret x\n",
    "fn main() -> i64:\nentry:\n  p: ptr<i64> = zero\n  x = load p\n  ret x\n", "fn main() -> i64:\nentry:\n  f: fn() -> i64 = zero\n  x = call_indirect f()\n  ret x\n",
    "global g: ptr<i64>?\n", "global g: [fn() -> i64]\n", "class C:\n  p: ptr<i64>?\nglobal g: C?\n", "extern fn host(p: ptr<i64>)\n",
    "fn h(a: [i64]) -> i64:\nentry:\n  ret 0\nfn main() -> i64:\nentry:\n  f: fn(i64) -> i64 = func h\n  n = call_indirect f(12345)\n  ret n\n",
])  # fmt: skip
def test_no_number_becomes_an_address_and_no_address_outlives_a_call(em, source):
    with pytest.raises(MirError):
        em.compile(source)


@pytest.mark.parametrize("source", [
    "class C:\n  p: ptr<i64>?\nfn main() -> C:\nentry:\n  p = ref 5\n  s = some p\n  c = new C(p: s)\n  ret c\n",
    "struct S:\n  f: [fn() -> unit]\nfn main() -> S:\nentry:\n  f: [fn() -> unit] = array\n  s = new S(f: f)\n  ret s\n",
])  # fmt: skip
def test_no_pointer_inside_an_object_leaves_for_python(em, source):
    em.compile(source)
    with pytest.raises(MirError, match="E0603"):
        em.execute("main")
    with pytest.raises(MirError, match="E0603"):
        em.function("main")()


# The notebook

HOSTILE = [
    "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", '"><svg onload=alert(1)>', "javascript:alert(1)", "[x](javascript:alert(1))", "&#x3c;b&#x3e;",
    "\\u{1b}]8;;http://evil\\u{1b}\\\\link", "\\u{1b}[2J\\u{1b}]0;title\\u{7}", "\\\\href{javascript:alert(1)}{x}", "\\u{202e}txt.exe",
]  # fmt: skip
MARKUP = ("<img", "<script", "</script", "<svg onload", "onerror=alert(1)>", 'href="javascript', "href='javascript")
RICH = ("text/html", "image/svg+xml", "text/markdown", "text/latex", "application/javascript")


@pytest.fixture(scope="module")
def kernel():
    with running_kernel() as running:
        assert running.run("%load_ext simple_magic").error is None
        yield running


def quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def harmless(outcome) -> None:
    for bundle in outcome.displayed:
        assert "application/javascript" not in bundle
        for kind in RICH:
            text = "".join(bundle.get(kind, ""))
            assert not any(markup in text for markup in MARKUP), (kind, text)
        for kind, text in bundle.items():
            if kind in (*RICH, "text/plain"):
                assert not {"\x1b", "\x07", "\u202e"} & set("".join(text)), (kind, text)
    if outcome.error is not None:
        name, value, _ = outcome.error
        assert not {"\x1b", "\x07", "\u202e"} & set(name + value), value


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_programs_are_shown_as_text(kernel, text):
    source = f"struct Box:\n  t: text\nglobal kept: text\nfn main() -> Box:\nentry:\n  t = const {quoted(text)}\n  store_global @kept, t\n  b = new Box(t: t)\n  ret b\n"
    shown = kernel.run(f"%%simple_jit main --show mir,ir,asm,cfg,timings\n# {text}\n{source}")
    assert shown.error is None and shown.displayed
    harmless(shown)
    for command in ("ls", "show main mir,ir,asm,wat,cfg,json", "show kept", "status", "compare main", "call main"):
        harmless(kernel.run(f"%simple {command}"))


@pytest.mark.parametrize("text", HOSTILE)
def test_messages_are_shown_as_text(kernel, text):
    for body in (f"  no = const false\n  assert no, {quoted(text)}", f"  x = frobnicate {quoted(text)}", f"  {text}", f'  x: i64 = const {quoted(text)}'):
        outcome = kernel.run(f"%%simple_jit main\nfn main():\nentry:\n{body}\n  ret\n")
        assert outcome.error is not None
        harmless(outcome)
    for command in (f"explain {text}", f"ops {text}", f"show {text}", f"call {text}", text):
        harmless(kernel.run(f"%simple {command}"))


def test_a_cell_sees_no_python_names(kernel):
    kernel.run("secret = 41\ndef helper(x): return x + 1\nimport os")
    for name, source in (
        ("secret", "fn main() -> i64:\nentry:\n  r = add secret, 1\n  ret r\n"), ("secret", "fn main() -> i64:\nentry:\n  r = add @secret, 1\n  ret r\n"),
        ("helper", "fn main() -> i64:\nentry:\n  r = call helper(1)\n  ret r\n"), ("helper", "extern fn helper(x: i64) -> i64\nfn main() -> i64:\nentry:\n  r = call helper(1)\n  ret r\n"),
        ("os", "extern fn os.getpid() -> i64\nfn main() -> i64:\nentry:\n  r = call os.getpid()\n  ret r\n"), ("{secret}", 'fn main() -> i64:\nentry:\n  r = add {secret}, 1\n  ret r\n'),
        ("$secret", "fn main() -> i64:\nentry:\n  r = add $secret, 1\n  ret r\n"),
    ):  # fmt: skip
        outcome = kernel.run(f"%%simple_jit main\n{source}")
        assert outcome.error is not None and "41" not in outcome.error[1] and "42" not in outcome.text, name
    assert kernel.run('%%simple_jit main\nfn main() -> text:\nentry:\n  ret "{secret} $secret"\n', v="main()").expressions == {"v": "'{secret} $secret'"}


def test_arguments_are_literals_not_expressions(kernel):
    echo = "fn main(a: text) -> text:\nentry:\n  ret a\n"
    for argument in ("__import__('os').getcwd()", "open('/etc/passwd').read()", "[x for x in (1,)]", "secret"):
        outcome = kernel.run(f'%%simple_jit main --args "{argument}"\n{echo}', ran="True")
        assert outcome.error is not None or argument in outcome.text
