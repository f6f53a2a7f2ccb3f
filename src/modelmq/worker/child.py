"""`python -m modelmq.worker.child <socket>`: one model in a process of its own.

The other side of executor, started by guardian: opens the model, warms it up, then answers each frame of inputs with
outputs or with what the model raised. Model code may print, crash or leak here and harms no one else; knows no queues
and no requests.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from pathlib import Path

import msgspec

from modelmq.errors import InvalidRequest, ModelFailed, ModelLoadError, Retry
from modelmq.runtimes import ModelSettings, ModelSource, Runtime, checked_outputs, open_model, warm_up_inputs
from modelmq.worker import wire
from modelmq.worker.guardian import OF_THE_TERMINAL, end_with

_JOIN_BELOW_BYTES = 256 * 1024
_LONGEST_MESSAGE = 2000
_SKIPPED_AT_ONCE = 64 * 1024


def main(fd: int) -> None:
    """Serve the model that the first frame names until the socket closes."""
    _heed_no_signals_of_the_terminal()
    _send_prints_to_stderr()
    _be_first_to_go()
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as link:
        os.register_at_fork(after_in_child=partial(_in_a_fork, link))
        runtime = _open(link)
        if runtime is not None:
            _serve(link, *runtime)


def _open(link: socket.socket) -> tuple[Runtime, str] | None:
    frame = _receive(link)
    message = wire.decode(frame)[0] if frame else None
    if not isinstance(message, wire.Open):
        return None
    settings = msgspec.convert(message.settings, ModelSettings)
    source = ModelSource(name=message.name, version=message.version, path=Path(message.path), settings=settings)
    try:
        _limit_memory(settings.max_memory_bytes)
        runtime = open_model(source, partial(_unwanted, link))
    except ModelLoadError as error:
        _send(link, wire.LoadFailed(error.message.rstrip(".") + _memory_advice(error.__cause__) + "."))
        return None
    except Exception as error:  # a model file can make its framework raise anything
        traceback.print_exc()
        _send(link, wire.LoadFailed(f"Model {source.name}, {source.path}: {_described(error)}"))
        return None
    _warm_up(runtime)
    _send(link, wire.Opened(runtime.signature, os.getpid()))
    return runtime, source.name


def _warm_up(runtime: Runtime) -> None:
    """The first run is slow in every framework; a model that refuses made-up inputs may still serve real ones."""
    try:
        inputs = warm_up_inputs(runtime.signature)
        if inputs is not None:
            runtime.predict(inputs)
    except Exception as error:
        print(f"The warm-up run raised and is skipped: {_described(error)}", file=sys.stderr)  # noqa: T201 - the child's stderr is its log


def _serve(link: socket.socket, runtime: Runtime, model: str) -> None:
    last_error = ""
    while frame := _next(link, model):
        message, inputs = wire.decode(frame)
        if isinstance(message, wire.Withdrawn):  # it came when the answer was on its way
            continue
        try:
            reply = _compute(runtime, inputs, model)
        except Exception as error:  # whatever the model raises is an answer
            raised = _later(error) or _failed(error, model)
            # A batch is re-run in halves: once is enough. To ask for a later try is no mistake to be traced.
            if raised.after_s is None and raised.message != last_error:
                with contextlib.suppress(Exception):  # the model may have closed it
                    traceback.print_exc()
                last_error = raised.message
            reply = wire.encode(raised)
        del frame, inputs  # while waiting, hold no memory of the batch before
        _send_buffers(link, reply)
        del reply
    runtime.close()


def _unwanted(link: socket.socket) -> bool:
    """Whether nobody waits for what is being computed: while it is, the worker says nothing else, or it has ended."""
    try:
        link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # nothing has come; or this is a process that the model forked
        return False
    return True


def _compute(runtime: Runtime, inputs: wire.Tensors, model: str) -> list[wire.Buffer]:
    rows = next((len(array) for array in inputs.values()), 0) if runtime.signature.batched else 1
    outputs = checked_outputs(runtime.predict(inputs), runtime.signature, rows, model)
    return wire.encode(wire.Ran(), outputs)


def _later(error: Exception) -> wire.Raised | None:
    """The model's wish to see the inputs again. A class of its own making may hold no delay: then it is an error."""
    after_s = getattr(error, "after_s", None) if isinstance(error, Retry) else None
    if not isinstance(after_s, float) or not 0 < after_s < math.inf:
        return None
    why = _described(error).partition(": ")[2]
    if not why and isinstance(error.__cause__, Exception):
        why = _described(error.__cause__)
    return wire.Raised("failed", why, after_s)


