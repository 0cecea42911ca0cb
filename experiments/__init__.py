"""Experiments: one short file, one result, each runnable with ``python -m experiments.<name>``."""

import time

# Read before torch is imported, so that a run's total time is what its user waited for.
STARTED = time.perf_counter()
