"""A model's process as the worker sees it: started, asked one batch at a time, and its end noticed.

Stands between the served version and child, over a socket pair, with a guardian as the child's parent. What the model
does is a value: outputs, `Raised` (the process goes on) or `Died` (it does not). Knows nothing of requests or queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import numpy as np

from modelmq.errors import ModelFailed, ModelLoadError
from modelmq.messages import BODY_LIMIT_BYTES
from modelmq.metadata import Signature
from modelmq.runtimes import ModelSource
from modelmq.worker import guardian, wire
from modelmq.worker.wire import Raised, Tensors

MOST_OUTPUT_BYTES = 256 * 1024**2
"""Of one run, where no single reply may need more: what a model gives, its worker must hold beside all else."""
_BYTES_PER_CHARACTER = 4
"""At most so many bytes of a tensor become one of JSON: two of them, as in `0,`, are a number of eight bytes."""
_CLOSE_TIMEOUT_S = 2.0
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


class Died(msgspec.Struct, frozen=True):
    """The process ended, by itself or because it was hung; the batch has no result."""

    reason: str


Result = Tensors | Raised | Died


class ModelProcess:
    """One model in its own process. Made by `start`; one `run` at a time; `close` may be called at any time."""

    def __init__(
        self, source: ModelSource, process: asyncio.subprocess.Process, ended: asyncio.Task[int], pipe: _Pipe
    ) -> None:
        self._source = source
        self._guardian = process
        self._ended = ended
        self._pipe = pipe
        self._killed_for = ""
        self.signature: Signature = Signature("", (), (), batched=False)
        self.pid = 0
        """The operating system's number of the process that computes; 0 until it has loaded."""

    @property
    def alive(self) -> bool:
        """False as soon as the process's end of the socket is gone."""
        return not self._pipe.lost

    async def run(self, inputs: Mapping[str, np.ndarray[Any, Any]], *, max_run_s: float) -> Result:
        """Compute one batch. A model that takes longer than `max_run_s` is hung and is ended."""
        hung = f"ran longer than max_run_s = {max_run_s:g} and was ended"
        try:
            answer = await self._ask(wire.encode(wire.Run(), inputs), hung, max_run_s)
        except ModelFailed as error:
            return Raised(error.code, error.message)
        if isinstance(answer, Died):
            return answer
        message, tensors = answer
        if isinstance(message, wire.Ran):
            return tensors
        return message if isinstance(message, Raised) else await self._end("broke the worker's protocol")

    def nobody_waits(self) -> None:
        """For the run that is under way: the model may stop, if it looks; it answers in any case."""
        self._pipe.say(wire.encode(wire.Withdrawn()))

    async def close(self) -> None:
        """Let the process end by itself, then not any more. Waits until it is gone. Idempotent."""
        await self._until_gone("was told to stop")

    async def open(self, timeout_s: float) -> None:
        """Load the model and warm it up. Raises ModelLoadError; the process is then gone."""
        source = self._source
        settings = msgspec.to_builtins(source.settings)
        request = wire.encode(wire.Open(source.name, source.version, str(source.path), settings))
        late = f"took longer than worker.load_timeout_s = {timeout_s:g} to load and was ended"
        answer = await self._ask(request, late, timeout_s)
        if not isinstance(answer, Died):
            message, _ = answer
            if isinstance(message, wire.Opened):
                self.signature, self.pid = message.signature, message.pid
                return
            answer = await self._end("broke the worker's protocol")
            if isinstance(message, wire.LoadFailed):
                raise ModelLoadError(message.message)
        raise ModelLoadError(
            f"Model {source.name} version {source.version} ({source.path}): its process {answer.reason} while loading."
        )

    async def _ask(self, request: list[wire.Buffer], too_long: str, timeout_s: float) -> tuple[Any, Tensors] | Died:
        timer = asyncio.get_running_loop().call_later(timeout_s, self._give_up, too_long)
        try:
            frame = await self._pipe.ask(request)
        finally:
            timer.cancel()
        if frame is None:
            return await self._end("closed its connection to the worker")
        try:
            return wire.decode(frame)
        except ModelFailed as error:
            return await self._end(f"answered what cannot be read ({error.message})")

    async def _end(self, why_we_end_it: str) -> Died:
        """What is known of the end of a process that is of no use any more; makes sure that it is one."""
        status = await self._until_gone(why_we_end_it)
        return Died(self._killed_for or _ending(status))

    async def _until_gone(self, why_we_end_it: str) -> int:
        """The status with which it ended: by itself, else told to, else, if its guardian does not act, killed."""
        self._pipe.close()
        for end in (self._kill, self._kill_guardian):
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(self._ended), _CLOSE_TIMEOUT_S)
            end(why_we_end_it)
        return await asyncio.shield(self._ended)

    def _give_up(self, reason: str) -> None:
        """Also when it ended long ago and something that it started holds its end of the socket."""
        self._kill(reason)
        self._pipe.drop()

    def _kill(self, reason: str) -> None:
        if self._guardian.returncode is None:
            self._killed_for = reason
            with contextlib.suppress(ProcessLookupError):
                self._guardian.send_signal(guardian.END)

    def _kill_guardian(self, _reason: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._guardian.kill()


async def start(
    source: ModelSource, *, load_timeout_s: float, on_end: Callable[[], None], max_reply_bytes: int = BODY_LIMIT_BYTES
) -> ModelProcess:
    """A process with the model loaded and warm; `on_end` is called once when it is gone. Raises ModelLoadError.

    Outputs that cannot be replies of `max_reply_bytes` are not taken: the run counts as raised.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            *_command(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=_environment(os.environ, source.settings.threads),
        )
    except OSError as error:
        ours.close()
        raise ModelLoadError(f"Model {source.name}: its process cannot be started: {error}.") from error
    finally:
        theirs.close()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    most = max(MOST_OUTPUT_BYTES, _BYTES_PER_CHARACTER * max_reply_bytes)
    _, pipe = await loop.create_unix_connection(lambda: _Pipe(on_end, source.name, most), sock=ours)
    model = ModelProcess(source, process, asyncio.create_task(_ended(process)), pipe)
    try:
        await model.open(load_timeout_s)
    except BaseException:
        await model.close()
        raise
    return model


async def _ended(process: asyncio.subprocess.Process) -> int:
    """A guardian's status; what it left behind is ended with it, if a signal ended it.

    It may have been killed, or have ended like its model, when nothing is left. At once, because the number of a group
    that is gone may soon be a stranger's.
    """
    status = await process.wait()
    if status < 0:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return status


def _command(link: int) -> list[str]:
    """The guardian is a file of its own, so that it starts without what the model's process needs."""
    model = (sys.executable, "-P", "-m", "modelmq.worker.child", str(link))
    return [sys.executable, "-I", "-S", guardian.__file__, str(os.getpid()), str(link), *model]


def _environment(ours: Mapping[str, str], threads: int) -> dict[str, str]:
    """Model code gets no secrets of ours, and as many threads as its settings say: cores are shared by models."""
    kept = {name: value for name, value in ours.items() if not name.startswith("MODELMQ_")}
    return kept | dict.fromkeys(_THREAD_VARIABLES, str(threads))


def _ending(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


class _Pipe(asyncio.Protocol):
    """The worker's end of the socket: one question at a time, its answer a whole frame or None."""

    def __init__(self, on_end: Callable[[], None], model: str, most_bytes: int) -> None:
        self.lost = False
        self._on_end = on_end
        self._model = model
        self._most_bytes = most_bytes
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytearray | None] | None = None
        self._frame = bytearray()
        self._size = 0
        self._skipped = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    async def ask(self, request: list[wire.Buffer]) -> bytearray | None:
        """Raises ModelFailed for an answer that is too large, once it has passed."""
        if self.lost or self._transport is None:
            return None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(request)
        return await self._answer

    def say(self, word: list[wire.Buffer]) -> None:
        """What needs no answer."""
        if not self.lost and self._transport is not None:
            self._transport.writelines(word)

    def data_received(self, data: bytes) -> None:
        frame = self._frame
        frame += data
        if not self._size and len(frame) >= wire.PREFIX.size:
            try:
                self._size = wire.frame_size(frame)
            except ModelFailed:
                self.drop()
                return
        if self._size > self._most_bytes:
            self._skip()
        elif self._size and len(frame) >= self._size:
            self._frame, self._size = bytearray(), 0
            self._resolve(frame)

    def _skip(self) -> None:
        """Let a frame pass that there is no room for. Nothing comes behind it."""
        self._skipped += len(self._frame)
        self._frame.clear()
        if self._skipped >= self._size:
            told = f"The outputs of model {self._model} have {self._size} bytes; one run may give {self._most_bytes}."
            self._size = self._skipped = 0
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(ModelFailed(told))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the process's status says more
        self.drop()
        self._on_end()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """No answer comes any more."""
        self.lost = True
        self.close()
        self._resolve(None)

    def _resolve(self, frame: bytearray | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(frame)
