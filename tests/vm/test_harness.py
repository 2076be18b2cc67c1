"""The harness keeps its word: commands, files, joined VMs, and nothing left behind. What a power cut takes and a reboot
keeps is seen where it matters (test_systemd.py)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.net.kernel import command
from tests.vm.channel import GuestGone
from tests.vm.conftest import MakeMachine
from tests.vm.kernel import module_order
from tests.vm.lan import Lan
from tests.vm.machine import Machine, Shape

pytestmark = pytest.mark.timeout(600)


def test_a_module_comes_after_what_it_depends_on() -> None:
    dependencies = (
        "k/net/virtio-net.ko: k/net/failover.ko k/core.ko\nk/core.ko:\nk/net/failover.ko: k/core.ko\nk/fs.ko: k/core.ko"
    )
    assert module_order(dependencies, ("virtio_net", "built_in", "fs")) == [
        *("k/core.ko", "k/net/failover.ko", "k/net/virtio-net.ko", "k/fs.ko"),
    ]


@pytest.mark.vm
def test_two_vms_run_commands_and_reach_each_other(boot: MakeMachine) -> None:
    with Lan("10.9.0.1/24") as lan:
        one = boot(Shape("one", nic=lan.nic("10.9.0.2"), cpus=1, memory=512))
        two = boot(Shape("two", nic=lan.nic("10.9.0.3"), cpus=1, memory=512))
        assert one.run("hostname") == "one\n"
        done = one.attempt("sh", "-c", "echo out; echo err >&2; cat; exit 7", text="in")
        assert (done.status, done.output, done.errors) == (7, b"out\nin", b"err\n")
        assert one.attempt("no-such-program").status == 127
        with pytest.raises(TimeoutError):
            one.run("sleep", "1000", seconds=0.05)
        one.write("/tmp/dir/file", b"\0" * 300_000, 0o600)
        assert one.read("/tmp/dir/file") == b"\0" * 300_000
        assert one.run("stat", "-c", "%a", "/tmp/dir/file") == "600\n"
        server = two.start("python3", "-m", "http.server", "80", "-d", "/tmp", env={"PYTHONUNBUFFERED": "1"})
        server.until(lambda output: b"Serving" in output, 10 * two.slowness)
        assert "Directory listing" in one.run("busybox", "wget", "-qO-", "http://10.9.0.3/")
        assert "64 bytes" in command(lan.pin, "busybox ping -c1 -W5 10.9.0.2")
        two.power_cut()
        with pytest.raises(GuestGone):
            server.wait(10)
        one.close()
        two.close()


@pytest.mark.vm
def test_nothing_is_left_of_a_vm(vms: None) -> None:
    def traces() -> tuple[list[Path], str]:
        found = subprocess.run(["pgrep", "-f", "vm-trace"], capture_output=True, text=True, timeout=10).stdout
        return sorted(Path(tempfile.gettempdir()).glob("vm-trace-*")), found

    with Machine(Shape("trace", cpus=1, memory=512)) as machine:
        assert traces()[0]
        assert traces()[1]
        machine.run("true")
    assert traces() == ([], "")
