"""What a retry costs: retrykit and others like it, over code that has no library in it.

python -m benchmarks --help
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The work tree: other processes start here, so that they find this package."""

RESULTS = ROOT / "benchmarks" / "results.json"
"""What was measured last."""
