"""One VM under QEMU's software emulation: boot, commands, files, reboot, power cut. KVM is not needed.

Two flavours. With `disk=None` the guest sees this machine's whole userland through virtiofs, under an overlay that ends
with the VM: the checkout, its virtual environment, every program. It does not see what the host writes later, and the
host sees nothing of what the guest writes: files travel over the port. With a disk (tests/vm/disk.py) systemd is PID 1,
and what is written stays over reboots and power cuts; the checkout is mounted read-only at its own path.

A VM is processes that it started and a directory, all gone after close(), in whatever state it was. Deadlines are in
seconds of an unhurried machine and are stretched by `slowness`, measured anew at every boot and multiplied by how many
modules of a test run share the machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent import syscalls
from tests.net.kernel import in_thread
from tests.support.waiting import eventually
from tests.vm.agent import NAME
from tests.vm.channel import Channel, GuestGone, Remote, show
from tests.vm.kernel import HERE, kernel, virtiofsd

CHECKOUT = HERE.parents[1]
REFERENCE = 0.02
"""Seconds that the agent's piece of work takes on a machine that deadlines are written for."""
SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
"""Modules of VMs that run at once: what others need while a boot is measured is not what they need later."""
BOOT_SECONDS = 180.0 * SHARES
"""For a boot, whose slowness is not known yet."""
CPU = "max,-la57,-erms,-smap,-smep,-xsave"
"""All that the emulator has, but for what makes a guest do dear things: page tables of five levels, copies byte by byte
(rep movsb), a switch of modes at every copy from and to user space, the state of wide registers at every switch."""
CHEAP = ("norandmaps", "mitigations=off", "init_on_alloc=0")
"""The emulator knows what it has translated by its virtual address: with programs always at the same one, starting a
short one costs a quarter. The others keep a kernel from work that guards against what is not in a test's VM."""


@dataclass(frozen=True, slots=True)
class Done:
    """An ended command."""

    argv: tuple[str, ...]
    status: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")

    def __str__(self) -> str:
        errors = self.errors.decode(errors="replace")
        return f"{' '.join(self.argv)[:300]}: status {self.status}\n{self.text[-6000:]}{errors[-6000:]}"


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card on a tap device that exists in the namespace pinned at `namespace`."""

    namespace: Path
    tap: str
    address: str
    """With prefix length, given to eth0 before anything else runs."""
    mac: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the VM is made of."""

    name: str = "vm"
    disk: Path | None = None
    nic: Nic | None = None
    cpus: int = 2
    memory: int = 1024
    """MiB."""
    arguments: tuple[str, ...] = field(default=())
    """More for QEMU."""


