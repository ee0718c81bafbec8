"""The border of LLVM code, as IR text: how it reaches the callbacks, and the entries by which Python calls machine code over words."""

from __future__ import annotations

import ctypes

from ..mir.types import F32, F64, Type
from ..runtime.layout import FRAME_COUNT, STACK_LIMIT, TRAP_SITE
from .callbacks import ANSWER, BLOCK, HOST, INTERRUPTED, NUMBER, POLL, Callbacks
from .llvm_emit import ATTRIBUTES, LLVM_TYPES, function_at


def support_text(header: str, heap_base: int, flag: int, callbacks: Callbacks) -> str:
    """Return `poll` and `host`: the callback, its answer as a status, and the site noted if that is not 0. `host` looks at the flag first."""

    def word(index: int) -> str:
        return function_at(callbacks.cell(index))

    def call(index: int) -> str:
        return f"""
  store i64 0, ptr {word(ANSWER)}
  %callback = load ptr, ptr {word(index)}
  call void %callback()
  %code = load i64, ptr {word(ANSWER)}
  %is_fine = icmp eq i64 %code, 1
  br i1 %is_fine, label %fine, label %failed
fine:
  ret i32 0
failed:
  store i64 %site, ptr {function_at(heap_base + TRAP_SITE)}
  store i64 0, ptr {function_at(heap_base + FRAME_COUNT)}
  %is_lost = icmp eq i64 %code, 0
  %answer = trunc i64 %code to i32
  %status = sub i32 %answer, 1
  %result = select i1 %is_lost, i32 {INTERRUPTED}, i32 %status
  ret i32 %result
}}
"""

    return f"""{header}
define i32 @poll(i64 %site) #0 {{{call(POLL)}
define i32 @host(i64 %number, i64 %block, i64 %site) #0 {{
  %flag = load volatile i64, ptr {function_at(flag)}
  %is_asked = icmp ne i64 %flag, 0
  br i1 %is_asked, label %asked, label %go
asked:
  %stop = call i32 @poll(i64 %site)
  %goes_on = icmp eq i32 %stop, 0
  br i1 %goes_on, label %go, label %stopped
stopped:
  ret i32 %stop
go:
  store i64 %number, ptr {word(NUMBER)}
  store i64 %block, ptr {word(BLOCK)}{call(HOST)}
{ATTRIBUTES}"""


# Entries

EntryFunction = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
"""`status entry(target, block, budget, floor)`; ctypes releases the GIL around it."""


def _from_word(t: Type, name: str, word: str) -> str:
    """Return the IR that makes `name` of type `t` from a word."""
    if LLVM_TYPES[t] == "i64":
        return f"  {name} = add i64 {word}, 0\n"
    if t == F64:
        return f"  {name} = bitcast i64 {word} to double\n"
    if t == F32:
        return f"  {name}.bits = trunc i64 {word} to i32\n  {name} = bitcast i32 {name}.bits to float\n"
    return f"  {name} = trunc i64 {word} to {LLVM_TYPES[t]}\n"


def _to_word(t: Type, value: str) -> str:
    """Return the IR that makes `%word` from a value of type `t`."""
    if LLVM_TYPES[t] == "i64":
        return f"  %word = add i64 {value}, 0\n"
    if t == F64:
        return f"  %word = bitcast double {value} to i64\n"
    if t == F32:
        return f"  %bits = bitcast float {value} to i32\n  %word = zext i32 %bits to i64\n"
    return f"  %word = zext {LLVM_TYPES[t]} {value} to i64\n"


def entry_text(header: str, heap_base: int, params: tuple[Type, ...], result: Type, traps: bool) -> str:
    """Return the entry of a signature. The stack may be used down to `budget` bytes below here, but not below `floor`."""
    loads = "".join(
        f"  %w{i}.p = getelementptr i64, ptr %block, i64 {i}\n  %w{i} = load i64, ptr %w{i}.p\n{_from_word(t, f'%a{i}', f'%w{i}')}"
        for i, t in enumerate(params)
    )
    arguments = ", ".join(f"{LLVM_TYPES[t]} %a{i}" for i, t in enumerate(params))
    t = LLVM_TYPES[result]
    call = f"  %value = call {t} %target({arguments})\n"
    if traps:
        call = f"  %both = call {{ {t}, i32 }} %target({arguments})\n  %value = extractvalue {{ {t}, i32 }} %both, 0\n"
    status = f"  %status = extractvalue {{ {t}, i32 }} %both, 1\n  ret i32 %status\n" if traps else "  ret i32 0\n"
    return f"""{header}
declare ptr @llvm.frameaddress.p0(i32 immarg)
declare i64 @llvm.usub.sat.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
define i32 @entry(ptr %target, ptr %block, i64 %budget, i64 %floor) #0 {{
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %here = ptrtoint ptr %frame to i64
  %low = call i64 @llvm.usub.sat.i64(i64 %here, i64 %budget)
  %limit = call i64 @llvm.umax.i64(i64 %low, i64 %floor)
  store i64 %limit, ptr {function_at(heap_base + STACK_LIMIT)}
{loads}{call}{_to_word(result, "%value")}  %out = getelementptr i64, ptr %block, i64 {len(params)}
  store i64 %word, ptr %out
{status}}}
{ATTRIBUTES}"""
