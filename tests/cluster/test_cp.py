"""cp against real daemons: both ways, with the container's own user, and with what a container may send."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.cluster.conftest import client
from tests.support.objects import pod
from tests.support.terminal import podctl


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> Iterator[pod_pb2.Pod]:
    """A pod whose container runs as nobody."""
    made = pod("files", "/bin/sleep", "infinity")
    made.spec.containers[0].securityContext.runAsUser = 65534
    made.spec.containers[0].env.add(name="PATH", value="/tmp/bin:/usr/bin:/bin")
    with client(cluster) as api:
        api.create(made)
        try:
            yield api.running("files")
        finally:
            api.delete(POD, "files", grace=0)
            api.gone(POD, "files")


def test_a_tree_goes_there_and_comes_back(cluster: Cluster, target: pod_pb2.Pod, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "large").write_bytes(os.urandom(3 << 20))
    (tree / "sub" / "run").write_text("#!/bin/sh\n")
    (tree / "sub" / "run").chmod(0o755)
    (tree / "link").symlink_to("large")
    done = podctl(cluster, "cp", str(tree), "files:/tmp")
    assert (done.returncode, done.stderr) == (0, b"")
    shown = podctl(cluster, "exec", "files", "--", "stat", "-c", "%U %a", "/tmp/tree/sub/run")
    assert shown.stdout == b"nobody 755\n"
    assert podctl(cluster, "exec", "files", "--", "readlink", "/tmp/tree/link").stdout == b"large\n"

    back = tmp_path / "back"
    done = podctl(cluster, "cp", "default/files:/tmp/tree", str(back))
    assert (done.returncode, done.stderr) == (0, b'warning: skipping symlink: "tree/link" -> "large"\n')
    assert (back / "large").read_bytes() == (tree / "large").read_bytes()
    assert os.access(back / "sub" / "run", os.X_OK)
    assert not (back / "link").is_symlink()


def test_one_file_takes_the_name_that_it_is_given(cluster: Cluster, target: pod_pb2.Pod, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("words")
    assert podctl(cluster, "cp", str(here), "files:/tmp/there").returncode == 0
    assert podctl(cluster, "cp", "files:/tmp/there", "/dev/stdout").stdout == b"words"
    assert podctl(cluster, "cp", "files:/tmp/there", str(tmp_path)).returncode == 0
    assert (tmp_path / "there").read_text() == "words"


def test_what_cannot_be_copied_is_said(cluster: Cluster, target: pod_pb2.Pod, tmp_path: Path) -> None:
    absent = podctl(cluster, "cp", "files:/no/such", str(tmp_path / "x"))
    assert absent.returncode == 2
    assert b"No such file or directory" in absent.stderr
    refused = podctl(cluster, "cp", "files:/etc/shadow", str(tmp_path / "x"))
    assert refused.returncode == 2
    assert b"Permission denied" in refused.stderr
    closed = podctl(cluster, "cp", "/etc/hostname", "files:/etc/hostname-of-mine")
    assert closed.returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_container_with_a_tar_of_its_own_writes_nowhere_else(
    cluster: Cluster, target: pod_pb2.Pod, tmp_path: Path
) -> None:
    script = (
        "mkdir -p /tmp/bin && cd /tmp && echo evil >evil && tar cf out.tar -P --transform 's,evil,d/../../evil,' evil"
        " && printf '#!/bin/sh\\ncat /tmp/out.tar\\n' >bin/tar && chmod +x bin/tar"
    )
    assert podctl(cluster, "exec", "files", "--", "sh", "-c", script).returncode == 0
    try:
        done = podctl(cluster, "cp", "files:/tmp/d", str(tmp_path / "x"))
    finally:
        assert podctl(cluster, "exec", "files", "--", "rm", "/tmp/bin/tar").returncode == 0
    assert done.returncode == 1
    assert done.stderr == b'error: tar contents corrupted: "d/../../evil" is not beneath "d"\n'
    assert not list(tmp_path.iterdir())
