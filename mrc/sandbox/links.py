"""The links between the sandbox's sites: every connection from one site to another passes a process that can be silenced.

A link that is stopped (SIGSTOP) is what a partition of the network is to those at its ends: connections stay, new ones seem to open,
and nothing comes through; when it goes on (SIGCONT), what was under way arrives late. The process owns nothing but its sockets.

``python -m mrc.sandbox.links PORT:TO ...`` passes connections to loopback port PORT on to loopback port TO.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping

HOST = "127.0.0.1"
CHUNK = 1 << 16
CONNECT_TIMEOUT_S = 5.0


async def serve(routes: Mapping[int, int]) -> None:
    """Pass connections on until cancelled. Raises ``OSError`` where a port is taken."""
    servers = [await asyncio.start_server(_passing(to), HOST, port) for port, to in routes.items()]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def _passing(to: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                there, back = await asyncio.open_connection(HOST, to)
        except OSError:  # a time-out is one
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        except OSError:
            writer.transport.abort()
            back.transport.abort()
        finally:
            for end in (writer, back):
                with contextlib.suppress(OSError):
                    end.close()

    return passing


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on in one direction until their sender has finished, and say so to the receiver."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def arguments(routes: Mapping[int, int]) -> list[str]:
    """Return how `main` is told the routes."""
    return [f"{port}:{to}" for port, to in routes.items()]


def main(told: Iterable[str]) -> None:
    """Pass connections on until killed."""
    pairs = (one.partition(":") for one in told)
    asyncio.run(serve({int(port): int(to) for port, _, to in pairs}))


if __name__ == "__main__":
    main(sys.argv[1:])
