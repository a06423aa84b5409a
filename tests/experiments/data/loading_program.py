"""Loads a batch in two processes, says so, and then trains on it for a minute."""

import signal
import time

from experiments.data.batches import Batches

if __name__ == '__main__':
    # Some shells start what runs in the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Batches(list(range(100)), 4, workers=2) as batches:
        next(batches)
        time.sleep(0.5)  # those ahead are loaded too; the processes wait
        print('loaded', flush=True)
        time.sleep(60)
