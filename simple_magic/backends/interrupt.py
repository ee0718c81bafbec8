"""How a stop request reaches native code: one flag word in memory that the program polls.

CPython's own signal handler writes the number of a signal into the *wakeup fd*. On POSIX that file is mapped into memory, and the first word of the
mapping is the flag: a signal sets it even while no Python code can run. Elsewhere the wakeup fd is a socket, and a thread that waits at its other end
sets the flag. Both are armed only around calls (`watching`), in the main thread, where Python runs its signal handlers; whatever had the wakeup fd
before gets it back, with the signals that came meanwhile.

Native callables do not touch the wakeup fd, because a swap costs more than a short call. While one of them runs in the main thread, a `Ticker` sets the
flag from time to time, and the next poll finds the signals that came meanwhile.

A set flag says only "look": `poll` clears it and lets pending signal handlers run. SIGINT's raises KeyboardInterrupt; other signals change nothing for
the program. Other threads may `set` the flag too, for example when a time limit is over.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

WORD_SIZE = 8
REQUEST_BYTE = 3
"""`set` writes this byte, which 32-bit polls see as well. Signals fill the word from byte 0."""


class _Source(Protocol):
    """Where the flag word lies, and what to give to `signal.set_wakeup_fd` so that signals set it."""

    address: int
    fd: int

    def rewind(self) -> None:
        """Let the next signal set the word again."""

    def received(self) -> bytes:
        """Return the signals that came since the last `rewind`."""

    def mirror(self, address: int) -> None:
        """Let the word appear at another address too."""

    def forget_mirror(self, address: int) -> None:
        """That address is about to be freed."""

    def close(self) -> None:
        """Free everything."""


def _new_file() -> int:
    """Return a file descriptor of an unnamed file of one page that never blocks."""
    try:
        fd = os.memfd_create("simple_magic_interrupt", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        fd, path = tempfile.mkstemp(prefix="simple_magic_")
        os.unlink(path)
    os.truncate(fd, mmap.PAGESIZE)
    os.set_blocking(fd, False)
    return fd


def _map_at(address: int, fd: int) -> None:
    """Map the first page of a file at an address, which must be that of a page."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    map_fixed = 0x10
    mapped = libc.mmap(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | map_fixed, fd, 0)
    assert mapped == address, "the interrupt page could not be mapped"


class MappedSource:
    """The flag word is the start of the wakeup file, mapped into memory."""

    def __init__(self) -> None:
        self.fd = _new_file()
        self._map = mmap.mmap(self.fd, mmap.PAGESIZE)
        anchor = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(anchor)
        self.mirrors: set[int] = set()

    def rewind(self) -> None:
        os.lseek(self.fd, 0, os.SEEK_SET)

    def received(self) -> bytes:
        count = os.lseek(self.fd, 0, os.SEEK_CUR)
        return os.pread(self.fd, count, 0)

    def renew(self) -> None:
        """Put a file of its own under the same address and descriptor: after a fork, parent and child must not share requests."""
        fd = _new_file()
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        for address in (self.address, *self.mirrors):
            _map_at(address, self.fd)

    def mirror(self, address: int) -> None:
        """Let the word appear at another address too, in place of the page there."""
        _map_at(address, self.fd)
        self.mirrors.add(address)

    def forget_mirror(self, address: int) -> None:
        """The page of a mirror is about to be freed by its owner."""
        self.mirrors.discard(address)

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


class WatchedSource:
    """The flag word is ordinary memory; a thread that waits at the other end of the wakeup socket sets it."""

    def __init__(self) -> None:
        self._word = ctypes.c_uint64(0)
        self.address = ctypes.addressof(self._word)
        self.mirrors: dict[int, ctypes.c_uint64] = {}
        """Words elsewhere that have to be written together with the first, by their address."""
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self.fd = self._writer.fileno()
        self._signals = bytearray()
        threading.Thread(target=_watch, args=(reader, self._word, self.mirrors, self._signals), name="simple_magic interrupt", daemon=True).start()

    def rewind(self) -> None:
        self._signals.clear()

    def received(self) -> bytes:
        return bytes(self._signals)

    def mirror(self, address: int) -> None:
        self.mirrors[address] = ctypes.c_uint64.from_address(address)

    def forget_mirror(self, address: int) -> None:
        self.mirrors.pop(address, None)

    def close(self) -> None:
        self._writer.close()


def _watch(reader: socket.socket, word: ctypes.c_uint64, mirrors: dict[int, ctypes.c_uint64], signals: bytearray) -> None:
    """Set the words at every signal, until the other end is closed."""
    with reader:
        while received := reader.recv(64):
            signals += received
            for each in (word, *mirrors.values()):
                each.value |= 1


MAPPED_PLATFORM = sys.platform != "win32" and sys.platform != "emscripten" and sys.platform != "wasi"


