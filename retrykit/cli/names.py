"""The name of the file that a URL is saved as: its own as far as that is safe, on any system."""

import os
import re
import unicodedata

from yarl import URL

_DEFAULT = "index.html"
_LONGEST = 200
"""Bytes of UTF-8. Most file systems take 255, of which a download needs some for the names beside it."""

_SEPARATORS_AND_WILDCARDS = frozenset('/\\<>:"|?*')
# On Windows they are devices, whatever follows the dot.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³]|conin\$|conout\$) *(?:\..*)?", re.IGNORECASE)
# What the files are called in which a download keeps what it has.
_OF_DOWNLOADS = re.compile(r"\.part(?=(?:\.json(?:\.new)?)?$)", re.IGNORECASE)
_SUFFIX = re.compile(r"(?<=.)(?:\.tar)?\.[^.]{1,12}$", re.IGNORECASE)


def name_of(url: URL, digest: str = "") -> str:
    """The last segment of the path, made safe: no separators, no control characters, no leading dots, not too long.

    Args:
        url: Of the file.
        digest: Goes in before the suffix, so that it has another name than another file.
    """
    chars = (char if _is_safe(char) else "_" for char in unicodedata.normalize("NFC", url.name))
    name = "".join(chars).strip(" .") or _DEFAULT
    found = _SUFFIX.search(name)
    suffix = found[0] if found else ""
    end = f"-{digest}{suffix}" if digest else suffix
    room = _LONGEST - len(end.encode())
    stem = _cut(name.removesuffix(suffix), room)
    if _RESERVED.fullmatch(f"{stem}{end}"):
        stem = _cut(f"_{stem}", room)
    return _OF_DOWNLOADS.sub("_part", f"{stem}{end}")


def _is_safe(char: str) -> bool:
    return char.isprintable() and char not in _SEPARATORS_AND_WILDCARDS and _has_bytes(char)


def _has_bytes(char: str) -> bool:
    """Has it any in the encoding of the system's names? That may be another one than UTF-8."""
    try:
        os.fsencode(char)
    except UnicodeEncodeError:
        return False
    return True


def _cut(text: str, size: int) -> str:
    """No more of it than so many bytes."""
    return text.encode()[:size].decode(errors="ignore").rstrip(" .")
