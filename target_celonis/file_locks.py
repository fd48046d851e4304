"""Locks on files, by which the runs of a machine tell each other that they live.

Guarantees: never waits; the system lets go for a process that died. Must not know: what a lock is
for, or what to do when another process holds it.
"""

from __future__ import annotations


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file; return whether it is ours now.

    Where there are no such locks (Windows), everybody has it.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
