"""What confines a container: who it is, what it may do and see; with a real OCI runtime."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import platform
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.runtime import spec
from nodeagent.runtime.bpf import ARCHITECTURES, NUMBERS
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.types import RuntimeFailure, Sandbox, Security
from tests.support.seccomp import answer
from tests.support.waiting import eventually

from .conftest import KIND, Node, ran


async def test_identity_privileges_and_limits_hold(node: Node, runtime: ContainerRuntime) -> None:
    script = "id -u; id -g; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/self/oom_score_adj"
    request = node.request("/bin/sh", "-c", script, security=Security(uid=1000, gid=2000))
    assert (await ran(runtime, request)).code == 0
    said = node.log(request).split()
    assert said[:2] == ["1000", "2000"]
    assert said[said.index("NoNewPrivs:") + 1] == "1"
    assert said[said.index("Seccomp:") + 1] == "2"
    assert said[-1] == "1000"


async def test_root_has_the_default_capabilities_and_masked_paths(node: Node, runtime: ContainerRuntime) -> None:
    script = "grep CapEff /proc/self/status; cat /proc/keys 2>/dev/null | wc -c; echo 1 2>/dev/null > /proc/sys/kernel"
    request = node.request("/bin/sh", "-c", script + "/panic || echo refused; mount -t tmpfs x /mnt || echo no mount")
    await ran(runtime, request)
    said = node.log(request)
    assert int(said.split()[1], 16) == 0xA80405FB  # containerd's 0xa80425fb without NET_RAW
    assert said.split()[2] == "0"
    assert "refused" in said
    assert "no mount" in said


async def test_every_masked_path_shows_nothing_and_every_read_only_one_refuses(
    node: Node, runtime: ContainerRuntime
) -> None:
    masked, fixed = (
        [path for path in paths if Path(path).exists()] for paths in (spec.MASKED_PATHS, spec.READONLY_PATHS)
    )
    script = f"""
    for path in {" ".join(masked)}; do
      if [ -d $path ]; then [ -z "$(ls -A $path)" ] || echo $path; else [ -z "$(head -c 1 $path)" ] || echo $path; fi
    done 2>/dev/null
    for path in {" ".join(fixed)}; do [ -z "$(find $path -maxdepth 2 -writable)" ] || echo $path; done
    """
    shown = {}
    for name, security in {"usual": Security(), "unmasked": Security(unmasked_proc=True)}.items():
        request = node.request("/bin/sh", "-c", script, name=name, security=security)
        await ran(runtime, request)
        shown[name] = node.log(request).split()
    assert shown["usual"] == []
    # The same questions where nothing is masked: they would have told.
    assert {"/proc/sys", "/proc/sysrq-trigger", "/sys/firmware"} & {*masked, *fixed} <= set(shown["unmasked"])
    assert "/proc/sys" in shown["unmasked"]


def assert_same_answers(compiled: bytes, faster: bytes) -> None:
    for architecture in ARCHITECTURES[platform.machine()]:
        for number in (*range(NUMBERS + 1), 0x40000000, 0x40000000 + 59):
            for arguments in ([0] * 6, [0x20, 0x10000000, 0x7E020000, 0, 0, 0]):
                found = answer(faster, architecture, number, arguments)
                assert found == answer(compiled, architecture, number, arguments), (architecture, number)


async def test_a_second_container_uses_the_compiled_filter(node: Node, runtime: ContainerRuntime) -> None:
    if KIND != "crun":
        pytest.skip("runc compiles the filter each time")
    request = node.request("/bin/sh", "-c", "grep Seccomp: /proc/self/status; unshare -n true || echo refused")
    await ran(runtime, request)
    config = (node.run / "containers" / request.id / "config.json").read_text()
    faster = base64.b64decode(json.loads(config)["annotations"]["run.oci.seccomp_bpf_data"])
    (kept,) = (node.state / "seccomp-compiled").iterdir()
    assert_same_answers(kept.read_bytes()[:-32], faster)
    assert node.log(request).split()[:2] == ["Seccomp:", "2"]
    assert "refused" in node.log(request)


FORBIDS_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
}


async def test_an_unconfined_container_has_no_filter(node: Node, runtime: ContainerRuntime) -> None:
    request = node.request("/bin/grep", "Seccomp:", "/proc/self/status", security=Security(seccomp="Unconfined"))
    await ran(runtime, request)
    assert node.log(request).split() == ["Seccomp:", "0"]


async def test_a_profile_of_the_nodes_own_forbids_what_it_says(node: Node, runtime: ContainerRuntime) -> None:
    profile = node.state / "seccomp" / "team" / "no-mkdir.json"
    profile.parent.mkdir(parents=True)
    profile.write_text(json.dumps(FORBIDS_MKDIR))
    script = "grep Seccomp: /proc/self/status; touch /tmp/file && echo made; mkdir /tmp/directory 2>&1"
    confined = Security(seccomp="localhost/team/no-mkdir.json")
    request = node.request("/bin/sh", "-c", script, security=confined)
    assert (await ran(runtime, request)).code == 1
    said = node.log(request)
    assert said.splitlines()[:2] == ["Seccomp:\t2", "made"]
    assert "Operation not supported" in said  # of mkdir, in the profile's own errno


async def test_a_missing_profile_is_a_create_container_error(node: Node, runtime: ContainerRuntime) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.create(node.request("/bin/true", security=Security(seccomp="localhost/none.json")))
    assert caught.value.reason == "CreateContainerError"
    words = f"cannot load seccomp profile 'none.json' from {node.state}/seccomp: No such file or directory"
    assert caught.value.message == words
    assert not list((node.run / "containers").iterdir())


async def test_containers_of_a_pod_share_net_uts_and_ipc_only(node: Node, runtime: ContainerRuntime) -> None:
    space = Path("/proc/self/ns")
    box = Sandbox("uid-1", 0, None, space / "net", space / "uts", space / "ipc", None)
    own = {kind: os.readlink(space / kind) for kind in ("net", "uts", "ipc", "pid", "mnt")}
    script = "for n in net uts ipc pid mnt; do readlink /proc/self/ns/$n; done"
    # /proc/self is the runtime's own there; the test's namespaces are those of this process.
    pinned = {kind: Path(f"/proc/{os.getpid()}/ns/{kind}") for kind in ("net", "uts", "ipc")}
    box = replace(box, net=pinned["net"], uts=pinned["uts"], ipc=pinned["ipc"])
    request = node.request("/bin/sh", "-c", script, sandbox=box)
    await ran(runtime, request)
    seen = dict(zip(("net", "uts", "ipc", "pid", "mnt"), node.log(request).split(), strict=True))
    assert [kind for kind in own if own[kind] == seen[kind]] == ["net", "uts", "ipc"]


async def test_a_run_as_non_root_violation_is_a_config_error(node: Node, runtime: ContainerRuntime) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.create(node.request("/bin/true", security=Security(run_as_non_root=True)))
    assert caught.value.reason == "CreateContainerConfigError"
    assert caught.value.message == "container has runAsNonRoot and image will run as root"


async def test_exec_runs_as_the_container_does(node: Node, runtime: ContainerRuntime, tmp_path: Path) -> None:
    request = node.request(
        "/bin/sleep",
        "1000",
        env=(("COLOUR", "blue"),),
        security=Security(uid=65534, gid=65534, supplemental_groups=(7,)),
    )
    await runtime.create(request)
    await runtime.start(request.id)
    name = Path(f"/proc/{runtime.pid(request.id)}/comm")
    await asyncio.to_thread(eventually, lambda: name.read_text() == "sleep\n", 20, "the container's own program")
    script = "echo $COLOUR $(id -u) $(id -G); grep -E 'NoNewPrivs|Cap|Seccomp:' /proc/self/status; exit 5"
    argv = runtime.exec_command(request.id, ["/bin/sh", "-c", script], tmp_path / "exec.pid")
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(child.communicate(), 20)
    first = Path(f"/proc/{runtime.pid(request.id)}/status").read_text().splitlines()
    same = [line for line in first if line.startswith(("NoNewPrivs", "Cap", "Seccomp:"))]
    assert (child.returncode, out.decode().splitlines()) == (5, ["blue 65534 65534 7", *same])
    assert stat.S_IMODE((tmp_path / "exec.json").stat().st_mode) == 0o600
