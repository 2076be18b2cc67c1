"""The pure parts: spec, capabilities, users, references, seccomp, cgroup layout, and the meaning of failures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodeagent.runtime import capabilities, conmon, limits, references, seccomp, spec, users
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.filters import DEFAULT_PROFILE
from nodeagent.runtime.image import Image, ImageFailure
from nodeagent.runtime.spec import Facts, Filter, Root, User
from nodeagent.types import ContainerRequest, Mount, Resources, RuntimeFailure, Sandbox, Security

V1 = Facts(1, tuple(f"CAP_{name}" for name in capabilities.ALL))
V2 = replace(V1, cgroup_version=2, swap_limit=True)
IMAGE = Image("sha256:x", "x", entrypoint=("/entry",), cmd=("image-arg",), env=("PATH=/img", "A=1"), working_dir="/w")
BOX = Sandbox("u", 0, "10.0.0.2", Path("/ns/net"), Path("/ns/uts"), Path("/ns/ipc"), Path("/s/shm"))
REQUEST = ContainerRequest(
    pod_uid="u", namespace="default", pod_name="p", name="c", attempt=0, image="sha256:x", command=(), args=(),
    env=(("A", "2"),), working_dir="", mounts=(), sandbox=BOX, resources=Resources(), security=Security(),
    cgroup="podplane/besteffort/podu/c_0", hostname="p",
)  # fmt: skip


def made(facts: Facts = V2, seccomp_filter: Filter | None = None, **changes: Any) -> dict[str, Any]:
    request = replace(REQUEST, **changes)
    user = User(0, 0, (), "/root")
    return spec.oci_spec(request, IMAGE, Root(Path("/r")), user, facts, seccomp_filter or Filter())


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ((), (), ["/entry", "image-arg"]), ((), ("a",), ["/entry", "a"]), (("c",), (), ["c"]),
        (("c",), ("a",), ["c", "a"]),
    ],
)  # fmt: skip
def test_command_and_args_override_the_image(command: tuple[str, ...], args: tuple[str, ...], argv: list[str]) -> None:
    assert made(command=command, args=args)["process"]["args"] == argv


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="no command specified"):
        spec.arguments(REQUEST, Image("host", "host"))


def test_the_environment_has_defaults_then_the_image_then_the_pod() -> None:
    assert made()["process"]["env"] == ["PATH=/img", "HOSTNAME=p", "HOME=/root", "A=2"]
    assert made()["process"]["cwd"] == "/w"


def test_the_pods_namespaces_are_joined_and_the_others_new() -> None:
    kinds = {item["type"]: item.get("path") for item in made()["linux"]["namespaces"]}
    assert kinds == {"mount": None, "pid": None, "cgroup": None, "network": "/ns/net", "uts": "/ns/uts",
                     "ipc": "/ns/ipc"}  # fmt: skip
    host = replace(BOX, net=None, uts=None, ipc=None)
    kinds = {item["type"]: item.get("path") for item in made(V1, sandbox=host, host_pid=True)["linux"]["namespaces"]}
    assert kinds == {"mount": None}


def test_resources_of_both_cgroup_versions() -> None:
    asked = Resources(cpu_request=250, cpu_limit=1500, memory_limit=1 << 30)
    v1, v2 = (made(facts, resources=asked)["linux"]["resources"] for facts in (V1, V2))
    assert v1["cpu"] == {"shares": 256, "quota": 150_000, "period": 100_000}
    assert (v1["memory"], v2["memory"]) == ({"limit": 1 << 30}, {"limit": 1 << 30, "swap": 1 << 30})
    assert v2["unified"] == {"memory.oom.group": "1"}
    assert v1["pids"] == {"limit": 4096}
    assert made(resources=Resources())["linux"]["resources"]["cpu"] == {"shares": 2}
    assert v1["devices"][0] == {"allow": False, "access": "rwm"}


def test_the_oom_score_is_only_raised_without_the_capability() -> None:
    assert made(replace(V2, oom_score_floor=100), oom_score_adj=-997)["process"]["oomScoreAdj"] == 100
    assert made(oom_score_adj=-997)["process"]["oomScoreAdj"] == -997


def test_a_privileged_container_is_not_confined() -> None:
    asked = made(security=Security(privileged=True), seccomp_filter=Filter({"x": 1}, "bytes"))
    assert "seccomp" not in asked["linux"]
    assert "maskedPaths" not in asked["linux"]
    assert "run.oci.seccomp_bpf_data" not in asked["annotations"]
    assert asked["process"]["noNewPrivileges"] is False
    assert len(asked["process"]["capabilities"]["bounding"]) == len(capabilities.ALL)
    assert made(seccomp_filter=Filter({"x": 1}))["linux"]["seccomp"] == {"x": 1}
    confined = made(seccomp_filter=Filter({"x": 1}, "bytes"))
    assert confined["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ERRNO"}, "who ignores the program runs nothing"
    assert confined["annotations"]["run.oci.seccomp_bpf_data"] == "bytes"
    assert confined["process"]["noNewPrivileges"] is True


def test_mounts_are_parents_first_and_say_read_only() -> None:
    asked = (Mount(Path("/h/b"), "/data/sub"), Mount(Path("/h/a"), "/data", read_only=True))
    own = made(mounts=asked)["mounts"][-2:]
    assert [item["destination"] for item in own] == ["/data", "/data/sub"]
    assert own[0]["options"] == ["rbind", "rprivate", "ro"]
    by_place = {item["destination"]: item for item in made()["mounts"]}
    assert by_place["/dev/shm"]["source"] == "/s/shm"


@pytest.mark.parametrize(
    ("propagations", "root"),
    [(("rprivate",), None), (("rprivate", "rslave"), "rslave"), (("rslave", "rshared"), "rshared")],
)
def test_the_root_lets_through_what_a_mount_is_to_propagate(propagations: tuple[str, ...], root: str | None) -> None:
    asked = tuple(Mount(Path("/h"), f"/m{each}", propagation=each) for each in propagations)
    assert made(mounts=asked)["linux"].get("rootfsPropagation") == root


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        ([], [], ["CAP_CHOWN"], ["CAP_NET_RAW", "CAP_SYS_ADMIN"]),
        (["NET_ADMIN"], ["ALL"], ["CAP_NET_ADMIN"], ["CAP_CHOWN"]),
        (["ALL"], ["SYS_ADMIN"], ["CAP_NET_RAW"], ["CAP_SYS_ADMIN"]),
        (["cap_net_raw"], ["CHOWN"], ["CAP_NET_RAW"], ["CAP_CHOWN"]),
    ],
)
def test_capabilities(add: list[str], drop: list[str], has: list[str], lacks: list[str]) -> None:
    held = capabilities.granted(add, drop, False, V1.capabilities)
    assert set(has) <= set(held)
    assert not set(lacks) & set(held)


ACCOUNTS = users.Accounts(
    "root:x:0:0:root:/root:/bin/sh\napp:x:10:20:App:/srv:/bin/sh\nbroken line\n",
    "root:x:0:\nstaff:x:50:app,other\nmore:x:60:app\n",
)


@pytest.mark.parametrize(
    ("asked", "image", "user"),
    [
        (Security(), "", User(0, 0, (), "/root")),
        (Security(), "app", User(10, 20, (50, 60), "/srv")),
        (Security(), "app:staff", User(10, 50, (50, 60), "/srv")),
        (Security(), "99:98", User(99, 98, (), "/")),
        (Security(uid=10), "root:staff", User(10, 20, (50, 60), "/srv")),
        (Security(gid=7), "app", User(10, 7, (50, 60), "/srv")),
        (Security(supplemental_groups=(7,), only_these_groups=True), "app", User(10, 20, (7,), "/srv")),
        (Security(uid=500, supplemental_groups=(1, 2)), "", User(500, 0, (1, 2), "/")),
    ],
)
def test_users(asked: Security, image: str, user: User) -> None:
    assert users.resolve(asked, image, ACCOUNTS) == user


@pytest.mark.parametrize(
    ("asked", "image", "reason"),
    [
        (Security(), "nobody-here", "CreateContainerError"),
        (Security(run_as_non_root=True), "", "CreateContainerConfigError"),
        (Security(run_as_non_root=True), "app", "CreateContainerConfigError"),
        (Security(run_as_non_root=True, uid=0), "10", "CreateContainerConfigError"),
    ],
)
def test_users_that_are_refused(asked: Security, image: str, reason: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        users.resolve(asked, image, ACCOUNTS)
    assert caught.value.reason == reason


def test_an_account_file_that_links_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "root/etc/passwd").symlink_to(tmp_path / "outside")
    (tmp_path / "root/etc/group").symlink_to("../../outside")
    assert users.read_accounts(tmp_path / "root") == users.Accounts("", "")


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"), ("nginx:1.20.0", "docker.io/library/nginx:1.20.0"),
        ("a/b", "docker.io/a/b:latest"), ("quay.io/a/b:1", "quay.io/a/b:1"), ("localhost/x", "localhost/x:latest"),
        ("127.0.0.1:5000/x:t", "127.0.0.1:5000/x:t"), ("index.docker.io/x", "docker.io/library/x:latest"),
        ("x:t@sha256:" + "a" * 64, "docker.io/library/x@sha256:" + "a" * 64),
    ],
)  # fmt: skip
def test_references(image: str, full: str) -> None:
    assert str(references.parse(image)) == full
    assert str(references.parse(full)) == full


@pytest.mark.parametrize("image", ["", "Upper", "a b", "x:", "x@sha256:12", "a//b", "-x", "x:t:u", "quay.io/", "/x",
                                   "x" * 300, "x@", "--option", "a/b:$(id)"])  # fmt: skip
def test_bad_references(image: str) -> None:
    with pytest.raises(ImageFailure) as caught:
        references.parse(image)
    assert caught.value.reason == "InvalidImageName"


def test_the_default_profile_depends_on_capabilities() -> None:
    profile = json.loads(DEFAULT_PROFILE.read_text())
    plain, admin = (seccomp.resolve(profile, "x86_64", held) for held in ([], ["CAP_SYS_ADMIN"]))

    def actions(resolved: dict[str, Any], name: str) -> set[str]:
        return {rule["action"] for rule in resolved["syscalls"] if name in rule["names"] and not rule.get("args")}

    assert (actions(plain, "bpf"), actions(admin, "bpf")) == ({"SCMP_ACT_ERRNO"}, {"SCMP_ACT_ALLOW"})
    assert actions(plain, "read") == {"SCMP_ACT_ALLOW"}
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert not any("includes" in rule for rule in plain["syscalls"])


def test_cgroup_layouts_are_told_apart() -> None:
    v2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    v1 = "31 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    hybrid = v1 + "32 1 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    assert (Cgroups.detect(v2).version, Cgroups.detect(v1).version) == (2, 1)
    assert (Cgroups.detect(v1).hybrid, Cgroups.detect(hybrid).hybrid) == (False, True)
    with pytest.raises(OSError, match="no cgroup filesystem"):
        Cgroups.detect("")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("executable file `/x` not found in $PATH: No such file or directory", "RunContainerError"),
        ("open executable: Permission denied", "RunContainerError"),
        ('unable to start container process: exec: "/x": stat /x: no such file or directory: unknown',
         "RunContainerError"),
        ("error mounting /nope to rootfs at /data: no such file or directory", "CreateContainerError"),
        ("cannot set memory limit", "CreateContainerError"),
    ],
)  # fmt: skip
def test_which_status_a_refusal_is(words: str, reason: str) -> None:
    assert conmon.failure(words).reason == reason


def test_the_answer_of_conmon() -> None:
    assert conmon.answer("") is None
    assert conmon.answer('{"data": 12') is None
    assert conmon.answer('{"data": 12}\n') == 12
    with pytest.raises(RuntimeFailure, match="it broke"):
        conmon.answer('{"data": -1, "message": "it\\nbroke\\n"}\n')


def test_limits_of_pods_in_both_cgroup_versions() -> None:
    asked = Resources(cpu_request=250, cpu_limit=1500, memory_limit=1 << 30, pids_limit=4096)
    v1, v2 = ({file: text for _, file, text in limits.settings(asked, version)} for version in (1, 2))
    assert v1 == {
        "cpu.shares": "256", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000",
        "memory.limit_in_bytes": "1073741824", "pids.max": "4096",
    }  # fmt: skip
    assert v2 == {"cpu.weight": "10", "cpu.max": "150000 100000", "memory.max": "1073741824", "pids.max": "4096"}
    unlimited = {file: text for _, file, text in limits.settings(Resources(), 2)}
    assert unlimited == {"cpu.weight": "1", "cpu.max": "max 100000", "memory.max": "max", "pids.max": "max"}
    assert limits.weight(limits.MAX_SHARES) == 10_000
