"""Bodies that break off, and arrive whole: as a stream, as a file, and many of them at once."""

import asyncio
import hashlib
import logging
import tempfile
from pathlib import Path

import aiohttp

from retrykit import Fetched, download, fetch_all, stream
from retrykit.testing import Reply, Resumable, ScriptedServer, Truncated

BODY = b"0123456789" * 10_000


async def streamed(server: ScriptedServer) -> None:
    """Read a body whose connection breaks twice."""
    server.script("/log", Resumable(BODY, sent=30_000), Resumable(BODY, sent=30_000), Resumable(BODY))
    received = 0
    async with stream(f"{server.url}/log", base_delay=0.01) as body:
        async for chunk in body:
            received += len(chunk)
    asked = [request.headers.get("Range") for request in server.requests("/log")]
    print(f"stream: {received} of {body.size} bytes, by {asked}")


async def not_resumable(server: ScriptedServer) -> None:
    """Read one that names nothing by which its rest could be asked for."""
    server.script("/report", Truncated(BODY))
    try:
        async with stream(f"{server.url}/report", base_delay=0.01) as body:
            await body.read()
    except aiohttp.ClientPayloadError as error:
        print("stream:", error.__notes__[0].partition("; ")[2].partition(" (GET")[0])


async def downloaded(server: ScriptedServer, folder: Path) -> None:
    """Have a file, although the server can't resume its body: it begins again."""
    server.script("/file", Truncated(BODY), Truncated(BODY), Reply(body=BODY))
    digest = hashlib.sha256(BODY).hexdigest()
    path = await download(f"{server.url}/file", folder / "file", sha256=digest, base_delay=0.01)
    print(f"download: {path.name} with {path.stat().st_size} bytes, by {len(server.requests('/file'))} requests")


async def many(server: ScriptedServer) -> None:
    """Fetch a hundred URLs, of which two fail."""
    for number in range(100):
        server.script(f"/items/{number}", 404 if number in (13, 77) else {"number": number})
    urls = [f"{server.url}/items/{number}" for number in range(100)]
    async with fetch_all(urls, concurrency=10) as results:
        done: list[Fetched[str, dict[str, int]]] = [fetched async for fetched in results]
    failed = sorted(int(fetched.item.rpartition("/")[2]) for fetched in done if fetched.error is not None)
    print(f"fetch_all: {len(done)} results, failed {failed}")


async def main() -> None:
    """Do all of it, against a server that breaks off."""
    logging.getLogger("retrykit").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedServer() as server:
            await streamed(server)
            await not_resumable(server)
            await downloaded(server, Path(folder))
            await many(server)


if __name__ == "__main__":
    asyncio.run(main())
