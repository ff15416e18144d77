"""`python -m retrykit`."""

import sys

from retrykit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
