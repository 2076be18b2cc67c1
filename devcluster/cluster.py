"""START HERE: a cluster's whole life: up, down, and what a test does to a single daemon in between.

`up` starts what is missing and changes nothing else; `down` removes everything, whatever state it is in. What
stands is written to `cluster.json` in the cluster's directory before it is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster import census, network
from devcluster.commands import run, start, tail
from devcluster.errors import DevClusterError
from devcluster.proc import Process, end, kill, wait_for
from devcluster.record import Record, load

CHECKOUT = Path(__file__).resolve().parent.parent
# Where the clusters of the demo, the tests and the benches are; `make up` has its own in .run.
CLUSTERS = CHECKOUT / ".clusters"
PEOPLE_PORT, NODES_PORT = 7443, 7444

HINTS = """
The cluster is up. podctl in this virtual environment finds it by itself:

  export PATH={bin}:$PATH
  podctl get nodes
  podctl apply -f examples/hello.yaml
  podctl get pods --watch

With grpcurl (the token stays out of the arguments):

  export PODPLANE_TOKEN=$(cat {root}/admin.token)
  grpcurl -cacert {authority} -expand-headers -H 'authorization: Bearer ${{PODPLANE_TOKEN}}' {server} list
  grpcurl -cacert {authority} -expand-headers -H 'authorization: Bearer ${{PODPLANE_TOKEN}}' \\
    -d '{{"namespace": "default"}}' {server} podplane.v1.Pods/List

A NodePort answers on every node, for example http://{node}:30080/. `make down` removes everything."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a cluster is started with beyond its size."""

    registries_conf: Path | None = None
    runtime: str = "auto"
    control_plane: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()


