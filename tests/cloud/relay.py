"""The providers' process as the engine knows it: what it says goes through here, and may die.

    python -m tests.cloud.relay PORT...

Each port of a double gets one in front of it; all of them are printed in one line. A double with
real machines cannot die itself without taking them along, so a kill of this stands for its own:
the engine loses the connection in the midst of a call.
"""

import asyncio
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes until one side ends."""
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
