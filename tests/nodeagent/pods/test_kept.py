"""What is kept of each pod: its spec, and the cluster that bound it, which alone may remove it by silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.paths import Paths
from nodeagent.pods.kept import UNKNOWN, KeptPods, Origin
from podplane.files import replace
from tests.nodeagent.pods.world import make_pod
from tests.support.disk import largest_file

FIRST, SECOND = Origin("c1", "e1"), Origin("c1", "e2")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state", tmp_path / "run")
    made.make()
    return made


def test_the_next_agent_knows_who_bound_a_pod(paths: Paths) -> None:
    KeptPods(paths).keep(make_pod(), FIRST)
    kept = KeptPods(paths)
    specs = kept.read()
    assert specs == {"uid-1": make_pod()}
    trace = kept.trace(specs["uid-1"], "Running")
    assert (trace.uid, trace.clusterID, trace.epoch, trace.phase) == ("uid-1", "c1", "e1", "Running")


def test_a_pod_that_another_epoch_binds_again_is_that_ones(paths: Paths) -> None:
    kept = KeptPods(paths)
    kept.keep(make_pod(), FIRST)
    kept.keep(make_pod(), SECOND)
    assert kept.origin("uid-1") == SECOND
    again = KeptPods(paths)
    again.read()
    assert again.origin("uid-1") == SECOND


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '{"cluster_id": "c1"}'])
def test_a_torn_origin_is_not_known(paths: Paths, text: str | None) -> None:
    KeptPods(paths).keep(make_pod(), FIRST)
    if text is None:
        (paths.pods / "uid-1.json").unlink()
    else:
        (paths.pods / "uid-1.json").write_text(text)
    kept = KeptPods(paths)
    (pod,) = kept.read().values()
    assert kept.origin("uid-1") == UNKNOWN
    assert not kept.trace(pod, "Running").HasField("clusterID")


def test_a_pod_that_is_forgotten_leaves_no_file(paths: Paths) -> None:
    kept = KeptPods(paths)
    kept.keep(make_pod(), FIRST)
    kept.forget("uid-1")
    kept.forget("uid-1")
    assert list(paths.pods.iterdir()) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace(path, b"old")
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        replace(path, bytes(200))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
