"""Everything at once, for long: `python -m tests.soak`."""
