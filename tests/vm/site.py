"""Podplane on VMs as README and deploy/ install it: programs in /usr/local/bin, systemd units, a bootstrap token.

The control plane is on one of the VMs. podctl asks from outside, at the bridge of the network, on this machine's own
Python: that is some ten times faster than under emulation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually
from tests.vm.lan import Lan
from tests.vm.machine import CHECKOUT, Machine

UNITS = CHECKOUT / "deploy"
_BIN = CHECKOUT / ".venv/bin"
_PACKAGES = CHECKOUT / f".venv/lib/python3.{sys.version_info.minor}/site-packages"
_STATE = "/var/lib/podplane/controlplane"


class Site:
    """A control plane and nodes on VMs with disks."""

    def __init__(self, lan: Lan, directory: Path) -> None:
        self._lan = lan
        self.context = directory / "context"
        self._server: Machine | None = None
        self._address = ""

    def install(self, machine: Machine) -> None:
        """The programs and their units; what a guest's Python imports is the checkout's, read over the port."""
        version = machine.run("python3", "-c", "import sys; print(sys.version_info.minor)").strip()
        assert version == str(sys.version_info.minor), (
            f"the guest's Python is 3.{version}, the checkout's {sys.version}"
        )
        machine.write("/usr/lib/python3/dist-packages/podplane-checkout.pth", f"{CHECKOUT}\n{_PACKAGES}\n")
        for program in ("podplane-controlplane", "podplane-nodeagent", "podctl"):
            text = (_BIN / program).read_text()
            machine.write(f"/usr/local/bin/{program}", re.sub("^#!.*", "#!/usr/bin/python3", text, count=1), 0o755)
        for unit in UNITS.glob("*.service"):
            machine.write(f"/etc/systemd/system/{unit.name}", unit.read_text())
        machine.run("systemctl", "daemon-reload")

    def serve(self, machine: Machine, address: str, grace: int = 3600, toleration: int = 3600) -> None:
        """A control plane, enabled and started.

        `grace`: seconds of silence after which a node is not ready, `toleration`: after which its pods are given up.
        """
        self._server, self._address = machine, address
        machine.run("podplane-controlplane", "init", "--advertise", address, seconds=30)
        lines = f"PODPLANE_NODE_GRACE_SECONDS={grace}\nPODPLANE_TOLERATION_SECONDS={toleration}\n"
        machine.write("/etc/podplane/controlplane.env", lines)
        self._enable(machine, "podplane-controlplane")
        self.context.write_bytes(machine.read("/root/.config/podplane/config"))
        self.context.chmod(0o600)
        machine.eventually(lambda: self.attempt("get", "nodes").returncode == 0, 30, "the control plane's first answer")

    def join(self, machine: Machine, *variables: str) -> None:
        """Make a node of a VM, its agent enabled and started; `variables`: NAME=value for its environment file."""
        assert self._server is not None
        token = self._server.run("podplane-controlplane", "token", "--bootstrap", "--ttl", "1h", seconds=30)
        machine.write("/etc/podplane/token", token, 0o600)
        lines = [f"PODPLANE_JOIN={self._address}:7443", "PODPLANE_TOKEN_FILE=/etc/podplane/token", *variables]
        machine.write("/etc/podplane/nodeagent.env", "".join(f"{line}\n" for line in lines))
        self._enable(machine, "podplane-pods", "podplane-nodeagent")

    def ready(self, machine: Machine, node: str) -> None:
        """Wait until a node is Ready."""
        machine.eventually(lambda: self._is_ready(node), 60, f"{node} Ready")

    def _is_ready(self, node: str) -> bool:
        done = self.attempt("get", "node", node, "-o", "json")
        if done.returncode:
            return False
        conditions = json.loads(done.stdout).get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    @staticmethod
    def _enable(machine: Machine, *units: str) -> None:
        machine.run("systemctl", "enable", "--now", *units, seconds=30)

    # What people ask.

    def attempt(self, *arguments: str, text: str = "", seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """podctl, whatever it says, within seconds of an unhurried machine."""
        patience = seconds * (self._server.slowness if self._server else 1)
        argv = ["nsenter", f"--net={self._lan.pin}", str(_BIN / "podctl"), *arguments]
        environment = {"PATH": "/usr/bin:/bin", "PODPLANE_CONFIG": str(self.context), "HOME": "/nonexistent"}
        return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=patience, env=environment)

    def podctl(self, *arguments: str, text: str = "", seconds: float = 30) -> str:
        """podctl, which must succeed; asked again where an emulated server took too long to take a connection."""
        last: list[subprocess.CompletedProcess[str]] = []

        def asked() -> bool:
            last[:] = [self.attempt(*arguments, text=text, seconds=seconds)]
            return "Unable to connect" not in last[0].stderr

        assert self._server is not None
        self._server.eventually(asked, 30, f"an answer to podctl {' '.join(arguments)}")
        done = last[0]
        assert done.returncode == 0, f"podctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object."""
        found: dict[str, Any] = json.loads(self.podctl("get", kind, name, "-o", "json"))
        return found

    def pod_when(
        self, name: str, holds: Callable[[dict[str, Any]], bool], machine: Machine, seconds: float = 60
    ) -> dict[str, Any]:
        """A pod, once something holds of it."""
        last: dict[str, Any] = {}

        def probe() -> bool:
            last.clear()
            last.update(self.get("pod", name))
            return holds(last)

        try:
            eventually(probe, seconds * machine.slowness)
        except AssertionError:
            raise AssertionError(f"pod {name} is not as awaited: {json.dumps(last.get('status'), indent=1)}") from None
        return last