def _failed(error: Exception, model: str) -> wire.Raised:
    return wire.Raised("invalid" if isinstance(error, InvalidRequest) else "failed", _explained(error, model))


def _explained(error: Exception, model: str) -> str:
    if isinstance(error, InvalidRequest | ModelFailed):
        return error.message[:_LONGEST_MESSAGE]
    return f"Model {model} raised {_described(error)}{_memory_advice(error)}"


def _described(error: Exception) -> str:
    with contextlib.suppress(Exception):  # a hostile __str__
        text = str(error).encode("utf-8", "replace").decode()
        return f"{type(error).__name__}: {text}"[:_LONGEST_MESSAGE] if text else type(error).__name__
    return type(error).__name__


def _next(link: socket.socket, model: str) -> bytearray | None:
    """The next frame that there is memory for; the others are answered. None at the end."""
    while True:
        try:
            return _receive(link)
        except MemoryError as error:
            _send(link, wire.Raised("failed", _explained(error, model)))


def _receive(link: socket.socket) -> bytearray | None:
    """The next frame; None at the end, which is how the worker says stop. Raises MemoryError with the frame read."""
    prefix = _receive_exactly(link, bytearray(wire.PREFIX.size), 0)
    if prefix is None:
        return None
    size = wire.frame_size(prefix)
    try:
        frame = bytearray(size)
    except MemoryError:
        _skip(link, size - len(prefix))
        raise
    frame[: len(prefix)] = prefix
    return _receive_exactly(link, frame, len(prefix))


def _skip(link: socket.socket, left: int) -> None:
    while left > 0 and (got := len(link.recv(min(left, _SKIPPED_AT_ONCE)))):
        left -= got


def _receive_exactly(link: socket.socket, buffer: bytearray, start: int) -> bytearray | None:
    with memoryview(buffer) as view:
        while start < len(buffer):
            count = link.recv_into(view[start:])
            if count == 0:
                return None
            start += count
    return buffer


def _send(link: socket.socket, message: wire.Message) -> None:
    _send_buffers(link, wire.encode(message))


def _send_buffers(link: socket.socket, buffers: list[wire.Buffer]) -> None:
    if sum(len(buffer) for buffer in buffers) < _JOIN_BELOW_BYTES:
        link.sendall(b"".join(buffers))
        return
    for buffer in buffers:
        link.sendall(buffer)


def _in_a_fork(link: socket.socket) -> None:
    """A process that the model forks neither answers in its place, nor holds the socket open, nor outlives it."""
    link.close()
    end_with(os.getppid(), signal.SIGKILL)
    for number in OF_THE_TERMINAL:  # the model's to send: multiprocessing ends its processes so
        signal.signal(number, signal.SIG_DFL)


def _heed_no_signals_of_the_terminal() -> None:
    """By handlers, which programs that the model starts do not inherit: ignored, a signal is ignored by them too."""
    for number in OF_THE_TERMINAL:
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)


def _limit_memory(most_bytes: int | None) -> None:
    """Of what a process may write to: frameworks reserve far more addresses than they use. Forks inherit the limit."""
    if most_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _memory_advice(error: BaseException | None) -> str:
    """What to add to the words of an error for which the limit may be the reason."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if not isinstance(error, MemoryError) or limit == resource.RLIM_INFINITY:
        return ""
    return f" (its process may have max_memory_bytes = {limit})"


def _send_prints_to_stderr() -> None:
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)


def _be_first_to_go() -> None:
    """When memory runs out, the kernel shall end the model rather than the worker or the broker."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the worker is gone
        main(int(sys.argv[1]))
