"""Many calls with a progress bar. It needs rich: `pip install rich`."""

import asyncio

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retrykit import AsyncHTTPClient, fetch_all
from retrykit.testing import ScriptedServer, no_waits


def bar() -> Progress:
    """A line on standard error, so that results on standard output can go to a file."""
    counts = TextColumn("{task.fields[retries]} retries, {task.fields[failed]} failed")
    columns = BarColumn(20), MofNCompleteColumn(), counts, TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


async def prices(client: AsyncHTTPClient, paths: list[str]) -> dict[str, int]:
    """Those that can be had, by their paths; the others are named above the bar."""
    found: dict[str, int] = {}
    retries = failed = 0
    with bar() as progress:
        task = progress.add_task("", total=len(paths), retries=0, failed=0)
        async with fetch_all(paths, client.get, concurrency=10) as results:
            async for fetched in results:
                retries += fetched.attempts - 1
                if fetched.error is None:
                    found[fetched.item] = fetched.result()["price"]
                else:
                    failed += 1
                    progress.console.print(fetched.item, type(fetched.error).__name__)
                progress.update(task, advance=1, retries=retries, failed=failed)
    return found


# --- the stage: a server that fails, and waits that take no time ------------------------------------------------------


async def main() -> None:
    """Fetch a hundred prices; every fourth call is retried, and one is in vain."""
    paths = [f"/items/{number}" for number in range(100)]
    async with ScriptedServer() as server, AsyncHTTPClient(server.url) as client:
        for number, path in enumerate(paths):
            server.script(path, *([503] if number % 4 == 0 else []), {"price": number})
        server.script("/items/13", 404)
        with no_waits():
            found = await prices(client, paths)
    print(f"{len(found)} prices, {sum(found.values())} in total")


if __name__ == "__main__":
    asyncio.run(main())
