"""How much is measured: all of it, or just enough to see that it works."""

from typing import NamedTuple


class Effort(NamedTuple):
    """How often, and for how long."""

    stretch: float
    """Seconds for which one case of a call without a network runs in a round."""
    rounds: int
    """Rounds of these."""
    wire_calls: int
    """GETs that one case sends in a round."""
    wire_rounds: int
    waiting: int
    """Calls whose memory is measured while they wait."""
    waiting_rounds: int
    cancelled: int
    """Calls that are cancelled while they wait."""
    cancelling_rounds: int
    import_rounds: int
    collected: int
    """Calls after which garbage is looked for."""
    crawled: int
    """URLs that are fetched, many at once, in a round."""
    crawl_rounds: int
    few_items: int
    """Items over which memory is compared: few, and"""
    many_items: int
    """many."""


FULL = Effort(
    stretch=0.003,
    rounds=300,
    wire_calls=100,
    wire_rounds=500,
    waiting=10_000,
    waiting_rounds=2,
    cancelled=100_000,
    cancelling_rounds=6,
    import_rounds=25,
    collected=1000,
    crawled=10_000,
    crawl_rounds=25,
    few_items=10_000,
    many_items=1_000_000,
)

SMOKE = Effort(
    stretch=0.0001,
    rounds=2,
    wire_calls=50,
    wire_rounds=1,
    waiting=100,
    waiting_rounds=1,
    cancelled=100,
    cancelling_rounds=1,
    import_rounds=1,
    collected=10,
    crawled=200,
    crawl_rounds=1,
    few_items=100,
    many_items=1000,
)
