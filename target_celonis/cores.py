"""How many processor cores this process may use.

Hides where the system says so. Guarantees: at least one. A leaf; must not know: any other module.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def usable_cores(control_groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the cores that affinity and control group leave to this process, rounded down.

    Args:
        control_groups: Where the system shows the limits of a container.
    """
    try:
        cores = len(os.sched_getaffinity(0))  # absent on macOS and Windows
    except AttributeError:
        cores = os.cpu_count() or 1
    quota = _quota(control_groups)
    return max(1, cores if quota is None else min(cores, quota))


def _quota(control_groups: Path) -> int | None:
    """Return the cores that a container may keep busy; None where nothing limits them."""
    with suppress(OSError, ValueError):
        quota, period = (control_groups / "cpu.max").read_text().split()
        return int(quota) // int(period) if quota != "max" else None
    with suppress(OSError, ValueError):  # the older form
        quota_us = int((control_groups / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((control_groups / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us // period_us if quota_us > 0 else None
    return None