class Cluster:
    """A control plane on this machine and nodes in namespaces, all below one directory."""

    def __init__(self, root: Path, options: Options | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self.root = root.resolve()
        self.options = options or Options()
        self._say = say
        self._tag = hashlib.sha256(str(self.root).encode()).hexdigest()[:6]
        self._record = load(self.root, self._tag)

    # -- where things are

    @property
    def context(self) -> Path:
        """podctl's configuration for this cluster."""
        return self.root / "config"

    @property
    def address(self) -> str:
        """This machine's address on the cluster's network: nodes reach the control plane there."""
        return self._ip(1)

    @property
    def server(self) -> str:
        """host:port of the API for people."""
        return f"{self.address}:{PEOPLE_PORT}"

    @property
    def certificate_authority(self) -> Path:
        return self.root / "controlplane" / "pki" / "ca.crt"

    @property
    def token_file(self) -> Path:
        """The administrator's token."""
        return self.root / "admin.token"

    @property
    def podctl(self) -> Path:
        return _program("podctl")

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that were made."""
        return sorted(name for name in self._record.holders if name.startswith("node-"))

    def node_address(self, name: str) -> str:
        """The InternalIP of a node."""
        return self._ip(10 + int(name.removeprefix("node-")))

    def cgroup(self, name: str) -> str:
        """Where a node's agent keeps its pods' cgroups: all nodes share this machine's."""
        return f"podplane-{self._tag}-{name}"

    def log(self, name: str) -> Path:
        """The output of a daemon: controlplane, node-1."""
        return self.root / "logs" / f"{name}.log"

    def process(self, name: str) -> Process | None:
        """A daemon's process while it lives, whoever started it."""
        process = self._record.daemons.get(name)
        if process and process.alive:
            return process
        state = str(self.root / name)
        return next((found for found, words in census.daemons(self.root).items() if state in words), None)

    def holder(self, node: str) -> Process:
        """The process that keeps a node's namespaces."""
        return self._record.holders[node]

    def inside(self, node: str, argv: Sequence[str | Path]) -> list[str]:
        """The command that runs `argv` on a node."""
        return network.enter(self._record.holders[node], argv)

    # -- up

    def up(self, nodes: int) -> None:
        """Start what is missing; DevClusterError says what could not be done, with the daemon's last words."""
        if os.geteuid() != 0:
            raise DevClusterError("root is needed to make namespaces: run it with sudo")
        self.root.mkdir(parents=True, exist_ok=True)
        self._switch()
        self.start_control_plane()
        for number in range(1, nodes + 1):
            self.start_node(f"node-{number}")

    def start_control_plane(self) -> None:
        """init where it was never done, and serve until it answers."""
        if self.process("controlplane"):
            return
        state = self.root / "controlplane"
        if not self.token_file.exists():
            self._say("making the cluster's certificate authority and store")
            run([_program("podplane-controlplane"), "init", "--state-dir", state, "--advertise", self.address,
                 "--context-file", self.context, "--context", "podplane"], seconds=60)  # fmt: skip
            token = run([_program("podplane-controlplane"), "token", "--state-dir", state, "--user", "admin",
                         "--role", "admin", "--ttl", "8760h"], seconds=60)  # fmt: skip
            _write_private(self.token_file, token)
        self._say("starting the control plane")
        serve: list[str | Path] = [_program("podplane-controlplane"), "serve", "--state-dir", state,
                 "--listen", f"{self.address}:{PEOPLE_PORT}", "--node-listen", f"{self.address}:{NODES_PORT}",
                 "--advertise", self.address, *self.options.control_plane]  # fmt: skip
        self._start_daemon("controlplane", serve)
        self._await_daemon("controlplane", self._answers, "the control plane's first answer")

    def start_node(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """A node's namespaces and its agent, where they are missing. `environment`: what the agent has beside ours."""
        if name not in self._record.holders or not self._record.holders[name].alive:
            self._say(f"making {name}")
            holder = network.hold(self.log(name))
            self._record.holders[name] = holder
            self._record.save(self.root)
            network.make_node(holder, self._record.holders["switch"], f"{self.node_address(name)}/24",
                              self.address, (CHECKOUT, self.root), f"p-{name}")  # fmt: skip
        if not self.process(name):
            self._start_daemon(name, network.enter(self._record.holders[name], self._agent(name)), environment)

    def _agent(self, name: str) -> list[str | Path]:
        token = self.root / "bootstrap.token"
        if not (self.root / name / "pki" / "cert.pem").exists():
            _write_private(token, run([_program("podplane-controlplane"), "token", "--bootstrap", "--ttl", "1h",
                                       "--state-dir", self.root / "controlplane"]))  # fmt: skip
        registries: list[str | Path] = []
        if self.options.registries_conf:
            registries = ["--registries-conf", self.options.registries_conf]
        return [
            _program("podplane-nodeagent"), "run", "--join", self.server, "--token-file", token,
            "--node-name", name, "--node-ip", self.node_address(name), "--state-dir", self.root / name,
            "--run-dir", "/run/podplane", "--runtime", self.options.runtime, "--host-image-hide", self._hidden,
            "--cgroup-root", self.cgroup(name),
            *registries, *self.options.agent,
        ]  # fmt: skip

    def await_ready(self, nodes: int) -> None:
        """Return once that many nodes are Ready; DevClusterError with the words of one that is not."""
        names = [f"node-{number}" for number in range(1, nodes + 1)]
        arguments = ["wait", "--for=condition=Ready", "--timeout=60s", *(f"node/{name}" for name in names)]
        wait_for(lambda: self._registered(names), 30, "the registration of every node")
        run([self.podctl, *arguments], seconds=70, environment=self.environment)

    def _registered(self, names: Sequence[str]) -> bool:
        for name in names:
            if not self.process(name):
                raise DevClusterError(f"{name} ended; its last words ({self.log(name)}):\n{tail(self.log(name))}")
        listed = run([self.podctl, "get", "nodes", "-o", "name"], environment=self.environment).split()
        return all(f"node/{name}" in listed for name in names)

    def hints(self) -> str:
        """The lines to type next."""
        return HINTS.format(bin=self.podctl.parent, root=self.root, server=self.server,
                            authority=self.certificate_authority, node=self.node_address(self.nodes[0]))  # fmt: skip

    # -- what tests do

    def stop(self, name: str) -> None:
        """SIGTERM to a daemon; returns when it is gone."""
        if process := self.process(name):
            end([process], grace=15)

    def kill(self, name: str) -> None:
        """SIGKILL to a daemon; returns when it is gone."""
        if process := self.process(name):
            kill([process])

    def freeze(self, node: str) -> None:
        """Silence a node's agent without ending it: SIGSTOP."""
        if process := self.process(node):
            os.kill(process.pid, signal.SIGSTOP)

    def thaw(self, node: str) -> None:
        """Let a frozen agent go on."""
        if process := self.process(node):
            os.kill(process.pid, signal.SIGCONT)

    def container_pids(self) -> set[int]:
        """Every process that runs in a pod of this cluster's nodes."""
        return census.in_pods(f"podplane-{self._tag}-")

    def reinitialise(self) -> None:
        """Make an empty store under the certificate authority that is there."""
        run([_program("podplane-controlplane"), "init", "--state-dir", self.root / "controlplane",
             "--advertise", self.address, "--context-file", self.context], seconds=60)  # fmt: skip

    # -- down

    def down(self) -> None:
        """Remove every process, namespace, cable, cgroup and file of this cluster."""
        everything = [*self._record.daemons.values(), *census.daemons(self.root)]
        end([process for process in everything if process.alive])
        for name in self.nodes:
            self._cleanup(name)
        end(list(census.daemons(self.root)), grace=1)
        holders = [holder for holder in self._record.holders.values() if holder.alive]
        kill([process for process in census.inhabitants(holders) if process.alive])
        # Where a node's cleanup failed: what is in pods has namespaces of its own, and its cgroup says whose it is.
        census.empty(f"podplane-{self._tag}-")
        for holder in holders:
            network.release(holder)
        network.unplug(self._cable)
        shutil.rmtree(self.root, ignore_errors=False) if self.root.exists() else None
        self._record = Record(network=self._record.network)

    def _cleanup(self, name: str) -> None:
        holder = self._record.holders[name]
        if not holder.alive:
            return
        self._say(f"removing {name}")
        try:
            run(network.enter(holder, [_program("podplane-nodeagent"), "cleanup", "--state-dir", self.root / name,
                                       "--run-dir", "/run/podplane", "--cgroup-root", self.cgroup(name)]),
                seconds=180)  # fmt: skip
        except DevClusterError as failure:
            # Its namespaces die with their processes all the same; say it, since a node's cleanup should work.
            self._say(f"{name}: {failure}")

    # -- the small print

    @property
    def _hidden(self) -> str:
        """What `image: host` may not show: this cluster's state, and that of others in this checkout."""
        return ",".join(str(path) for path in (self.root, CHECKOUT / ".run", CLUSTERS))

    @property
    def _cable(self) -> str:
        return f"podplane-{self._tag}"

    def _ip(self, host: int) -> str:
        return f"198.18.{self._record.network}.{host}"

    def _switch(self) -> None:
        holder = self._record.holders.get("switch")
        if holder and holder.alive:
            return
        self._say("making the network")
        network.unplug(self._cable)
        holder = network.hold(self.log("switch"))
        self._record.holders = {"switch": holder}
        self._record.save(self.root)
        network.make_switch(holder, self._cable, f"{self.address}/24")

    def _start_daemon(
        self, name: str, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        self._record.daemons[name] = start(argv, self.log(name), environment)
        self._record.save(self.root)

    def _await_daemon(self, name: str, condition: Callable[[], bool], what: str) -> None:
        def met() -> bool:
            if not self.process(name):
                raise DevClusterError(f"{name} ended; its last words ({self.log(name)}):\n{tail(self.log(name))}")
            return condition()

        wait_for(met, 30, what)

    def _answers(self) -> bool:
        try:
            run([self.podctl, "--request-timeout", "2s", "get", "namespaces"], environment=self.environment)
        except DevClusterError:
            return False
        return True

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which podctl finds this cluster."""
        return {**os.environ, "PODPLANE_CONFIG": str(self.context)}


def _program(name: str) -> Path:
    return Path(sys.executable).parent / name


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
