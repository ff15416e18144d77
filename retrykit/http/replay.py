"""Can this request body be sent again?"""

from collections.abc import Mapping
from typing import Any

_SENT_WHOLE = (bytes, bytearray, memoryview, str)


def unsendable_body(data: Any) -> str | None:
    """The type of a body that can't be sent a second time, as it is named in messages; `None` where it can.

    Text and bytes can, and so can the fields of a form whose values are such. A generator, a pipe, an open file or a
    form object can't: once sent, they are used up, and would go empty or cut.
    """
    if data is None or isinstance(data, _SENT_WHOLE) or _is_plain_form(data):
        return None
    return type(data).__name__


def _is_plain_form(data: Any) -> bool:
    if isinstance(data, Mapping):
        return all(isinstance(value, (*_SENT_WHOLE, int, float)) for value in data.values())
    return isinstance(data, list | tuple) and all(
        isinstance(pair, tuple) and all(isinstance(part, (*_SENT_WHOLE, int, float)) for part in pair) for pair in data
    )
