"""What a retry is."""

import aiohttp as _aiohttp

# pip sees to it, unless it is told not to. Without this, what is missing would be a name that tells nobody anything.
if not hasattr(_aiohttp, "ClientHandlerType"):
    raise ImportError(
        f"retrykit needs aiohttp 3.12 or newer, and this is {_aiohttp.__version__}; install it: pip install"
        " 'aiohttp>=3.12'"
    )
