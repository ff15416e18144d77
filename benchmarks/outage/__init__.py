"""What retries do to a server in trouble, and what keeps them from it: real processes, real requests.

python -m benchmarks outage --help
"""

from benchmarks import ROOT

RESULTS = ROOT / "benchmarks" / "outage.json"
"""What was measured last."""
