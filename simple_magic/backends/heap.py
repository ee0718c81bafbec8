"""The memory of native programs, and the codec between it and the values of `values.py`.

A `Heap` is one reserved piece of memory in the layout of `runtime/layout.py`; its pages become real when they are touched. Machine code and this
module see the same bytes: control words, globals, objects. Values travel as *words*: signed 64-bit integers, either the bits of a scalar or the
offset of an object.

Encoding and decoding work off a list of objects that still lack their contents, so depth is no limit; what is one object on one side is one object
on the other, cycles included, over everything that one `encode_many` or `decode_many` is given. Texts, tuples, options and enums have no identity
that a program could see; sharing is kept where copying could grow without bound.

Memory is taken from the top upwards and given back by resetting the top. Texts of the program's constants are interned at the far end, by content,
and stay: an object may refer to one long after its program is gone.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from ..mir.model import EnumDef
from ..mir.resolve import Names
from ..mir.types import BOOL, CHAR, F32, F64, I64, NUMBERS, TEXT, UNIT, Array, Dict, FixedArray, Named, Option, Tuple, Type, bit_width, is_integer, is_signed
from ..runtime.layout import (
    ARRAY_SIZE, BORROWED, BOX_SIZE, BOX_VALUE, CAPACITY, DATA, DICT_CAPACITY, DICT_COUNT, DICT_ENTRIES, DICT_SIZE, ENTRY_HASH, ENTRY_KEY, ENTRY_SIZE,
    ENTRY_VALUE, ENUM_SLOTS, ENUM_TAG, GLOBALS, HEAP_LIMIT, HEAP_START, HEAP_TOP, KIND_ARRAY, KIND_BOX, KIND_CLASS, KIND_DICT, KIND_ENUM, KIND_STRUCT,
    KIND_TEXT, KIND_TUPLE, LENGTH, SLOTS, TEXT_BYTES, TEXT_CHARS, TEXT_DATA, WORD, align, element_size, option_is_boxed,
)  # fmt: skip
from .traps import bare_trap
from .values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue

LARGE_TAIL = 8 << 20
"""Released memory of at least this many bytes goes back to the system."""
SMALLEST = HEAP_START + (64 << 10)
"""Bytes of the smallest heap."""
CODECS_KEPT = 8
_NORESERVE = getattr(mmap, "MAP_NORESERVE", {"linux": 0x4000, "darwin": 0x40}.get(sys.platform, 0))

ELEMENT_CODES: dict[Type, str] = {**dict(zip(NUMBERS, "bhiqBHIQfd")), BOOL: "?", CHAR: "I", UNIT: "B"}
"""The codes, as of `struct`, of array elements that are scalars."""

Writer: TypeAlias = Callable[["_Encoder", object], int]
Reader: TypeAlias = Callable[["_Decoder", int], object]


def signed_word(bits: int) -> int:
    """Return the word with the low 64 bits of an integer."""
    return ((bits + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


class Memory(Protocol):
    """The bytes of a heap. reaches_host: programs can use addresses outside of it, relative to `base`."""

    base: int
    bytes: memoryview
    reaches_host: bool

    def discard(self, start: int, size: int) -> None:
        """Give whole pages back to the system; they read as anything afterwards."""

    def close(self) -> None:
        """Free the memory."""


class MappedMemory:
    """A reserved mapping of at least `limit_bytes`; its pages become real when they are touched. Raises: OSError, OverflowError, ValueError."""

    reaches_host = True

    def __init__(self, limit_bytes: int) -> None:
        size = max(limit_bytes, SMALLEST) & -WORD
        if hasattr(mmap, "MAP_PRIVATE"):
            self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        else:
            self._map = mmap.mmap(-1, size)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.bytes = memoryview(self._map)

    def discard(self, start: int, size: int) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, size)

    def close(self) -> None:
        self.bytes.release()
        self._map.close()


class Heap:
    """Memory in the layout of native programs. Words are read and written with `read_word` and `write_word`, by heap offset."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.base = memory.base
        self.bytes = memory.bytes
        self.size = len(self.bytes)
        self.words = self.bytes.cast("q")
        self.lent: dict[int, ArrayValue] = {}
        """The arrays that were encoded as borrowed memory, by the offset of their header; they keep that memory alive.

        Where programs cannot reach that memory, they work on a copy of it in the heap: see `take_lent` and `return_lent`."""
        self.lent_from = 0
        """Where the headers of the arrays begin that the innermost call was lent: only these are brought up to date."""
        self._interned: dict[str, int] = {}
        self._codecs: list[tuple[Names, Codec]] = []
        self.write_word(HEAP_TOP, HEAP_START)
        self.write_word(HEAP_LIMIT, self.size)

    # Words and the top

    def read_word(self, offset: int) -> int:
        return self.words[offset >> 3]

    def write_word(self, offset: int, value: int) -> None:
        self.words[offset >> 3] = value

    def mark(self) -> int:
        """Return the top: `release` with it gives back what is allocated from now on."""
        return self.words[HEAP_TOP >> 3]

    def release(self, top: int) -> None:
        """Give back everything above `top`, in constant time; a large part goes back to the system."""
        unused = self.mark()
        self.write_word(HEAP_TOP, top)
        start, end = -(-top // mmap.PAGESIZE) * mmap.PAGESIZE, unused // mmap.PAGESIZE * mmap.PAGESIZE
        if end - start >= LARGE_TAIL:
            # Whole pages only: the last one may hold interned texts.
            self.memory.discard(start, end - start)

    @property
    def limit(self) -> int:
        """The offset below which objects lie; interned texts lie above it."""
        return self.words[HEAP_LIMIT >> 3]

    def read_global(self, slot: int) -> int:
        return self.words[(GLOBALS >> 3) + slot]

    def write_global(self, slot: int, word: int) -> None:
        self.words[(GLOBALS >> 3) + slot] = word

    # Values

    def codec(self, names: Names) -> Codec:
        """Return the codec for the types of `names`."""
        for known, codec in self._codecs:
            if known is names:
                return codec
        codec = Codec(self, names)
        self._codecs = [(names, codec), *self._codecs[: CODECS_KEPT - 1]]
        return codec

    def encode(self, value: object, t: Type, names: Names) -> int:
        """Return a value as a word, with its objects in the heap. Raises: Trap out_of_memory."""
        return self.encode_many((value,), (t,), names)[0]

    def encode_many(self, values: Sequence[object], types: Sequence[Type], names: Names) -> list[int]:
        """Return values as words. Raises: Trap out_of_memory; then the heap is as it was."""
        codec = self.codec(names)
        encoder = _Encoder(self)
        words = [codec.writer(t)(encoder, value) for value, t in zip(values, types)]
        encoder.finish()
        return words

    def decode(self, word: int, t: Type, names: Names) -> object:
        """Return the value of a word, with copies of its objects."""
        return self.decode_many((word,), (t,), names)[0]

    def decode_many(self, words: Sequence[int], types: Sequence[Type], names: Names, *, as_buffers: bool = False) -> list[object]:
        """Return the values of words; lent arrays come back as the values they were. `as_buffers`: numbers in arrays stay a memoryview."""
        codec = self.codec(names)
        decoder = _Decoder(self, as_buffers)
        values = [codec.reader(t)(decoder, word) for word, t in zip(words, types)]
        decoder.finish()
        return values

    def return_lent(self) -> None:
        """Bring what the innermost call wrote into copies of lent arrays to where it belongs."""
        self._move_lent(lambda owner, copy, size: ctypes.memmove(owner, copy, size), lambda items: not items.readonly)

    def take_lent(self) -> None:
        """Bring what others wrote into lent arrays to the copies that programs work on."""
        self._move_lent(lambda owner, copy, size: ctypes.memmove(copy, owner, size), lambda _items: True)

    def forget_lent(self, mark: int) -> None:
        """Forget the lent arrays whose headers lie above a mark: their call is over."""
        for offset in [offset for offset in self.lent if offset >= mark]:
            del self.lent[offset]

    def _move_lent(self, move: Callable[[int, int, int], object], wanted: Callable[[memoryview], bool]) -> None:
        if self.memory.reaches_host:
            return
        for offset, value in self.lent.items():
            items = value.items
            if offset >= self.lent_from and isinstance(items, memoryview) and items.nbytes and wanted(items):
                move(address_of(items), self.base + self.words[(offset + DATA) >> 3], items.nbytes)

    def find_text(self, text: str) -> int | None:
        """Return the offset of an interned text."""
        return self._interned.get(text)

    def intern_text(self, text: str) -> int:
        """Return the offset of a constant text. Raises: Trap out_of_memory."""
        offset = self._interned.get(text)
        if offset is None:
            data = text.encode("utf-8", "surrogatepass")
            offset = self.limit - align(TEXT_DATA + len(data))
            if offset < self.mark():
                raise bare_trap("out_of_memory")
            self.write_word(HEAP_LIMIT, offset)
            self.store_text(offset, data, len(text))
            self._interned[text] = offset
        return offset

    def store_text(self, offset: int, data: bytes, chars: int) -> None:
        """Write a text object of UTF-8 `data`."""
        at = offset >> 3
        self.words[at] = KIND_TEXT
        self.words[at + TEXT_BYTES // WORD] = len(data)
        self.words[at + TEXT_CHARS // WORD] = chars
        self.bytes[offset + TEXT_DATA : offset + TEXT_DATA + len(data)] = data

    def close(self) -> None:
        """Free the memory. Closing twice is fine."""
        self.lent.clear()
        self._codecs.clear()
        self.words.release()
        self.memory.close()


class _Encoder:
    """One encoding: `memo` holds the offsets of objects met, `todo` what is to be filled in. The heap's top moves when it is finished."""

    def __init__(self, heap: Heap) -> None:
        self.heap = heap
        self.words = heap.words
        self.top, self.limit = heap.mark(), heap.limit
        self.memo: dict[object, int] = {}
        self.todo: list[tuple[Callable[[_Encoder, int, object], None], int, object]] = []
        self.lent: dict[int, ArrayValue] = {}

    def allocate(self, size: int) -> int:
        offset = self.top
        self.top = offset + align(size)
        if self.top > self.limit:
            raise bare_trap("out_of_memory")
        return offset

    def text(self, text: str) -> int:
        offset = self.heap.find_text(text)
        if offset is None:
            offset = self.memo.get(text)
        if offset is None:
            data = text.encode("utf-8", "surrogatepass")
            offset = self.memo[text] = self.allocate(TEXT_DATA + len(data))
            self.heap.store_text(offset, data, len(text))
        return offset

    def finish(self) -> None:
        todo = self.todo
        while todo:
            fill, offset, value = todo.pop()
            fill(self, offset, value)
        if self.lent and not self.heap.memory.reaches_host:
            self._copy_lent()
        self.heap.write_word(HEAP_TOP, self.top)
        self.heap.lent.update(self.lent)

    def _copy_lent(self) -> None:
        """Give lent arrays memory in the heap; what overlaps outside overlaps there too."""
        start = end = home = 0
        for address, offset in sorted((address_of(value.items), offset) for offset, value in self.lent.items()):  # type: ignore[arg-type]
            size = self.lent[offset].items.nbytes  # type: ignore[union-attr]
            if address >= end:
                start, end, home = address, address, self.top
            if address + size > end:
                end = address + size
                self.top = home
                self.allocate(end - start)
            data = home + address - start
            ctypes.memmove(self.heap.base + data, address, size)
            self.words[(offset + DATA) >> 3] = data


class _Decoder:
    """One decoding: `memo` holds the values of offsets met, `todo` what is to be filled in."""

    def __init__(self, heap: Heap, as_buffers: bool) -> None:
        self.heap = heap
        self.words = heap.words
        self.as_buffers = as_buffers
        self.memo: dict[int, object] = {}
        self.todo: list[tuple[Callable[[_Decoder, int, object], None], int, object]] = []

    def text(self, offset: int) -> str:
        text = self.memo.get(offset)
        if text is None:
            start = offset + TEXT_DATA
            size = self.words[(offset + TEXT_BYTES) >> 3]
            text = self.memo[offset] = str(self.heap.bytes[start : start + size], "utf-8", "surrogatepass")
        return text  # type: ignore[return-value]

    def finish(self) -> None:
        todo = self.todo
        while todo:
            fill, offset, value = todo.pop()
            fill(self, offset, value)


class Codec:
    """Writers and readers by type, made once per heap and set of definitions; functions and pointers have none, since they never leave a call."""

    def __init__(self, heap: Heap, names: Names) -> None:
        self.heap = heap
        self.names = names
        self._writers: dict[Type, Writer] = {}
        self._readers: dict[Type, Reader] = {}

    def writer(self, t: Type) -> Writer:
        """Return the function that gives the word of a value of type `t`."""
        made = self._writers.get(t)
        if made is None:
            made = self._writers[t] = self._make(t)[0]
        return made

    def reader(self, t: Type) -> Reader:
        """Return the function that gives the value of a word of type `t`."""
        made = self._readers.get(t)
        if made is None:
            made = self._readers[t] = self._make(t)[1]
        return made

    def _make(self, t: Type) -> tuple[Writer, Reader]:
        match t:
            case Option(inner):
                return _boxed_option(self, inner) if option_is_boxed(inner) else _plain_option(self, inner)
            case Tuple(elements):
                return _tuple(self, t, elements)
            case Array(element) | FixedArray(element, _):
                return _array(self, element)
            case Dict(key, value):
                return _dict(self, key, value)
            case Named(name):
                definition = self.names.types[name]
                return _enum(self, definition) if isinstance(definition, EnumDef) else _struct(self, name)
        if t == TEXT:
            return _Encoder.text, _Decoder.text  # type: ignore[return-value]
        return _scalar(t)


# By type: (writer, reader)


def _scalar(t: Type) -> tuple[Writer, Reader]:
    if is_integer(t):
        bits = bit_width(t)
        mask, sign = (1 << bits) - 1, (1 << bits - 1) if is_signed(t) else 0
        if t == I64:
            return lambda _e, value: value, lambda _d, word: word  # type: ignore[return-value, arg-type]
        return lambda _e, value: signed_word(value), lambda _d, word: ((word & mask) ^ sign) - sign  # type: ignore[arg-type]
    if t == BOOL:
        return lambda _e, value: int(value), lambda _d, word: word & 0xFF != 0  # type: ignore[call-overload]
    if t == CHAR:
        return lambda _e, value: ord(value), lambda _d, word: chr(word & 0xFFFFFFFF)  # type: ignore[arg-type]
    if t == F64:
        return lambda _e, value: _WORD.unpack(_F64.pack(value))[0], lambda _d, word: _F64.unpack(_WORD.pack(word))[0]
    if t == F32:
        return lambda _e, value: _HALF.unpack(_F32.pack(value))[0], lambda _d, word: _F32.unpack(_HALF.pack(word & 0xFFFFFFFF))[0]
    assert t == UNIT, f"a value of type {t} cannot enter or leave a program"
    return lambda _e, _value: 0, lambda _d, _word: None


_WORD, _HALF, _F64, _F32 = struct.Struct("<q"), struct.Struct("<I"), struct.Struct("<d"), struct.Struct("<f")


def _plain_option(codec: Codec, inner: Type) -> tuple[Writer, Reader]:
    """The reference itself, 0 for nil."""
    write_inner, read_inner = codec.writer(inner), codec.reader(inner)

    def write(e: _Encoder, value: SomeValue | None) -> int:
        return 0 if value is None else write_inner(e, value.value)

    def read(d: _Decoder, word: int) -> SomeValue | None:
        return SomeValue(read_inner(d, word)) if word else None

    return write, read  # type: ignore[return-value]


def _boxed_option(codec: Codec, inner: Type) -> tuple[Writer, Reader]:
    """Boxes are shared as they were: an array may hold one box many times."""
    write_inner, read_inner = codec.writer(inner), codec.reader(inner)

    def write(e: _Encoder, value: SomeValue | None) -> int:
        if value is None:
            return 0
        offset = e.memo.get(id(value))
        if offset is None:
            offset = e.memo[id(value)] = e.allocate(BOX_SIZE)
            e.words[offset >> 3] = KIND_BOX
            e.words[(offset + BOX_VALUE) >> 3] = write_inner(e, value.value)
        return offset

    def read(d: _Decoder, word: int) -> object:
        if not word:
            return None
        value = d.memo.get(word)
        if value is None:
            value = d.memo[word] = SomeValue(read_inner(d, d.words[(word + BOX_VALUE) >> 3]))
        return value

    return write, read  # type: ignore[return-value]


def _tuple(codec: Codec, t: Type, elements: tuple[Type, ...]) -> tuple[Writer, Reader]:
    """Python may share one tuple between types, so the memo holds the type too."""
    writers, readers = [codec.writer(e) for e in elements], [codec.reader(e) for e in elements]
    size = SLOTS + WORD * len(elements)

    def write(e: _Encoder, value: tuple) -> int:
        offset = e.memo.get((id(value), t))
        if offset is None:
            offset = e.memo[id(value), t] = e.allocate(size)
            e.words[offset >> 3] = KIND_TUPLE
            for index, (writer, item) in enumerate(zip(writers, value), (offset + SLOTS) >> 3):
                e.words[index] = writer(e, item)
        return offset

    def read(d: _Decoder, word: int) -> object:
        value = d.memo.get(word)
        if value is None:
            at = (word + SLOTS) >> 3
            value = d.memo[word] = tuple([reader(d, d.words[at + index]) for index, reader in enumerate(readers)])
        return value

    return write, read  # type: ignore[return-value]


def _object(size_of: Callable[[object], int], fill: Callable[[_Encoder, int, object], None], shell: Callable[[_Decoder, int], object],
            load: Callable[[_Decoder, int, object], None]) -> tuple[Writer, Reader]:  # fmt: skip
    """An object with identity: memory or a shell at once, contents later."""

    def write(e: _Encoder, value: object) -> int:
        offset = e.memo.get(id(value))
        if offset is None:
            offset = e.memo[id(value)] = e.allocate(size_of(value))
            e.todo.append((fill, offset, value))
        return offset

    def read(d: _Decoder, word: int) -> object:
        value = d.memo.get(word)
        if value is None:
            value = d.memo[word] = shell(d, word)
            d.todo.append((load, word, value))
        return value

    return write, read


def _struct(codec: Codec, name: str) -> tuple[Writer, Reader]:
    definition = codec.names.types[name]
    types = [f.type for f in definition.fields]  # type: ignore[union-attr]
    size = SLOTS + WORD * len(types)
    kind = KIND_CLASS if definition.is_class else KIND_STRUCT  # type: ignore[union-attr]

    def fill(e: _Encoder, offset: int, value: StructValue) -> None:
        at = offset >> 3
        e.words[at] = kind
        for t, slot in zip(types, value.slots):
            at += 1
            e.words[at] = codec.writer(t)(e, slot)

    def load(d: _Decoder, offset: int, value: StructValue) -> None:
        at = (offset + SLOTS) >> 3
        value.slots = [codec.reader(t)(d, d.words[at + index]) for index, t in enumerate(types)]

    return _object(lambda _value: size, fill, lambda _d, _word: StructValue(name, []), load)  # type: ignore[arg-type]


def _enum(codec: Codec, definition: EnumDef) -> tuple[Writer, Reader]:
    variants = [[f.type for f in variant.fields] for variant in definition.variants]

    def fill(e: _Encoder, offset: int, value: EnumValue) -> None:
        e.words[offset >> 3] = KIND_ENUM
        e.words[(offset + ENUM_TAG) >> 3] = value.tag
        at = (offset + ENUM_SLOTS) >> 3
        for index, (t, slot) in enumerate(zip(variants[value.tag], value.slots), at):
            e.words[index] = codec.writer(t)(e, slot)

    def load(d: _Decoder, offset: int, value: EnumValue) -> None:
        at = (offset + ENUM_SLOTS) >> 3
        slots = tuple([codec.reader(t)(d, d.words[at + index]) for index, t in enumerate(variants[value.tag])])
        # An enum may contain itself through a class, so it must exist before its slots do.
        object.__setattr__(value, "slots", slots)

    return _object(
        lambda value: ENUM_SLOTS + WORD * len(value.slots),  # type: ignore[attr-defined]
        fill,  # type: ignore[arg-type]
        lambda d, word: EnumValue(definition.name, d.words[(word + ENUM_TAG) >> 3], ()),
        load,  # type: ignore[arg-type]
    )


def _bulk(element: Type) -> tuple[Callable[[list], bytes | array], Callable[[memoryview], list]] | None:
    """Return (bytes of a list, list of bytes) for elements that are scalars."""
    if element in NUMBERS:
        code = ELEMENT_CODES[element]
        return lambda items: array(code, items), lambda data: data.cast(code).tolist()
    if element == BOOL:
        return bytes, lambda data: data.cast("?").tolist()
    if element == CHAR:
        return lambda items: "".join(items).encode("utf-32-le", "surrogatepass"), lambda data: list(str(data, "utf-32-le", "surrogatepass"))
    if element == UNIT:
        return lambda items: bytes(len(items)), lambda data: [None] * len(data)
    return None


def address_of(buffer: memoryview) -> int:
    """Return the address of a contiguous buffer, read-only or not."""
    import numpy

    return numpy.asarray(buffer).__array_interface__["data"][0]


def _array(codec: Codec, element: Type) -> tuple[Writer, Reader]:
    size, bulk, code = element_size(element), _bulk(element), ELEMENT_CODES.get(element, "")

    def size_of(value: ArrayValue) -> int:
        is_lent = isinstance(value.items, memoryview) and not value.growable
        return ARRAY_SIZE if is_lent else ARRAY_SIZE + size * len(value.items)

    def fill(e: _Encoder, offset: int, value: ArrayValue) -> None:
        items, count = value.items, len(value.items)
        header, data = KIND_ARRAY, offset + ARRAY_SIZE
        if isinstance(items, memoryview):
            if value.growable:
                e.heap.bytes[data : data + items.nbytes] = items.cast("B")
            else:
                header, data = KIND_ARRAY | BORROWED, signed_word(address_of(items) - e.heap.base)
                e.lent[offset] = value
        elif bulk is not None:
            e.heap.bytes[data : data + size * count] = memoryview(bulk[0](items)).cast("B")
        else:
            write = codec.writer(element)
            for index, item in enumerate(items, data >> 3):
                e.words[index] = write(e, item)
        at = offset >> 3
        e.words[at] = header
        e.words[at + LENGTH // WORD] = e.words[at + CAPACITY // WORD] = count
        e.words[at + DATA // WORD] = data

    def shell(d: _Decoder, word: int) -> ArrayValue:
        return d.heap.lent[word] if d.words[word >> 3] & BORROWED else ArrayValue([])

    def load(d: _Decoder, offset: int, value: ArrayValue) -> None:
        at = offset >> 3
        if d.words[at] & BORROWED:
            return
        count, data = d.words[at + LENGTH // WORD], d.words[at + DATA // WORD]
        if bulk is None:
            read = codec.reader(element)
            value.items = [read(d, word) for word in d.words[data >> 3 : (data >> 3) + count]]
        elif d.as_buffers:
            value.items = memoryview(bytes(d.heap.bytes[data : data + size * count])).cast(code)  # type: ignore[call-overload]
        else:
            value.items = bulk[1](d.heap.bytes[data : data + size * count])

    return _object(size_of, fill, shell, load)  # type: ignore[arg-type]


def _dict(codec: Codec, key: Type, value_type: Type) -> tuple[Writer, Reader]:
    """An open-addressing table as `runtime/dicts.mir` keeps it: at most half full, linear probing from the low bits of the hash."""

    def fill(e: _Encoder, offset: int, value: DictValue) -> None:
        count = len(value.items)
        capacity = dict_capacity(count)
        entries = e.allocate(ENTRY_SIZE * capacity) if capacity else 0
        e.heap.bytes[entries : entries + ENTRY_SIZE * capacity] = bytes(ENTRY_SIZE * capacity)
        write_key, write_value = codec.writer(key), codec.writer(value_type)
        words, mask = e.words, capacity - 1
        for k, v in value.items.items():
            key_word = write_key(e, k)
            key_hash = hash_text(k.encode("utf-8", "surrogatepass")) if key == TEXT else hash_word(key_word)
            index = key_hash & mask
            while words[(entries + ENTRY_SIZE * index) >> 3]:
                index = index + 1 & mask
            at = (entries + ENTRY_SIZE * index) >> 3
            words[at + ENTRY_HASH // WORD] = key_hash
            words[at + ENTRY_KEY // WORD] = key_word
            words[at + ENTRY_VALUE // WORD] = write_value(e, v)
        at = offset >> 3
        words[at] = KIND_DICT
        words[at + DICT_COUNT // WORD] = count
        words[at + DICT_CAPACITY // WORD] = capacity
        words[at + DICT_ENTRIES // WORD] = entries

    def load(d: _Decoder, offset: int, value: DictValue) -> None:
        at = offset >> 3
        capacity, entries = d.words[at + DICT_CAPACITY // WORD], d.words[at + DICT_ENTRIES // WORD]
        read_key, read_value = codec.reader(key), codec.reader(value_type)
        found = d.words[entries >> 3 : (entries + ENTRY_SIZE * capacity) >> 3].tolist()
        for index in range(0, len(found), ENTRY_SIZE // WORD):
            if found[index]:
                value.items[read_key(d, found[index + 1])] = read_value(d, found[index + 2])

    return _object(lambda _value: DICT_SIZE, fill, lambda _d, _word: DictValue({}), load)  # type: ignore[arg-type]


# The hash of `runtime/dicts.mir`

_MASK = (1 << 64) - 1


def dict_capacity(count: int) -> int:
    """Return the capacity of a dict with `count` keys."""
    return max(8, 1 << (2 * count - 1).bit_length()) if count else 0


def hash_word(word: int) -> int:
    """Return the hash of a key word, itself a word: `rt.hash_word`."""
    x = word & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return (x ^ x >> 31 | 1 << 63) - (1 << 64)


def hash_text(data: bytes) -> int:
    """Return the hash of a text key, given in UTF-8: `rt.hash_text`."""
    x, count = len(data), len(data) >> 3
    for (part,) in struct.iter_unpack("<Q", memoryview(data)[: 8 * count]):
        x = (x ^ part) * 0x9E3779B97F4A7C15 & _MASK
        x ^= x >> 32
    for byte in data[8 * count :]:
        x = (x ^ byte) * 0x100000001B3 & _MASK
    return hash_word(x)
