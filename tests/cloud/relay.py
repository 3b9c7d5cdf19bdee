"""A proxy in front of the providers, so that the connection to the engine can be killed.

    python -m tests.cloud.relay PORT...

Each port of a double gets a port in front of it; all are printed in one line. A double with
real machines cannot die without taking them along, so killing this process replaces killing it:
the engine loses the connection in the middle of a call.
"""

import asyncio
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward data until one side closes."""
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


async def serve(port: int) -> asyncio.Server:
    """Listen in front of one port."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    return await asyncio.start_server(join, "127.0.0.1", 0)


async def main() -> None:
    """Serve until killed."""
    servers = [await serve(int(word)) for word in sys.argv[1:]]
    sys.stdout.write(" ".join(str(s.sockets[0].getsockname()[1]) for s in servers) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
