"""Objects: typed reads, watches and compare-and-set writes over the store. Start at facade.py."""

from controlplane.objects.admission import Admission
from controlplane.objects.applied import LAST_APPLIED
from controlplane.objects.deletion import FOREGROUND, ORPHAN
from controlplane.objects.facade import Clock, Objects

__all__ = ["FOREGROUND", "LAST_APPLIED", "ORPHAN", "Admission", "Clock", "Objects"]
