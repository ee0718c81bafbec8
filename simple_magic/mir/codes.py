"""What is behind each diagnostic code: a paragraph, a wrong example and a right one.

    E00xx  reading text                 E04xx  definitions, and what may not leave a program
    E01xx  types and operands           E05xx  reading JSON
    E02xx  names                        E06xx  sessions, back ends and limits
    E03xx  control flow and assignment  W03xx  warnings

The examples are checked by a test: the wrong one gives this code, the right one none. `language` says what they are: MIR text, JSON, or Python, where a
rule cannot be broken in text.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .diagnostics import Diagnostic, MirError


@dataclass(frozen=True)
class CodeInfo:
    """What is known about a code. `wrong` and `right` are complete programs in `language`: "mir", "json" or "python"; `right` may be empty."""

    title: str
    paragraph: str
    wrong: str
    right: str
    language: str = "mir"


def explain(code: str) -> str:
    """Return the paragraph behind a code with its examples. Raises: MirError for a code that does not exist."""
    info = CODES.get(code.upper())
    if info is None:
        near = difflib.get_close_matches(code.upper(), CODES, 1)
        raise MirError([Diagnostic("E0605", f"there is no code `{code}`", help=f"did you mean `{near[0]}`?" if near else "codes look like E0101")])
    parts = [f"{code.upper()}: {info.title}", "", info.paragraph]
    for title, example in (("Wrong", info.wrong), ("Right", info.right)):
        if example:
            parts += ["", f"{title}:", "", *("    " + line if line else "" for line in example.strip("\n").split("\n"))]
    return "\n".join(parts)


def _body(text: str, head: str = "fn f():", end: str = "ret") -> str:
    """Return a function of one block."""
    lines = [f"  {line}" for line in (*text.split("\n"), *([end] if end else []))]
    return "\n".join((head, "entry:", *lines)) + "\n"


def _json(more: str = "") -> str:
    """Return a module as JSON with one more key."""
    return f'{{"version": 1, "functions": []{", " + more if more else ""}}}'


IN_USE = '''\
from simple_magic import LocalExecutionManager, extern

em = LocalExecutionManager("interpreter")

@extern("fn explained_change()")
def change():
    em.compile("global {}: f64")

em.compile("global g: i64\\nextern fn explained_change()\\nfn f():\\nentry:\\n  call explained_change()\\n  ret")
em.execute("f")
'''

CODES: dict[str, CodeInfo] = {
    # Reading text
    "E0001": CodeInfo(
        "invisible character",
        "A control character, a mark that changes the direction of writing, or another character that a reader cannot see stands in the source. "
        "The text could mean something else than it shows. In a text or char literal write it as an escape.",
        _body('print "a\u202eb"'), _body('print "a\\u{202e}b"')),
    "E0002": CodeInfo(
        "unknown character", "A character that begins nothing: no name, number, literal or punctuation of the language.",
        _body("x = add 1 ~ 2"), _body("_x = add 1, 2")),
    "E0003": CodeInfo(
        "literal without its end", "A text or char literal must end on its line. A line break in a text is written \\n.",
        _body('print "abc'), _body('print "abc"')),
    "E0004": CodeInfo(
        "unknown escape", "The escapes are \\n \\t \\r \\0 \\\" \\' \\\\ and \\u{...} with one to six hexadecimal digits of a Unicode scalar value.",
        _body('print "a\\q"'), _body('print "a\\\\q"')),
    "E0005": CodeInfo("char of several code points", "A char holds exactly one code point; several make a text, in double quotes.",
                      _body("print 'ab'"), _body('print "ab"')),
    "E0006": CodeInfo(
        "not a number", "A number is decimal or 0x hexadecimal digits, or a decimal float, and may end in the name of its type: 255u8, 1.5f32.",
        _body("print 12abc"), _body("print 12i16")),
    "E0007": CodeInfo(
        "number out of range", "The value does not fit its type. Without a suffix an integer is i64 and a float f64.",
        _body("print 300u8"), _body("print 300u16")),
    "E0008": CodeInfo(
        "reserved word", "Item keywords, `true false nil inf nan inff32 nanf32` and `move` cannot be names. Opcodes can.",
        _body("nan = const 1"), _body("_number = const 1")),
    "E0009": CodeInfo(
        "not a name", "A name is a letter or _, then letters, digits and _. `$` stands only in names that passes make.",
        _body("a$b = const 1"), _body("_ab = const 1")),
    "E0010": CodeInfo("something else is expected", "The line does not continue as the grammar says; the message names what could stand here.",
                      "fn f()\nentry:\n  ret\n", "fn f():\nentry:\n  ret\n"),
    "E0011": CodeInfo("unknown operation", "The word is not in the table of opcodes. `%simple ops` lists them, in a shell `python -m simple_magic ops`.",
                      _body("x = plus 1, 2"), _body("_x = add 1, 2")),
    "E0012": CodeInfo("internal operation in a program", "Some operations are made by passes only (fuel, lowering, the runtime) and have no meaning in a program as written.",
                      _body("charge"), _body("nop")),
    "E0013": CodeInfo("line outside", "A line stands where none of its kind can: an instruction before the first label, or something outside every item.",
                      "fn f():\n  ret\n", "fn f():\nentry:\n  ret\n"),
    "E0014": CodeInfo("nested too deeply", "Types and operands nest at most 64 levels, and a place has at most 64 hops.",
                      "global g: " + "[" * 70 + "i64" + "]" * 70 + "\n", "global g: [[i64]]\n"),
    "E0015": CodeInfo("function without a body", "After `fn ...:` come labels and instructions. A function of the host is declared with `extern fn`.",
                      "fn f():\n", "fn f():\nentry:\n  ret\n"),
    "E0016": CodeInfo("two module names", "A source names its module at most once.", "module a\nmodule b\n", "module a\n"),
    "E0017": CodeInfo("wrong number of operands", "The operation takes more or fewer operands; the help shows how it is written.",
                      _body("x = add 1"), _body("_x = add 1, 2")),
    "E0018": CodeInfo("source too long", "One source holds at most 64 million characters.",
                      'from simple_magic import parse_text\n\nparse_text("#" * (64 * 1024 * 1024 + 1))\n', "", "python"),
    # Types and operands
    "E0101": CodeInfo(
        "operand of the wrong type", "An operation takes operands of certain types, and nothing is converted by itself: convert with `cast`, wrap with `some`, "
        "unwrap with `unwrap`, show with `to_text`. Literals have a fixed type too: 1 is i64, 1.0 is f64, 1i32 is i32.",
        _body("_x = sqrt 4"), _body("_x = sqrt 4.0")),
    "E0102": CodeInfo(
        "operands of different types", "Arithmetic and comparison need operands of one type. Nothing is widened by itself.",
        _body("_x = add 1, 2.0"), _body("_x = add 1.0, 2.0")),
    "E0103": CodeInfo(
        "a local has one type", "Every assignment to a local gives a value of the same type: its annotation's, or that of the first assignment in the text.",
        _body("_x = const 1\n_x = const 2.0"), _body("_x = const 1\n_y = const 2.0")),
    "E0104": CodeInfo(
        "type not known", "Types are filled in once, in text order. Where the operands do not tell (`zero`, `cast`, `dict`, an empty `array`, a bare nil, a local "
        "that is assigned further down in the text), write the type at an assignment.",
        _body("_d = dict"), _body("_d: {i64: f64} = dict")),
    "E0105": CodeInfo(
        "instruction of the wrong shape", "The opcode uses other parts of an instruction: operands, labels, names. In text most of this is a syntax error; "
        "a model built in Python can say it.",
        _body("_t = tuple"), _body("_t = tuple 1")),
    "E0106": CodeInfo(
        "no value to assign", "The operation, or the function that is called, gives no value. Call it without `x =`.",
        "fn f():\nentry:\n  ret\nfn g():\nentry:\n  _x = call f()\n  ret\n", "fn f():\nentry:\n  ret\nfn g():\nentry:\n  call f()\n  ret\n"),
    "E0107": CodeInfo("result not assigned", "An operation that only computes a value must assign it. Results of calls, `pop` and `remove` may be left out.",
                      _body("add 1, 2"), _body("_x = add 1, 2")),
    "E0108": CodeInfo(
        "argument of the wrong type", "The argument's type is not that of the parameter. Nothing is converted by itself.",
        _body("call f(1)", "fn f(x: f64):"), _body("call f(1.0)", "fn f(x: f64):")),
    "E0109": CodeInfo("wrong number of arguments", "A call gives each parameter one argument; only an extern that ends in `...` takes more.",
                      _body("call f()", "fn f(x: f64):"), _body("call f(1.0)", "fn f(x: f64):")),
    "E0110": CodeInfo(
        "no such field", "The struct, class, variant or tuple has no field of that name, or the value has no fields at all.",
        "struct P:\n  x: i64\n" + _body("_y = get_field p, y", "fn f(p: P):"), "struct P:\n  x: i64\n" + _body("_y = get_field p, x", "fn f(p: P):")),
    "E0111": CodeInfo(
        "index into something else", "The hop `[...]` leads into arrays and dicts. Text is read with `index_get`, a tuple with `.0`.",
        _body("_y = copy t[0]", "fn f(t: text):"), _body("_y = index_get t, 0", "fn f(t: text):")),
    "E0112": CodeInfo(
        "no such conversion", "`cast` converts numbers into numbers, integers to and from char, and bool to integers. `bitcast` needs two number types of one width. "
        "Text is made by `to_text`.",
        _body("_c: char = cast 1.5"), _body("_c: char = cast 65")),
    "E0113": CodeInfo(
        "no zero value", "Numbers, bool, char, text, options, arrays, dicts, and structs and tuples of these have a zero value. A class, enum, function or pointer has "
        "none: use an option, whose zero value is nil.",
        "class C:\n  x: i64\nglobal g: C\n", "class C:\n  x: i64\nglobal g: C?\n"),
    "E0114": CodeInfo(
        "constant that is no value of its type", "A constant built in Python holds bits that its type does not have. Use `simple_magic.mir.model.const`.",
        "from simple_magic import verify\nfrom simple_magic.mir.model import Const, Global, Module\nfrom simple_magic.mir.types import U8\n\n"
        'verify(Module(globals=(Global("g", U8, Const(U8, 256)),)))\n',
        "from simple_magic import verify\nfrom simple_magic.mir.model import Global, Module, const\nfrom simple_magic.mir.types import U8\n\n"
        'verify(Module(globals=(Global("g", U8, const(U8, 255)),)))\n', "python"),
    "E0115": CodeInfo(
        "not comparable", "Functions and pointers have no equality, so neither has a struct, array, dict, tuple, option or enum that holds one. Classes compare by identity.",
        _body("_x = eq g, g", "fn f(g: fn(i64) -> i64):"), _body("_x = eq g, g", "fn f(g: i64):")),
    "E0116": CodeInfo(
        "cannot be written", "Tuples and text never change: build new ones. What an instruction writes into is a place, so a literal cannot stand there.",
        _body("set_field t, 0, 2", "fn f(t: (i64, i64)):"), _body("_t = tuple 2, t.1", "fn f(t: (i64, i64)):")),
    "E0117": CodeInfo(
        "move of something else", "`move x` un-assigns the local x. A field, an element, a global or the place that is written into cannot be moved.",
        _body("_x = copy move xs[0]", "fn f(xs: [i64]):"), _body("_x = copy xs[0]", "fn f(xs: [i64]):")),
    "E0118": CodeInfo(
        "switch on another type", "`switch` takes an integer, bool or char, and its cases are literals of that type. For an enum, switch on its `tag`.",
        _body("switch x [0.0: entry] else entry", "fn f(x: f64):", ""), _body("switch x [0: entry] else entry", "fn f(x: i64):", "")),
    "E0119": CodeInfo("case twice", "Each case of a `switch` occurs once.",
                      _body("switch x [0: entry, 0: entry] else entry", "fn f(x: i64):", ""),
                      _body("switch x [0: entry, 1: entry] else entry", "fn f(x: i64):", "")),
    "E0120": CodeInfo(
        "ret against the signature", "`ret` gives a value of the function's result type; none if the function has no result. A function whose result is `never` does not return.",
        _body("ret 1.5", "fn f() -> i64:", ""), _body("ret 1", "fn f() -> i64:", "")),
    "E0121": CodeInfo("length of a fixed array", "The number of elements is part of the type `[T; n]`.",
                      _body("_x: [i64; 3] = array 1, 2"), _body("_x: [i64; 2] = array 1, 2")),
    "E0122": CodeInfo(
        "fields not given once each", "`new` and `variant` name every field exactly once, in any order.",
        "struct P:\n  x: i64\n  y: i64\n" + _body("_p = new P(x: 1)"), "struct P:\n  x: i64\n  y: i64\n" + _body("_p = new P(y: 2, x: 1)")),
    "E0123": CodeInfo(
        "extern as a function value", "Only functions of the program can become values. Write a small function that calls the extern.",
        "extern fn host(x: f64) -> f64\n" + _body("_g = func host"),
        "extern fn host(x: f64) -> f64\nfn call_host(x: f64) -> f64:\nentry:\n  y = call host(x)\n  ret y\n" + _body("_g = func call_host")),
    "E0190": CodeInfo(
        "internal operation", "Operations made by passes, and their attributes, are refused in a program. (In text this is E0012.)",
        "from simple_magic import verify\nfrom simple_magic.mir.model import Block, Function, Instruction, Module\nfrom simple_magic.mir.types import UNIT\n\n"
        'entry = Block("entry", (Instruction("poll"), Instruction("ret")))\nverify(Module(functions=(Function("f", (), UNIT, (entry,)),)))\n',
        "from simple_magic import verify\nfrom simple_magic.mir.model import Block, Function, Instruction, Module\nfrom simple_magic.mir.types import UNIT\n\n"
        'entry = Block("entry", (Instruction("nop"), Instruction("ret")))\nverify(Module(functions=(Function("f", (), UNIT, (entry,)),)))\n', "python"),
    # Names
    "E0201": CodeInfo("unknown local", "No parameter and no assignment of the function has this name. A global is written with `@`.",
                      "global n: i64\n" + _body("_x = add n, 1"), "global n: i64\n" + _body("_x = add @n, 1")),
    "E0202": CodeInfo("unknown function", "No function or extern of this name is visible. A function value is called with `call_indirect`.",
                      _body("call g()"), _body("call f()")),
    "E0203": CodeInfo("unknown type", "No type of this name is visible, or it is of another kind: `new` makes structs and classes, `variant` enums.",
                      "global g: Pont?\nstruct Point:\n  x: i64\n", "global g: Point?\nstruct Point:\n  x: i64\n"),
    "E0204": CodeInfo("unknown global", "Globals are declared with `global name: type`.", _body("_x = load_global @n"), "global n: i64\n" + _body("_x = load_global @n")),
    "E0205": CodeInfo("unknown label", "A terminator names a block that the function does not have.",
                      _body("goto done", end=""), "fn f():\nentry:\n  goto done\ndone:\n  ret\n"),
    "E0206": CodeInfo(
        "unknown operation in a model", "A model built in Python uses an opcode that is not in the table. (In text this is E0011.)",
        "from simple_magic import verify\nfrom simple_magic.mir.model import Block, Function, Instruction, Module\nfrom simple_magic.mir.types import UNIT\n\n"
        'entry = Block("entry", (Instruction("noop"), Instruction("ret")))\nverify(Module(functions=(Function("f", (), UNIT, (entry,)),)))\n',
        "from simple_magic import verify\nfrom simple_magic.mir.model import Block, Function, Instruction, Module\nfrom simple_magic.mir.types import UNIT\n\n"
        'entry = Block("entry", (Instruction("nop"), Instruction("ret")))\nverify(Module(functions=(Function("f", (), UNIT, (entry,)),)))\n', "python"),
    "E0207": CodeInfo("unknown variant", "The enum has no variant of this name.",
                      "enum E:\n  A\n  B\n" + _body("_e = variant E.C"), "enum E:\n  A\n  B\n" + _body("_e = variant E.A")),
    "E0210": CodeInfo("name defined twice", "Functions, externs, types and globals of one source share one set of names.",
                      "global f: i64\n" + _body("nop"), "global g: i64\n" + _body("nop")),
    "E0211": CodeInfo("parameter, field or variant twice", "Parameters of a function, fields of a type and variants of an enum have different names.",
                      "struct P:\n  x: i64\n  x: f64\n", "struct P:\n  x: i64\n  y: f64\n"),
    "E0212": CodeInfo("label twice", "The blocks of a function have different labels.",
                      "fn f():\nentry:\n  goto entry\nentry:\n  ret\n", "fn f():\nentry:\n  goto done\ndone:\n  ret\n"),
    "E0213": CodeInfo(
        "not a name, or not yours", "A name follows the grammar, `$` marks names made by passes, and names that begin with `rt.` belong to the runtime.",
        _body("nop", "fn rt.f():"), _body("nop", "fn my.f():")),
    # Control flow and assignment
    "E0301": CodeInfo("block without its end", "Every block ends with a terminator: goto, if, switch, ret, invoke, throw, resume, abort or unreachable. Nothing falls through.",
                      "fn f():\nentry:\n  nop\n", "fn f():\nentry:\n  nop\n  ret\n"),
    "E0302": CodeInfo("instruction after the end of a block", "A terminator is the last instruction of its block.",
                      "fn f():\nentry:\n  ret\n  nop\n", "fn f():\nentry:\n  nop\n  ret\n"),
    "E0303": CodeInfo(
        "function without blocks", "A function has at least one block, its entry. (In text this is E0015.)",
        "from simple_magic import verify\nfrom simple_magic.mir.model import Function, Module\nfrom simple_magic.mir.types import UNIT\n\n"
        'verify(Module(functions=(Function("f", (), UNIT, ()),)))\n',
        "from simple_magic import verify\nfrom simple_magic.mir.model import Block, Function, Instruction, Module\nfrom simple_magic.mir.types import UNIT\n\n"
        'verify(Module(functions=(Function("f", (), UNIT, (Block("entry", (Instruction("ret"),)),)),)))\n', "python"),
    "E0310": CodeInfo(
        "not assigned on every path", "A local must have a value whenever it is read, on every path of blocks that leads there. The message names a path that lacks it. "
        "`move x` and `drop x` take the value away; `invoke` assigns its result on the normal edge only, payload and tag on the unwind edge only.",
        "fn f(c: bool) -> i64:\nentry:\n  if c then yes else done\nyes:\n  x = const 1\n  goto done\ndone:\n  ret x\n",
        "fn f(c: bool) -> i64:\nentry:\n  x = const 0\n  if c then yes else done\nyes:\n  x = const 1\n  goto done\ndone:\n  ret x\n"),
    # Definitions
    "E0401": CodeInfo(
        "struct contains itself", "A struct holds its fields by value, so it cannot hold itself, not even through other structs, tuples and fixed arrays. Options, arrays, dicts, "
        "enums and classes are references and end the chain.",
        "struct Node:\n  value: i64\n  next: Node\n", "struct Node:\n  value: i64\n  next: Node?\n"),
    "E0402": CodeInfo("key of a dict", "Keys are integers, bool, char or text: types with a simple order and equality.",
                      "global g: {f64: i64}\n", "global g: {i64: f64}\n"),
    "E0403": CodeInfo("unit or never as a value", "`unit` and `never` say that a function gives nothing or does not return. No local, parameter or field has such a type.",
                      _body("nop", "fn f(x: unit):"), _body("nop", "fn f() -> unit:")),
    "E0404": CodeInfo(
        "function or pointer leaves the program", "Functions and pointers live as long as the outermost call. So they occur neither in globals nor in parameters and results of "
        "externs, however deep inside.",
        "class Button:\n  action: fn(i64) -> i64\nglobal last: Button?\n", "class Button:\n  action: i64\nglobal last: Button?\n"),
    "E0405": CodeInfo("impossible type", "A tuple has at least one element, and the length of a fixed array is between 0 and 2**32.",
                      "global g: [[i64; 5000000000]]\n", "global g: [[i64; 5]]\n"),
    "E0406": CodeInfo("initial value of another type", "The literal after `=` has the type of the global.", "global g: f64 = 1\n", "global g: f64 = 1.0\n"),
    "E0407": CodeInfo("zero value too large", "The zero value would consist of more than a million parts. Use a growable array or a dict and fill it.",
                      "global g: [i64; 4000000]\n", "global g: [i64]\n"),
    "E0408": CodeInfo(
        "structs nest too deeply", "Structs hold structs by value at most 64 levels deep. Use classes, which are references.",
        "".join(f"struct S{i}:\n  x: {f'S{i - 1}' if i else 'i64'}\n" for i in range(66)), "class S0:\n  x: i64\nclass S1:\n  x: S0\n"),
    # Reading JSON
    "E0501": CodeInfo("not JSON", "The text is not JSON, or it is longer or nested deeper than the reader accepts.", "{", _json(), "json"),
    "E0502": CodeInfo("wrong shape", "A value in the JSON has another kind than expected, or a key is missing. The path says where.",
                      _json('"globals": 7'), _json('"globals": []'), "json"),
    "E0503": CodeInfo("unknown key or variant", "The JSON names something that the format does not have.", _json('"global": []'), _json('"globals": []'), "json"),
    "E0504": CodeInfo("string that is not text", "Text consists of Unicode scalar values; half of a surrogate pair is none.",
                      _json('"name": "\\ud800"'), _json('"name": "m"'), "json"),
    "E0505": CodeInfo("number out of range", "An integer or float in the JSON does not fit its type or its purpose.",
                      _json('"globals": [{"name": "g", "type": {"Array": {"element": "I64", "size": -1}}}]'),
                      _json('"globals": [{"name": "g", "type": {"Array": {"element": "I64", "size": 1}}}]'), "json"),
    "E0506": CodeInfo("not a name", "A name in the JSON does not follow the grammar of names.",
                      _json('"globals": [{"name": "1", "type": "I64"}]'), _json('"globals": [{"name": "g", "type": "I64"}]'), "json"),
    "E0507": CodeInfo("unknown version", "The JSON was written by a newer or another program.", '{"version": 99, "functions": []}', _json(), "json"),
    "E0508": CodeInfo(
        "upstream instruction that is not executed", "The function uses an instruction of the Simple compiler that this package refuses by name; the message says why. "
        "Nothing is dropped silently.",
        "", "", "json"),
    "E0509": CodeInfo("upstream type not supplied", "Upstream's JSON names nominal types by number only. Pass their definitions beside it.", "", "", "json"),
    # Sessions, back ends, limits
    "E0601": CodeInfo(
        "name of another kind", "A session knows this name as another kind of thing (function, type, global, extern). Remove the old definition first, or use another name.",
        'from simple_magic import LocalExecutionManager\n\nem = LocalExecutionManager("interpreter")\nem.compile("global f: i64")\nem.compile("fn f():\\nentry:\\n  ret")\n',
        'from simple_magic import LocalExecutionManager\n\nem = LocalExecutionManager("interpreter")\nem.compile("global g: i64")\nem.compile("fn f():\\nentry:\\n  ret")\n',
        "python"),
    "E0602": CodeInfo(
        "no such function in the session", "The session has no function of this name. `em.functions()` lists what there is, in a notebook `%simple ls`.",
        'from simple_magic import LocalExecutionManager\n\nLocalExecutionManager("interpreter").execute("f")\n',
        'from simple_magic import LocalExecutionManager\n\nem = LocalExecutionManager("interpreter")\nem.compile("fn f():\\nentry:\\n  ret")\nem.execute("f")\n', "python"),
    "E0603": CodeInfo(
        "function or pointer at the border to Python", "Functions and pointers do not outlive a call, so Python can neither pass nor receive them.",
        'from simple_magic import LocalExecutionManager\n\nem = LocalExecutionManager("interpreter")\nem.compile("fn f(p: ptr<i64>):\\nentry:\\n  ret")\nem.execute("f", 1)\n',
        'from simple_magic import LocalExecutionManager\n\nem = LocalExecutionManager("interpreter")\nem.compile("fn f(p: i64):\\nentry:\\n  ret")\nem.execute("f", 1)\n', "python"),
    "E0604": CodeInfo("too many instructions", "One cell, or one function with everything it calls, holds more instructions than `Limits.unit_instructions`, or becomes more machine operations than a native back end compiles within seconds.", "", "", "python"),
    "E0605": CodeInfo("no such code", "The code to explain does not exist.", 'from simple_magic import explain\n\nexplain("E9999")\n', 'from simple_magic import explain\n\nexplain("E0101")\n', "python"),
    "E0606": CodeInfo("no memory for constants", "The heap is too full for the texts that stand as constants in the unit: `Limits.memory` is small, or globals hold much.", "", "", "python"),
    "E0607": CodeInfo("refused by LLVM", "LLVM did not accept the code made for the unit. That is a defect of this package, not of the program: please report it.", "", "", "python"),
    "E0608": CodeInfo("no room for the heap", "The system does not give the manager the address space that `Limits.memory` asks for.", "", "", "python"),
    "E0609": CodeInfo("no Cranelift", "wasmtime is installed, but it cannot be loaded: its version is too old, or its library is missing or for another system.", "", "", "python"),
    "E0620": CodeInfo("no isolation", "An isolated call needs a process of its own, and pipes to send it the unit: the system gives none, or the unit cannot be sent.", "", "", "python"),
    "E0621": CodeInfo("no derivative", "A number that depends on an input reaches an operation or an extern whose result has no derivative; the message names it.", "", "", "python"),
    "E0610": CodeInfo(
        "not a declaration of an extern", "`@extern` takes one declaration such as `fn f(x: f64) -> f64`.",
        'from simple_magic import extern\n\nextern("fn f(x: f64) -> f64\\nextern fn g()")(abs)\n', 'from simple_magic import extern\n\nextern("fn explained(x: f64) -> f64")(abs)\n', "python"),
    "E0611": CodeInfo(
        "extern that nobody provides", "The program declares an extern that is not registered. Offer a Python function with `@extern`.",
        'from simple_magic import LocalExecutionManager\n\nLocalExecutionManager("interpreter").compile("extern fn nobody_has_this()")\n', "", "python"),
    "E0612": CodeInfo(
        "extern declared differently", "The declaration in the program is not the one that the extern was registered with.",
        'from simple_magic import LocalExecutionManager, extern\n\nextern("fn explained(x: f64) -> f64")(abs)\nLocalExecutionManager("interpreter").compile("extern fn explained(x: i64) -> i64")\n',
        'from simple_magic import LocalExecutionManager, extern\n\nextern("fn explained(x: f64) -> f64")(abs)\nLocalExecutionManager("interpreter").compile("extern fn explained(x: f64) -> f64")\n',
        "python"),
    "E0613": CodeInfo(
        "change of something in use",
        "A function that a running program called (an extern, a signal handler) wants to change or remove a type, a global or an extern. The memory of the "
        "running program holds objects of the old form, so this has to wait until its call is over. Functions may be redefined at any time.",
        IN_USE.format("g"), IN_USE.format("h"), "python"),
    "E0630": CodeInfo("no gradient experiment", "The model, its nodes or its inputs are not what `gradient_experiment` can run or trace; the message says which.", "", "", "python"),
    # Warnings
    "W0301": CodeInfo("block never reached", "No path from the entry leads to the block. Often a terminator names the wrong label.",
                      "fn f():\nentry:\n  ret\nlost:\n  ret\n", "fn f():\nentry:\n  goto lost\nlost:\n  ret\n"),
    "W0302": CodeInfo("local never read", "The local is assigned, but nothing reads it. A name that begins with _ says that this is meant.",
                      "fn f() -> i64:\nentry:\n  x = const 1\n  ret 2\n", "fn f() -> i64:\nentry:\n  _x = const 1\n  ret 2\n"),
    "W0303": CodeInfo(
        "unreachable after an ordinary instruction", "Control does arrive at this `unreachable`, and then the program traps. After a call of a function whose result is `never` it is fine.",
        "fn f():\nentry:\n  print 1\n  unreachable\n", "fn f():\nentry:\n  print 1\n  ret\n"),
}  # fmt: skip
"""Every code that anything in the package reports."""
