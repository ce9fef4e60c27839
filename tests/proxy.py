# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy with network faults: it closes, resets, stalls, drops or refuses connections."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self


class Proxy:
    """A port on the loopback interface in front of another one. Use as a context manager.

    The proxy runs on an event loop in a separate thread. Its methods may be called from any other thread.
    """

    def __init__(self, upstream: Callable[[], int]) -> None:
        """`upstream` returns the port behind the proxy, for each new connection."""
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty-network", daemon=True)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._dropped: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_refusing = False
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> int:
        """Close every connection on both sides (FIN); return their number."""
        return self._call(self._close_all(reset=False))

    def reset(self) -> int:
        """Reset every connection on both sides (RST); return their number."""
        return self._call(self._close_all(reset=True))

    def stall(self) -> None:
        """Forward nothing in either direction, and keep all connections open."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def drop(self) -> None:
        """Discard the data of every present connection: both sides consider it open. New connections work."""
        self._call(self._mark_dropped())

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is accepted."""
        self._is_refusing = True
        self.reset()

    def resume(self) -> None:
        """End a stall or a refusal. Data held by a stall is forwarded."""
        self._is_refusing = False
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._forward, sock=self._listener)

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        self._is_refusing = True
        self._flowing.set()
        await self._close_all(reset=True)
        # One turn of the loop, in which each task notices that its connection is closed.
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _mark_dropped(self) -> None:
        self._dropped |= {writer for pair in self._pairs for writer in pair}

    async def _close_all(self, *, reset: bool) -> int:
        pairs = list(self._pairs)
        for writer in (writer for pair in pairs for writer in pair):
            if reset:
                raw = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()
        return len(pairs)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream())
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:  # closing the proxy cancels it, which streams do not expect of their callbacks
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except asyncio.CancelledError:
            pass
        finally:
            self._pairs.discard(pair)
            for side in pair:
                side.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Forward data from one side to the other, then the end of the stream: a close as a close, a reset as a reset."""
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                if target not in self._dropped:
                    target.write(data)
                    await target.drain()
            if target not in self._dropped:
                target.close()
        except OSError:
            target.transport.abort()
