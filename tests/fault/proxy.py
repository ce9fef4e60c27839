# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that misbehaves when it is told to: it cuts, resets, stalls, or lets nobody in."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self


class Proxy:
    """A port on the loopback interface in front of another one. Use as a context manager.

    Everything runs on an event loop in a thread of its own; the methods may be called from any other thread.
    """

    def __init__(self, upstream: Callable[[], int]) -> None:
        """`upstream` gives the port behind it, asked for with each new connection."""
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bad-network", daemon=True)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._lost: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._refuses = False
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> int:
        """Close every connection in good form, on both sides; give how many there were."""
        return self._do(self._drop(reset=False))

    def reset(self) -> int:
        """Tear every connection: both sides get a reset (RST); give how many there were."""
        return self._do(self._drop(reset=True))

    def stall(self) -> None:
        """Pass nothing on any more, in no direction, and keep everything open."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def lose(self) -> None:
        """Forget every connection without telling: both sides think that it is there. New ones work."""
        self._do(self._forget())

    def refuse(self) -> None:
        """Drop every connection, and each new one as soon as it is made."""
        self._refuses = True
        self.reset()

    def go_on(self) -> None:
        """Behave again: what a stall held back goes on its way."""
        self._refuses = False
        self._loop.call_soon_threadsafe(self._open.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, sock=self._listener)

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        self._refuses = True
        self._open.set()
        await self._drop(reset=True)
        # One turn for each task to notice that its connection is gone.
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _forget(self) -> None:
        self._lost |= {writer for pair in self._pairs for writer in pair}

    async def _drop(self, *, reset: bool) -> int:
        pairs = list(self._pairs)
        for writer in (each for pair in pairs for each in pair):
            if reset:
                raw = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()
        return len(pairs)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream())
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:  # at the end of the proxy it is cancelled; streams do not expect that of their callbacks
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except asyncio.CancelledError:
            pass
        finally:
            self._pairs.discard(pair)
            for each in pair:
                each.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Pass on from one side to the other, and the end of it as well: what ended badly ends badly."""
        try:
            while data := await source.read(65536):
                await self._open.wait()
                if target not in self._lost:
                    target.write(data)
                    await target.drain()
            if target not in self._lost:
                target.close()
        except OSError:
            target.transport.abort()
