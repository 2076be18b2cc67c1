"""The bundle of a container: its record, root filesystem, termination message file and config.json on disk.

Everything here blocks for a short time: call it in a thread. The record is written first (what is to be undone must
be known), config.json last. Fails with OSError and RuntimeFailure; what was made stays for remove().
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from nodeagent import smallfiles
from nodeagent.runtime import logs, spec, users
from nodeagent.runtime.conmon import Files
from nodeagent.runtime.filters import Filters
from nodeagent.runtime.image import Image, stop_signal
from nodeagent.runtime.record import Record, read_record
from nodeagent.runtime.rootfs import Rootfs, remove_tree
from nodeagent.types import ContainerRequest, Mount


class Bundles:
    """Makes bundles below run/containers and reads their records."""

    def __init__(self, state: Path, run: Path, rootfs: Rootfs, filters: Filters, facts: spec.Facts) -> None:
        self._state, self._run, self._rootfs, self._facts = state, run, rootfs, facts
        self.filters = filters
        self._records: dict[str, Record] = {}

    def make(self, request: ContainerRequest, image: Image) -> tuple[Record, str]:
        """Make everything that `create` needs; returns the record and the key of the seccomp filter."""
        files = Files(self._run, request.id)
        smallfiles.directories(files.bundle, files.persist, mode=0o700)
        log = logs.path(self._state, request)
        message = self._rootfs.scratch(request.id) / "termination-log"
        record = Record(request.id, request.cgroup, str(log),
                        str(message) if request.termination_message_path else "", request.image,
                        stop_signal(image.stop_signal), request.log_is_message)  # fmt: skip
        write_private(files.record, json.dumps(asdict(record)))
        self._records[request.id] = record
        smallfiles.directories(*reversed(log.parents[:3]), mode=0o750)
        root = self._rootfs.mount(image, request.id)
        user = users.resolve(request.security, image.user, users.read_accounts(root.path))
        filter, key = self.filters.filter(request.security.seccomp, spec.capability_names(request, self._facts))
        asked = self._with_message(request, message)
        config = spec.oci_spec(asked, image, root, user, self._facts, filter)
        write_private(files.bundle / "config.json", json.dumps(config))
        return record, key

    def record(self, id: str) -> Record | None:
        """A container's record; None where there is none or it was not written to its end."""
        if id not in self._records:
            found = read_record(Files(self._run, id))
            if found is None:
                return None
            self._records[id] = found
        return self._records[id]

    def remove(self, id: str) -> None:
        """Delete the bundle, the record at the very end: what is half removed must still be known."""
        files = Files(self._run, id)
        with contextlib.suppress(FileNotFoundError):
            for path in files.bundle.iterdir():
                if path != files.record:
                    remove_tree(path)
        remove_tree(files.bundle)
        self._records.pop(id, None)

    def remove_log(self, request: ContainerRequest) -> None:
        """Delete the log directory of a pod that nobody will ask for."""
        remove_tree(logs.path(self._state, request).parent.parent)

    def _with_message(self, request: ContainerRequest, message: Path) -> ContainerRequest:
        if not request.termination_message_path:
            return request
        fd = os.open(message, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        os.fchmod(fd, 0o666)
        os.close(fd)
        mount = Mount(message, request.termination_message_path, recursive=False)
        return replace(request, mounts=(*request.mounts, mount))


def write_private(path: Path, text: str) -> None:
    """Write a file that only root reads: it may hold secrets."""
    smallfiles.write(path, text.encode())