class Machine:
    """A VM that runs, until close()."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._kernel = kernel()
        self._directory = Path(tempfile.mkdtemp(prefix=f"vm-{shape.name}-"))
        self.console = self._directory / "console"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channel: Channel | None = None
        self.slowness = 1.0
        try:
            self._power_on()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What one does in it.

    def start(
        self,
        *argv: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        sink: Callable[[bytes], None] | None = None,
    ) -> Remote:
        """Start a command in the guest."""
        return self._port.start([str(item) for item in argv], env, str(cwd or ""), sink)

    def attempt(
        self,
        *argv: str | Path,
        seconds: float = 10,
        text: str | bytes = "",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        streamed: bool = False,
    ) -> Done:
        """Run a command to its end, whatever its status. streamed: print its output as it comes."""
        remote = self.start(*argv, env=env, cwd=cwd, sink=show if streamed else None)
        if text:
            remote.feed(text.encode() if isinstance(text, str) else text)
        remote.feed(b"")
        status = remote.wait(seconds * self.slowness)
        return Done(tuple(remote.argv), status, remote.output, remote.errors)

    def run(
        self,
        *argv: str | Path,
        seconds: float = 10,
        text: str | bytes = "",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        streamed: bool = False,
    ) -> str:
        """Run a command that must succeed; returns what it prints."""
        done = self.attempt(*argv, seconds=seconds, text=text, env=env, cwd=cwd, streamed=streamed)
        assert done.status == 0, str(done)
        return done.text

    def shell(self, script: str, seconds: float = 10) -> str:
        """Run a script of the test's own words; every line must succeed."""
        return self.run("bash", "-euo", "pipefail", "-c", script, seconds=seconds)

    def python(self, *argv: str | Path, seconds: float = 60, streamed: bool = False) -> str:
        """Run the checkout's Python with these arguments, in the checkout."""
        return self.run(
            CHECKOUT / ".venv/bin/python", *argv, seconds=seconds, cwd=CHECKOUT, env=self.environment, streamed=streamed
        )

    @property
    def environment(self) -> dict[str, str]:
        """What our programs and tests are told in the guest."""
        return {"PODPLANE_SLOWNESS": f"{self.slowness:.2f}", "PYTHONDONTWRITEBYTECODE": "1"}

    def read(self, path: str | Path) -> bytes:
        """A file of the guest."""
        done = self.attempt("cat", path, seconds=60)
        assert done.status == 0, str(done)
        return done.output

    def write(self, path: str | Path, data: str | bytes, mode: int = 0o644) -> None:
        """Make a file in the guest, with its directory."""
        script = 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"'
        self.run("sh", "-ec", script, "write", path, f"{mode:o}", text=data, seconds=60)

    def copy_out(self, source: str | Path, target: Path) -> None:
        """Copy a directory of the guest into one here."""
        done = self.attempt("tar", "-C", source, "-c", ".", seconds=120)
        assert done.status == 0, str(done)
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "--no-same-owner", "-C", target], input=done.output, check=True, timeout=60)

    def eventually(self, probe: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for a condition, for seconds of an unhurried machine."""
        eventually(lambda: probe() or None, seconds * self.slowness, what)

    # Its power.

    @property
    def boot_id(self) -> str:
        return self._port.boot_id

    def reboot(self) -> None:
        """Ask the guest's init to reboot, as its owner would; back when its agent answers again."""
        before = self.boot_id
        with contextlib.suppress(GuestGone):
            self.start("systemctl" if self.shape.disk else "busybox", "reboot")
        self._greet(before)

    def power_cut(self) -> None:
        """End the VM between two instructions: what its kernel had not written is lost."""
        self._power_off()

    def power_on(self) -> None:
        """Boot what was cut; only a disk remembers."""
        self._power_on()

    def said(self) -> str:
        """The end of the console, for messages."""
        if not self.console.exists():
            return ""
        return self.console.read_bytes()[-6000:].decode(errors="replace")

    def close(self) -> None:
        """End it and remove what it had. Safe to call again."""
        self._power_off()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _port(self) -> Channel:
        if self._channel is None:
            raise GuestGone(f"VM {self.shape.name} is off")
        return self._channel

    def _power_on(self) -> None:
        arguments = self._storage()
        path = self._directory / "port"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(30)
            with self.console.open("ab") as console:
                self._spawn(self._qemu(arguments, path), console.fileno(), self.shape.nic)
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                raise GuestGone(f"QEMU did not start: {self.said()}") from None
        path.unlink()
        connection.settimeout(None)
        self._channel = Channel(connection)
        self._greet("")

    def _greet(self, before: str) -> None:
        try:
            self._port.greeting(before, BOOT_SECONDS)
        except (GuestGone, TimeoutError) as error:
            raise AssertionError(f"VM {self.shape.name}: {error}; its console:\n{self.said()}") from None
        self.slowness = max(1.0, self._port.seconds / REFERENCE) * SHARES

    def _power_off(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait(30)
        self._processes.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _spawn(self, argv: list[str], output: int, nic: Nic | None = None) -> None:
        def spawn() -> subprocess.Popen[bytes]:
            if nic is not None:
                fd = os.open(nic.namespace, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    syscalls.setns(fd, syscalls.CLONE_NEWNET)
                finally:
                    os.close(fd)
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

        # A child inherits the network namespace of the thread that starts it.
        self._processes.append(in_thread(spawn))

    def _storage(self) -> list[str]:
        """Start what serves the root or the checkout; returns QEMU's arguments for it."""
        served, tag = (CHECKOUT, "checkout") if self.shape.disk else (Path("/"), "root")
        path = self._directory / "fs"
        path.unlink(missing_ok=True)
        with (self._directory / "fs.log").open("ab") as log:
            options = ["-o", f"source={served}", "-o", "cache=always", "-o", "xattr", "-o", "sandbox=chroot"]
            self._spawn([str(virtiofsd()), f"--socket-path={path}", *options], log.fileno())
        eventually(path.exists, 10, "virtiofsd's socket")
        size = f"{self.shape.memory}M"
        arguments = ["-object", f"memory-backend-memfd,id=memory,size={size},share=on"]
        arguments += ["-chardev", f"socket,id=fs,path={path}", "-device", f"vhost-user-fs-pci,chardev=fs,tag={tag}"]
        if self.shape.disk:
            arguments += ["-drive", f"file={self.shape.disk},if=virtio,format=raw,cache=writeback"]
        return arguments

    def _qemu(self, storage: list[str], port: Path) -> list[str]:
        shape = self.shape
        words = ["console=ttyS0", "quiet", "panic=-1", "net.ifnames=0", *CHEAP, f"vm.hostname={shape.name}"]
        words += [f"systemd.hostname={shape.name}"] if shape.disk else []
        words += ["vm.root=disk" if shape.disk else "vm.root=virtiofs"]
        words += [f"vm.modules={self._kernel.modules}", f"vm.agent={HERE / 'agent.py'}"]
        network = ["-nic", "none"]
        if shape.nic is not None:
            words += [f"vm.address={shape.nic.address}"]
            words += [f"vm.gateway={shape.nic.gateway}"] if shape.nic.gateway else []
            network = ["-netdev", f"tap,id=lan,ifname={shape.nic.tap},script=no,downscript=no"]
            network += ["-device", f"virtio-net-pci,netdev=lan,mac={shape.nic.mac}"]
        return [
            *("qemu-system-x86_64", "-machine", "pc,accel=tcg,memory-backend=memory", "-cpu", CPU),
            *("-smp", str(shape.cpus), "-m", str(shape.memory), "-display", "none", "-serial", "stdio"),
            *("-monitor", "none", "-nodefaults", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={port}", "-device", f"virtserialport,chardev=port,name={NAME}"),
            *("-kernel", str(self._kernel.image), "-initrd", str(self._kernel.initrd), "-append", " ".join(words)),
            *storage,
            *network,
            *shape.arguments,
        ]
