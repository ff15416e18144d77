"""Bodies that break off, and arrive whole: as a stream, as a file, and many of them at once."""

import asyncio
import hashlib
import tempfile
from pathlib import Path

import aiohttp

from retrykit import download, fetch_all, stream
from retrykit.testing import Reply, Resumable, ScriptedServer, Truncated, no_waits


async def count_bytes(url: str) -> int:
    """Read a body piece by piece. Each byte comes once, and in order, though connections break."""
    received = 0
    async with stream(url) as body:
        async for chunk in body:
            received += len(chunk)
    return received


async def save(url: str, path: Path, digest: str) -> Path:
    """Have a file, whole or not at all. Where the server can't resume its body, it begins again."""
    return await download(url, path, sha256=digest)


async def sum_of_numbers(urls: list[str]) -> tuple[int, list[str]]:
    """Fetch many, ten at a time; a call that fails ends none of the others."""
    total, failed = 0, []
    async with fetch_all(urls, concurrency=10, ordered=True) as results:
        async for fetched in results:
            if fetched.error is None:
                total += fetched.result()["number"]
            else:
                failed.append(str(fetched.error))
    return total, failed


# --- the stage: a server that breaks off, and waits that take no time -------------------------------------------------

BODY = b"0123456789" * 10_000


async def show_stream(server: ScriptedServer) -> None:
    """Show by which requests a stream goes on, and what is said where it can't."""
    server.script("/log", Resumable(BODY, sent=30_000), Resumable(BODY, sent=30_000), Resumable(BODY))
    print("stream:", await count_bytes(f"{server.url}/log"), "bytes")
    print("the server was asked for", [request.headers.get("Range", "all") for request in server.requests("/log")])

    server.script("/report", Truncated(BODY))
    try:
        await count_bytes(f"{server.url}/report")
    except aiohttp.ClientPayloadError as error:
        why = error.__notes__[0].partition("; ")[2].partition(" (GET")[0]
        print(f"stream: {type(error).__name__}\n  {why}")


async def show_download(server: ScriptedServer) -> None:
    """Show how a download begins again."""
    server.script("/file", Truncated(BODY), Truncated(BODY), Reply(body=BODY))
    with tempfile.TemporaryDirectory() as folder:
        path = await save(f"{server.url}/file", Path(folder, "file"), hashlib.sha256(BODY).hexdigest())
        print(f"download: {path.stat().st_size} bytes, by {len(server.requests('/file'))} requests")


async def show_many(server: ScriptedServer) -> None:
    """Show a hundred calls, of which two fail."""
    for number in range(100):
        server.script(f"/items/{number}", 404 if number in (13, 77) else {"number": number})
    total, failed = await sum_of_numbers([f"{server.url}/items/{number}" for number in range(100)])
    print(f"fetch_all: the sum is {total}, and these failed:", *failed, sep="\n  ")


async def main() -> None:
    """Show all three."""
    with no_waits():
        async with ScriptedServer() as server:
            await show_stream(server)
            await show_download(server)
            await show_many(server)


if __name__ == "__main__":
    asyncio.run(main())
