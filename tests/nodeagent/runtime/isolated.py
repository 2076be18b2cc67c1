"""Runs a command in a private mount namespace where cgroups are not hybrid, so that crun can be tried anywhere."""

from __future__ import annotations

import contextlib
import os
import sys

from nodeagent import syscalls


def main() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    with contextlib.suppress(OSError):
        syscalls.umount2("/sys/fs/cgroup/unified")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
