"""Addresses: a base URL, and the paths below it. Nothing in a path leads to another server, or to other credentials."""

import posixpath
import re

from aiohttp.typedefs import StrOrURL
from yarl import URL

from retrykit.core.checks import shown_type

_ABSOLUTE = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
# By these a path would turn into the name of a server, if it were put behind one.
_LIKE_A_SERVER = ("//", "/\\", "\\", "@", ":")


class BaseURL:
    """A base URL, which all paths are below.

    Raises:
        ValueError: It names no server, or has a query or fragment.
        TypeError: It is no text.
    """

    def __init__(self, base_url: StrOrURL) -> None:
        if not isinstance(base_url, str | URL):
            raise TypeError(
                f"base_url is {shown_type(base_url)}, which is no URL; write one as a str or yarl.URL, such as"
                " 'https://api.example.com/v1'"
            )
        shown = _shown(str(base_url))
        try:
            url = URL(base_url)
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"base_url={shown} names no server; write it whole, such as 'https://api.example.com/v1'")
        if url.query_string or url.fragment:
            raise ValueError(f"base_url={shown} has a query or fragment, which no path can follow; leave it out")
        self.url = url
        self._below = str(url).rstrip("/") + "/"

    def join(self, path: StrOrURL) -> StrOrURL:
        """The address of a path; of text, it is text, since aiohttp parses that anyway.

        Raises:
            ValueError: It would lead elsewhere: to another server, to other credentials, or out of the base's own path.
            TypeError: It is no path.
        """
        text = path if isinstance(path, str) else _text_of(path)
        if "://" in text and _ABSOLUTE.match(text):
            return _same_server(self.url, path if isinstance(path, URL) else URL(text))
        if text.startswith(_LIKE_A_SERVER):
            raise ValueError(
                f"{_shown(text)} could be read as the name of a server; write the path from its slash on: '/users/1'"
            )
        address = f"{self._below}{text.removeprefix('/')}" if text and text[0] not in "?#" else f"{self.url}{text}"
        if path is text and ".." not in text and "%" not in text:
            return address
        joined = URL(address, encoded=path is not text)
        if not _directory(joined).startswith(_directory(self.url)):
            raise ValueError(
                f"{_shown(text)} leads out of {self.url.path}, which all paths are under; write the path without '..'"
            )
        return joined


def _text_of(path: object) -> str:
    if not isinstance(path, URL):
        raise TypeError(f"{path!r} is no path; write it from its slash on, such as '/users/1'")
    return str(path)


def _directory(url: URL) -> str:
    """The path, decoded and normalised once more: to some servers, %2F is a slash."""
    return posixpath.normpath(url.path).rstrip("/") + "/"


def _same_server(base: URL, url: URL) -> URL:
    """A whole address, such as a link to the next page, with the credentials of the base."""
    if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):  # origin() tells :80 from no port
        raise ValueError(f"{_shown(str(url))} is not on {base.origin()}; use a client of its own for another server")
    if (url.user, url.password) not in ((None, None), (base.user, base.password)):
        raise ValueError(
            f"an address on {base.origin()} came with credentials of its own, and those of a client are fixed; leave"
            " them out, or use a client of its own for them"
        )
    return url.with_user(base.user).with_password(base.password)


def _shown(address: str) -> str:
    """An address as it may be shown: without credentials and query."""
    return repr(re.sub(r"(?<=//).*@|^[^/]*@", "…@", address).partition("?")[0])
