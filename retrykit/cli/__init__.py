"""The command line: `python -m retrykit`."""