class InterruptFlag:
    """A stop request of one manager.

    address: of the 8-byte word that programs poll; non-zero means "call `poll`". fd: the wakeup fd, for callers that swap it themselves
    (`is_mapped` tells whether `PySignal_SetWakeupFd` alone suffices). Close it when no code that polls can run any more.
    """

    def __init__(self, source: _Source | None = None) -> None:
        self._source: _Source = source or (MappedSource() if MAPPED_PLATFORM else WatchedSource())
        self.is_mapped = isinstance(self._source, MappedSource)
        self.address = self._source.address
        self.fd = self._source.fd
        self._word = ctypes.c_uint64.from_address(self.address)
        self._request = ctypes.c_uint8.from_address(self.address + REQUEST_BYTE)
        self._depth = 0
        self._previous = -1
        self._missed = b""
        self._finalizer = weakref.finalize(self, self._source.close)
        # Daemon threads may poll until the very end of the process.
        self._finalizer.atexit = False
        if self.is_mapped:
            _MAPPED_FLAGS.add(self)

    def requested(self) -> bool:
        """Return whether somebody asked for attention since the last `clear`."""
        return self._word.value != 0

    def set(self) -> None:
        """Make the running program call `poll` soon. Any thread may do this."""
        self._request.value = 0xFF
        for mirror in self._word_mirrors():
            mirror.value |= 1

    def _word_mirrors(self) -> list[ctypes.c_uint64]:
        """Return the words that do not change by themselves when the first one does."""
        return [] if self.is_mapped else list(self._source.mirrors.values())  # type: ignore[attr-defined]

    def mirror(self, address: int) -> None:
        """Let the flag word appear at another address too, for programs that cannot reach `address`: the start of a page that is used for nothing else."""
        self._source.mirror(address)

    def forget_mirror(self, address: int) -> None:
        """The memory of a mirror is about to be freed."""
        if self._finalizer.alive:
            self._source.forget_mirror(address)

    def clear(self) -> None:
        """Forget all requests. Look at what may have caused them afterwards: then no request is lost."""
        if self._finalizer.alive:
            if self._previous != -1:
                self._missed += self._source.received()
            self._source.rewind()
        self._word.value = 0
        for mirror in self._word_mirrors():
            mirror.value = 0

    def poll(self) -> None:
        """Clear the flag and run the signal handlers that are due. Raises: whatever they raise, KeyboardInterrupt for SIGINT."""
        self.clear()
        # Does nothing outside the main thread.
        ctypes.pythonapi.PyErr_CheckSignals()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let signals set the flag while the block runs. Uses may be nested; only the outermost in the main thread does anything.

        A generator, because an interrupt at any point of the way out still closes it: the wakeup fd always goes back.
        """
        depth = self._depth
        is_arming = depth == 0 and threading.get_ident() == threading.main_thread().ident
        previous = -1
        self._depth = depth + 1
        try:
            if is_arming:
                if self._word.value:
                    self._source.rewind()
                try:
                    previous = signal.set_wakeup_fd(self.fd, warn_on_full_buffer=False)
                except ValueError:
                    is_arming = False  # in a sub-interpreter Python handles no signals
                # Already ours: an earlier way out was interrupted at the worst moment.
                previous = self._previous = -1 if previous == self.fd else previous
            yield
        finally:
            self._depth = depth
            if is_arming:
                try:
                    current = signal.set_wakeup_fd(previous)
                except (ValueError, OSError):
                    current = signal.set_wakeup_fd(-1)  # what was there is closed
                self._previous = -1
                if current not in (self.fd, -1):
                    # Somebody took the wakeup fd during the call and still has it.
                    signal.set_wakeup_fd(current)
                elif previous != -1 and (self._missed or self._word.value):
                    self._forward(previous)

    def _forward(self, fd: int) -> None:
        """Tell the former owner of the wakeup fd about the signals that came meanwhile."""
        signals, self._missed = self._missed + self._source.received(), b""
        try:
            os.write(fd, signals)
        except OSError:
            pass  # full or closed: CPython's own handler would have lost them too

    def close(self) -> None:
        """Free the word; no code that polls it may run any more. Closing twice is fine."""
        self._word, self._request = ctypes.c_uint64(0), ctypes.c_uint8(0)
        self._finalizer()


TICK_SECONDS = 0.02
IDLE_TICKS = 50


class Ticker:
    """A thread that sets a flag every TICK_SECONDS while `running` is not 0. It ends when nothing ran for a while.

    ticking: native code may start a long call only while this word is not 0, and calls `start` otherwise. Both words change under the GIL only.
    """

    def __init__(self, flag: InterruptFlag, running: ctypes.c_int64, ticking: ctypes.c_int64) -> None:
        self._flag, self._running, self._ticking = flag, running, ticking
        _TICKERS.add(self)

    def start(self) -> None:
        if self._ticking.value:
            return
        thread = threading.Thread(target=_tick, args=(self._flag, self._running, self._ticking), name="simple_magic ticker", daemon=True)
        thread.start()
        self._ticking.value = 1

    def forget(self) -> None:
        """The thread did not survive a fork."""
        self._ticking.value = 0


def _tick(flag: InterruptFlag, running: ctypes.c_int64, ticking: ctypes.c_int64) -> None:
    idle = 0
    while True:
        time.sleep(TICK_SECONDS)
        if running.value:
            flag.set()
            idle = 0
            continue
        idle += 1
        if idle >= IDLE_TICKS:
            # A call that began before this store is seen below; one that begins after it starts the next thread.
            ticking.value = 0
            if not running.value:
                return
            ticking.value = 1


_TICKERS: weakref.WeakSet[Ticker] = weakref.WeakSet()
_MAPPED_FLAGS: weakref.WeakSet[InterruptFlag] = weakref.WeakSet()
"""What has to be made anew after a fork."""


def _renew_after_fork() -> None:
    for flag in list(_MAPPED_FLAGS):
        if flag._finalizer.alive:
            flag._source.renew()  # type: ignore[attr-defined]
    for ticker in list(_TICKERS):
        ticker.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
