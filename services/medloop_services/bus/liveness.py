"""Whether a Kafka broker answers: one ApiVersions request, which every version understands."""

from __future__ import annotations

import asyncio
import ssl
import struct

PATIENCE_S = 2.0
_CLIENT = b"medloop"
_API_VERSIONS = struct.pack(">hhih", 18, 0, 1, len(_CLIENT)) + _CLIENT
REQUEST = struct.pack(">i", len(_API_VERSIONS)) + _API_VERSIONS


async def broker_answers(bootstrap: str, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether any of the bootstrap servers answers, by TLS if so; nobody has to have signed in."""
    for server in bootstrap.split(","):
        host, _, port = server.rpartition(":")
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
                try:
                    writer.write(REQUEST)
                    await writer.drain()
                    await reader.readexactly(8)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            continue
        return True
    return False
