"""Stop requests: the flag word, the wakeup fd, the ticker."""

import ctypes
import gc
import os
import signal
import socket
import threading
import time
import weakref

import pytest

from simple_magic import LocalExecutionManager
from simple_magic.backends import llvm_jit, wasmtime_engine
from simple_magic.backends.interrupt import InterruptFlag, MappedSource, Ticker, WatchedSource

SOURCES = [MappedSource, WatchedSource]


@pytest.fixture(params=SOURCES, ids=lambda s: s.__name__)
def flag(request):
    with_flag = InterruptFlag(request.param())
    yield with_flag
    with_flag.close()
    assert signal.set_wakeup_fd(-1) == -1


def word(flag):
    return ctypes.c_uint64.from_address(flag.address).value


def wait_for(condition, seconds=2.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@pytest.fixture
def handled(monkeypatch):
    """Numbers of the SIGUSR1 that a Python handler has seen."""
    seen = []
    former = signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGUSR1, former)


def test_requests_from_threads(flag):
    assert not flag.requested()
    thread = threading.Thread(target=flag.set)
    thread.start()
    thread.join()
    assert flag.requested() and word(flag) & 0xFFFFFFFF
    flag.clear()
    assert not flag.requested() and word(flag) == 0


def test_a_signal_sets_the_flag_only_while_watching(flag, handled):
    os.kill(os.getpid(), signal.SIGUSR1)
    assert wait_for(lambda: handled) and not flag.requested()
    with flag.watching():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_for(flag.requested)
        flag.poll()
        assert not flag.requested()
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_for(flag.requested)
        flag.clear()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_for(flag.requested)
    assert set(handled) == {signal.SIGUSR1}
    assert signal.set_wakeup_fd(-1) == -1


def test_native_code_sees_the_flag_while_no_python_code_runs(flag, handled):
    """libc's `usleep` stands for a loop: a thread sends the signal, and the word is set when it returns."""
    libc = ctypes.CDLL(None)
    with flag.watching():
        sender = threading.Thread(target=lambda: (time.sleep(0.02), os.kill(os.getpid(), signal.SIGUSR1)))
        sender.start()
        for _ in range(1000):
            libc.usleep(1000)
            if flag.requested():
                break
        assert wait_for(flag.requested)
        sender.join()


def test_poll_raises_keyboard_interrupt_for_sigint_and_goes_on_otherwise(flag, handled):
    with flag.watching():
        signal.raise_signal(signal.SIGUSR1)
        flag.poll()
        assert handled == [signal.SIGUSR1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            flag.poll()
        flag.poll()


def test_ignored_signals_do_not_stop_anything(flag):
    former = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with flag.watching():
            os.kill(os.getpid(), signal.SIGUSR1)
            flag.poll()
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_the_former_wakeup_fd_comes_back_and_hears_what_it_missed(flag, handled):
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(2)
        writer.setblocking(False)
        assert signal.set_wakeup_fd(writer.fileno()) == -1
        try:
            with flag.watching():
                os.kill(os.getpid(), signal.SIGUSR1)
                assert wait_for(flag.requested)
                flag.poll()
                assert wait_for(lambda: not flag.requested())
                os.kill(os.getpid(), signal.SIGUSR1)
                assert wait_for(flag.requested)
            assert reader.recv(10) == bytes([signal.SIGUSR1] * 2)
            flag.clear()
            with flag.watching():
                pass
            reader.setblocking(False)
            with pytest.raises(BlockingIOError):
                reader.recv(1)
        finally:
            assert signal.set_wakeup_fd(-1) == writer.fileno()


def test_a_closed_former_wakeup_fd_is_forgotten(flag):
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    with flag.watching():
        reader.close()
        writer.close()
    assert signal.set_wakeup_fd(-1) == -1


def test_who_took_the_wakeup_fd_during_a_call_keeps_it(flag):
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        with flag.watching():
            signal.set_wakeup_fd(writer.fileno())
        assert signal.set_wakeup_fd(-1) == writer.fileno()


def test_uses_nest_and_survive_exceptions(flag, handled):
    with pytest.raises(ZeroDivisionError), flag.watching(), flag.watching():
        raise ZeroDivisionError
    with flag.watching():
        with flag.watching():
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_for(flag.requested)
    assert signal.set_wakeup_fd(-1) == -1


def test_two_flags_nest(flag, handled):
    inner = InterruptFlag()
    with flag.watching():
        with inner.watching():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wait_for(inner.requested)
        assert wait_for(flag.requested), "the outer program must look as well"
    inner.close()


def test_other_threads_do_not_touch_the_wakeup_fd(flag):
    errors = []

    def work():
        try:
            with flag.watching():
                flag.set()
                flag.poll()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


def test_a_closed_flag_is_inert():
    flag = InterruptFlag()
    fd = flag.fd
    flag.close()
    flag.close()
    flag.set()
    flag.clear()
    assert not flag.requested()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_flags_free_what_they_use():
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(20):
        flag = InterruptFlag()
        gone = weakref.ref(flag)
        del flag
    assert gone() is None
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parent_and_child_do_not_share_requests():
    flag = InterruptFlag()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            flag.set()
            os.write(write_end, b"x")
            code = 0 if flag.requested() and word(flag) else 2
            flag.clear()
            time.sleep(0.02)
        finally:
            os._exit(code)
    os.read(read_end, 1)
    assert not flag.requested()
    flag.set()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert flag.requested()
    flag.close()
    os.close(read_end)
    os.close(write_end)


def test_the_ticker_sets_the_flag_while_something_runs(flag, monkeypatch):
    monkeypatch.setattr("simple_magic.backends.interrupt.IDLE_TICKS", 3)
    running, ticking = ctypes.c_int64(0), ctypes.c_int64(0)
    ticker = Ticker(flag, running, ticking)
    ticker.start()
    assert ticking.value == 1
    time.sleep(0.03)
    assert not flag.requested()
    running.value = 1
    assert wait_for(flag.requested)
    flag.clear()
    assert wait_for(flag.requested) and ticking.value
    running.value = 0
    assert wait_for(lambda: not ticking.value), "nothing runs: the thread ends"
    flag.clear()
    running.value = 1
    ticker.start()
    assert wait_for(flag.requested)
    running.value = 0
    assert wait_for(lambda: not ticking.value)


@pytest.mark.parametrize(("backend", "home"), [("llvm", llvm_jit), ("cranelift", wasmtime_engine)])
def test_ctrl_c_ends_the_wait_for_code_generation(backend, home, monkeypatch):
    ready, waited = [], home.run_in_worker

    def run_and_interrupt(work, discard):
        is_done = threading.Event()

        def observed():
            done = work()
            is_done.set()
            ready.append(time.monotonic())
            return done

        def interrupt():
            if not is_done.is_set():
                ready.clear()
                os.kill(os.getpid(), signal.SIGINT)

        threading.Timer(0.05, interrupt).start()
        return waited(observed, discard)

    pushes = "  push a, n\n" * 1000
    with LocalExecutionManager(backend) as em:
        em.compile("fn small() -> i64:\nentry:\n  ret 7\n")
        assert em.execute("small") == 7
        em.compile(f"fn main(n: i64) -> i64:\nentry:\n  a: [i64] = array\n{pushes}  m = len a\n  ret m\n")
        monkeypatch.setattr(home, "run_in_worker", run_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            em.execute("main", 5)
        stopped = time.monotonic()
        monkeypatch.undo()
        assert not ready, "code generation was to be under way still"
        assert wait_for(lambda: ready, 60) and ready[0] > stopped
        assert em.execute("small") == 7 and em.execute("main", 5) == 1000
