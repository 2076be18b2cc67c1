"""Objects: typed reads, watches and compare-and-set writes over the store. Start at facade.py."""

from controlplane.objects.admission import Admission, AdmissionContext
from controlplane.objects.applied import LAST_APPLIED
from controlplane.objects.deletion import FOREGROUND, ORPHAN
from controlplane.objects.facade import SYSTEM, Clock, Objects

__all__ = ["FOREGROUND", "LAST_APPLIED", "ORPHAN", "SYSTEM", "Admission", "AdmissionContext", "Clock", "Objects"]
