"""podman kube play, on storage of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench import standing
from bench.peers.base import Skipped
from devcluster.commands import run, start
from devcluster.proc import Process, kill
from tests.support.images import BUSYBOX, layout
from tests.support.waiting import eventually

POD = """apiVersion: v1
kind: Pod
metadata:
  name: {name}
  # The default, "once", removes the init container after its end and fails now and then on finding it running.
  annotations: {{io.podman.annotations.init.container.type: always}}
spec:
  # podman 4.3 gives the default, Always, to init containers too, starts them again and again and waits for 20 s.
  restartPolicy: Never
  initContainers:
    - {{name: first, image: localhost/bench:1, imagePullPolicy: Never, command: [/bin/true]}}
  containers:
    - {{name: main, image: localhost/bench:1, imagePullPolicy: Never, command: [/bin/sleep, "3600"]}}
"""

CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
"""


class Podman:
    """One `podman play kube` a pod, one `podman pod rm` a deletion."""

    def __init__(self, directory: Path) -> None:
        for program in ("podman", "catatonit"):
            if shutil.which(program) is None:
                raise Skipped(f"SKIPPED: apt-get install {program}")
        self.name = "podman play kube"
        self._directory = directory
        directory.mkdir(parents=True)
        self._base = [
            "podman", "--root", str(directory / "root"), "--runroot", str(directory / "run"),
            "--tmpdir", str(directory / "tmp"), "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--runtime", "crun",
        ]  # fmt: skip
        conf = directory / "containers.conf"
        conf.write_text(CONTAINERS)
        self._environment = {**os.environ, "CONTAINERS_CONF": str(conf)}
        self._holder = _hold(directory / "log")
        self._inside = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--pid", "--"]
        for words in (["mount", "-t", "tmpfs", "tmpfs", "/run"], ["ip", "link", "set", "lo", "up"]):
            self._run(words)
        if Path("/sys/fs/cgroup/unified").is_mount():
            self._run(["umount", "/sys/fs/cgroup/unified"])
        archive = directory / "image.tar"
        source = f"oci:{layout(BUSYBOX)}:latest"
        self._run(["skopeo", "copy", "-q", source, f"docker-archive:{archive}:localhost/bench:1"])
        self._run([*self._base, "load", "-q", "-i", str(archive)])

    def start(self, pod: str) -> None:
        manifest = self._directory / f"{pod}.yaml"
        manifest.write_text(POD.format(name=pod))
        self._run([*self._base, "play", "kube", str(manifest)])

    def delete(self, pod: str) -> None:
        self._run([*self._base, "pod", "rm", "-f", "-t", "0", pod])

    def processes(self) -> set[int]:
        return standing.family(lambda line: str(self._directory) in line)

    def close(self) -> None:
        self._run([*self._base, "pod", "rm", "-f", "-a", "-t", "0"])
        self._run([*self._base, "system", "reset", "-f"])
        kill([self._holder])
        for group in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            for path, _, _ in os.walk(group, topdown=False):
                os.rmdir(path)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, argv: list[str]) -> None:
        run([*self._inside, *argv], seconds=120, environment=self._environment)


def _hold(log: Path) -> Process:
    """Namespaces of its own, kept by an init that reaps: podman waits for each conmon to be gone from the process
    table, and its firewall rules and bridge go with the namespaces.
    """
    init = ["sh", "-c", "while true; do sleep 3600 & wait; done"]
    kinds = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"]
    outer = start(["unshare", *kinds, *init], log)
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    child = eventually(lambda: children.read_text().split(), 10, "a new pid namespace")
    found = Process.of(int(child[0]))
    assert found is not None
    return found
