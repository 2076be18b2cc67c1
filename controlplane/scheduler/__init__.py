"""The scheduler: gives every pod without a node the best one, and says why where there is none."""

from controlplane.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
