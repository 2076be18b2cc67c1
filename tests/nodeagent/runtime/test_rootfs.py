"""Root filesystems on the real kernel: what a container of the node's own root sees, and what never."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.rootfs import HIDDEN, outermost, system_mounts
from nodeagent.types import Security

from .conftest import Node, ran

CANARY = "podplane-canary-7d1f"


@contextlib.contextmanager
def canary(directory: Path) -> Iterator[Path]:
    made = [item for item in [directory, *directory.parents] if not item.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / CANARY
    path.write_text(CANARY)
    try:
        yield path
    finally:
        path.unlink()
        for item in made:
            with contextlib.suppress(OSError):
                item.rmdir()


async def test_hidden_directories_are_empty_and_read_only(node: Node) -> None:
    extra = node.state.parent / "extra"
    directories = [*map(Path, HIDDEN), node.state, node.run, extra]
    with contextlib.ExitStack() as stack:
        for directory in directories:
            stack.enter_context(canary(directory))
        runtime = await node.open(hidden=[extra])
        check = f"echo $d $(grep -rs {CANARY} $d | wc -l) $(ls -A $d 2>/dev/null | wc -l) $(touch $d/x 2>&1 | wc -l)"
        request = node.request("/bin/sh", "-c", f"for d in {' '.join(map(str, directories))}; do {check}; done")
        await ran(runtime, request)
    assert node.log(request).splitlines() == [f"{directory} 0 0 1" for directory in directories]


async def test_password_files_and_host_keys_are_empty(node: Node, runtime: ContainerRuntime) -> None:
    key = Path("/etc/ssh/podplane_test_key")
    made_directory = not key.parent.exists()
    key.parent.mkdir(exist_ok=True)
    key.write_text(CANARY)
    extra = Path("/etc/shadow.podplane-test")
    extra.write_text(CANARY)
    try:
        files = f"/etc/shadow /etc/shadow- /etc/gshadow /etc/gshadow- {extra} {key}"
        request = node.request("/bin/sh", "-c", f"cat {files} | wc -c; echo x 2>/dev/null > /etc/shadow || echo ro")
        await ran(runtime, request)
    finally:
        key.unlink()
        extra.unlink()
        if made_directory:
            key.parent.rmdir()
    assert node.log(request).split() == ["0", "ro"]


async def test_writes_stay_in_the_container(node: Node, runtime: ContainerRuntime) -> None:
    name = f"/usr/{CANARY}"
    request = node.request("/bin/sh", "-c", f"echo mine > {name}; cat {name}; echo t > /tmp/{CANARY}; ls -A /tmp /run")
    assert (await ran(runtime, request)).code == 0
    assert node.log(request).split() == ["mine", "/run:", "/tmp:", CANARY]
    assert not os.path.exists(name)
    assert not os.path.exists(f"/tmp/{CANARY}")


async def test_a_read_only_root_refuses_writes(node: Node, runtime: ContainerRuntime) -> None:
    script = "for d in /usr /etc /tmp /run /var; do touch $d/x 2>/dev/null && echo wrote $d; done; echo done"
    request = node.request("/bin/sh", "-c", script, security=Security(read_only_root=True))
    await ran(runtime, request)
    assert node.log(request) == "done\n"


def test_separate_system_mounts_are_found() -> None:
    table = """\
21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 254:1 / /usr rw - ext4 /dev/vdb rw
23 21 254:2 / /var rw - xfs /dev/vdc rw
24 23 254:3 / /var/lib/podplane rw - xfs /dev/vdd rw
25 21 0:5 / /proc rw - proc proc rw
26 23 0:9 / /var/tmp rw - tmpfs tmpfs rw
27 21 254:4 / /mnt/data rw - ext4 /dev/vde rw
28 23 254:5 / /var/my\\040disk rw - ext4 /dev/vdf rw
29 21 0:40 / /opt rw - overlay sysext rw
30 23 0:41 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw
"""
    assert system_mounts(table, ["/var/lib/podplane"]) == ["/opt", "/usr", "/var", "/var/my disk"]


def test_what_is_below_a_hidden_directory_needs_no_cover() -> None:
    assert outermost(["/a/b", "/a", "/ab", "/a/b/c"]) == ["/a", "/ab"]
