"""aiohttp requests under retry."""
