"""All items of a paginated API that has rate limits, in the way of GitHub's."""

import asyncio
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.typedefs import StrOrURL

from retrykit import AsyncHTTPClient, OriginPause, OriginPausedError, TryAgain, retry_http
from retrykit.testing import Reply, ScriptedServer, Truncated, no_waits

# One for each server: a limit that one answer tells of holds back all calls that share it.
PAUSE = OriginPause()


async def items(client: AsyncHTTPClient, path: str) -> AsyncIterator[Any]:
    """Each item of a list, page by page."""
    url: StrOrURL | None = path
    while url is not None:
        page, url = await get_page(client, url)
        for item in page:
            yield item


@retry_http(max_retries=5, jitter="full", max_retry_after=900, pause=PAUSE)
async def get_page(client: AsyncHTTPClient, url: StrOrURL) -> tuple[list[Any], StrOrURL | None]:
    """A page, and the URL of the next one.

    The body is read inside, so that one that breaks off is retried, too. As all retries are made
    here, the client makes none. It refuses the URL of another server, which so gets no token.
    """
    async with client.request("GET", url, max_retries=1) as response:
        try:
            response.raise_for_status()
        except aiohttp.ClientResponseError as error:
            seconds = seconds_by_github(response)
            if seconds is None:  # The Retry-After of a 429 or 503 is obeyed without a word.
                raise
            PAUSE.begin(None, seconds)  # A TryAgain alone holds back this call only.
            raise TryAgain(after=seconds) from error
        links = response.links
        return await response.json(), links["next"]["url"] if "next" in links else None


def seconds_by_github(response: aiohttp.ClientResponse) -> float | None:
    """How long a limit lasts that is put in GitHub's own way; `None` where it is none."""
    headers = response.headers
    try:
        if "Retry-After" in headers:
            return float(headers["Retry-After"]) if response.status == 403 else None
        if response.status in (403, 429) and headers.get("X-RateLimit-Remaining") == "0":
            now = parsedate_to_datetime(headers["Date"])  # The server's: our clock may be wrong.
            return max(0.0, float(headers["X-RateLimit-Reset"]) - now.timestamp())
    except (KeyError, ValueError):  # A header is missing, or is no number: then it is no limit.
        pass
    return None


# --- the stage: a server with limits, and waits that take no time -----------------------------------------------------

NOON = {"Date": "Mon, 05 Jan 2026 12:00:00 GMT", "X-RateLimit-Remaining": "0"}
IN_30_SECONDS = {**NOON, "X-RateLimit-Reset": "1767614430"}
IN_AN_HOUR = {**NOON, "X-RateLimit-Reset": "1767618000"}


def script_pages(server: ScriptedServer) -> None:
    """Write three pages, of which none comes at once, and two answers that are no pages."""
    pages = [[{"name": f"repo-{page}{number}"} for number in "ab"] for page in (1, 2, 3)]
    links = [{"Link": f'<{server.url}/repos?page={page}>; rel="next"'} for page in (2, 3)]
    server.script(
        "/repos",
        *(Truncated(pages[0], headers=links[0]), Reply(200, pages[0], headers=links[0])),
        *(Reply(429, retry_after=7), Reply(200, pages[1], headers=links[1])),
        *(Reply(403, headers=IN_30_SECONDS), Reply(200, pages[2])),
    )
    server.script("/secret", 403)
    server.script("/search", Reply(403, headers=IN_AN_HOUR))


async def main() -> None:
    """Read a list, and two that can't be read now."""
    async with ScriptedServer() as server, AsyncHTTPClient(server.url) as client:
        script_pages(server)
        with no_waits() as waits:
            names = [item["name"] async for item in items(client, "/repos")]
            print("/repos:", *names)
            pages = [request.query.get("page", "1") for request in server.requests("/repos")]
            print("the server was asked for the pages", *pages)
            print("not before 7 s and 30 s had passed:", waits[1] >= 7 and waits[2] >= 30)

            for path in ("/secret", "/search", "/repos"):
                try:
                    print(path, [item async for item in items(client, path)])
                except OriginPausedError as error:
                    print(f"{path}: not sent, {error.reason}")
                except aiohttp.ClientResponseError as error:
                    notes = [note.partition("; ")[2] for note in getattr(error, "__notes__", [])]
                    print(f"{path}: {error.status}", *notes, sep=", ")


if __name__ == "__main__":
    asyncio.run(main())
