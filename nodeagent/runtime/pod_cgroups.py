"""The cgroups above the containers: those of pods, of QoS classes and of all pods together.

    <root>                     all pods: the node's capacity without what is reserved
      pod<uid>                 guaranteed pods compete at the top, each with its own weight
      burstable/pod<uid>       together weigh what they request
      besteffort/pod<uid>      weigh as little as the kernel knows: they get what is left

The shape is the kubelet's (cgroupfs driver). A container's own cgroup is the OCI runtime's. Done again, finds it done.
Fails with OSError.
"""

from __future__ import annotations

import errno
from pathlib import Path

from nodeagent import smallfiles
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.limits import settings
from nodeagent.types import Resources

_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


class PodCgroups:
    """The cgroups of one node's pods below `root`."""

    def __init__(self, cgroups: Cgroups, root: str) -> None:
        self._cgroups, self._root = cgroups, root

    def open(self, all_pods: Resources) -> None:
        """Make the tree. `all_pods`: what the pods may have together."""
        self.make(self._root, all_pods)
        for qos in ("burstable", "besteffort"):
            self.make(f"{self._root}/{qos}", Resources())

    def make(self, cgroup: str, asked: Resources) -> None:
        """Make a cgroup that enforces `asked`."""
        self._cgroups.create(cgroup)
        if self._cgroups.version == 2:
            self._delegate(cgroup)
        for controller, file, text in settings(asked, self._cgroups.version):
            _write(self._cgroups.tree_of(controller) / cgroup / file, text)

    def weigh_burstable(self, milli: int) -> None:
        """What the burstable pods request of the CPU, all together."""
        asked = Resources(cpu_request=milli)
        controller, file, text = next(settings(asked, self._cgroups.version))
        _write(self._cgroups.tree_of(controller) / self._root / "burstable" / file, text)

    def _delegate(self, cgroup: str) -> None:
        """v2: a cgroup has a controller's files only where all above it hand the controller down."""
        tree = self._cgroups.trees[0]
        for parent in reversed([tree / cgroup, *(tree / cgroup).parents]):
            if not parent.is_relative_to(tree):
                continue
            given = set((parent / "cgroup.subtree_control").read_text().split())
            for controller in set(_CONTROLLERS) & set((parent / "cgroup.controllers").read_text().split()) - given:
                _write(parent / "cgroup.subtree_control", f"+{controller}")


def _write(path: Path, text: str) -> None:
    try:
        smallfiles.tell(path, text.encode())
    except FileNotFoundError:
        # A kernel without this controller or without bandwidth control: the runtime goes without as well.
        if path.parent.exists():
            return
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:  # a limit below what is in use, of a pod that an earlier agent began
            return
        raise OSError(error.errno, f"cannot write {text} to {path}: {error.strerror}") from error
