"""Which TCP ports of a guest answer from outside, all 65,535 of them."""

import asyncio
import errno

AT_ONCE = 400
PATIENCE_S = 0.35


async def _open(address: str, port: int, gate: asyncio.Semaphore) -> bool:
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE_S)
        except (TimeoutError, ConnectionRefusedError):
            return False
        except OSError as error:
            if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET):
                return False
            raise
        writer.close()
        return True


async def _scan(address: str, ports: range) -> set[int]:
    gate = asyncio.Semaphore(AT_ONCE)
    found = await asyncio.gather(*(_open(address, port, gate) for port in ports))
    return {port for port, answered in zip(ports, found, strict=True) if answered}


def open_ports(address: str, ports: range = range(1, 65536)) -> set[int]:
    """The ports that take a connection."""
    return asyncio.run(_scan(address, ports))
