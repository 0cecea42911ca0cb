"""Experiments: one short file, one result, each runnable with ``python -m experiments.<name>``."""

import sys
import time

# Read before torch is imported, so that a run's total time is what its user waited for.
STARTED = time.perf_counter()

if sys.argv[:1] == ["-m"]:  # this process is an experiment's: nobody else's settings are changed
    from experiments.process import begin

    begin()
