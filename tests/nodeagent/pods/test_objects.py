"""What the next agent knows of the cluster before it has heard from it, whatever became of the files meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from nodeagent.paths import Paths
from nodeagent.pods.objectlog import SPARE
from nodeagent.pods.objects import Objects
from nodeagent.records import records
from podplane.v1.config_pb2 import ConfigMap, Secret
from podplane.v1.endpointslice_pb2 import EndpointSlice
from podplane.v1.service_pb2 import Service
from podplane.v1.session_pb2 import ObjectChange
from tests.nodeagent.proxy.objects import Port, service, slice_of
from tests.support.disk import largest_file

PORTS: list[Port] = [("http", "TCP", 80, 0, 8080)]
LOG = "services.log"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state", tmp_path / "run")
    made.make()
    return made


def numbered(number: int) -> Service:
    return service(f"web-{number}", f"10.96.0.{number + 1}", PORTS)


def headless() -> EndpointSlice:
    made = slice_of("db", PORTS, ["10.0.0.2"])
    made.metadata.labels["service.kubernetes.io/headless"] = ""
    return made


def added(message: Service | EndpointSlice | Secret | ConfigMap) -> ObjectChange:
    match message:
        case Service():
            return ObjectChange(type="ADDED", service=message)
        case EndpointSlice():
            return ObjectChange(type="ADDED", endpointSlice=message)
        case Secret():
            return ObjectChange(type="ADDED", secret=message)
        case ConfigMap():
            return ObjectChange(type="ADDED", configMap=message)


def snapshot(paths: Paths, *messages: Service | EndpointSlice | Secret | ConfigMap) -> Objects:
    """An agent that starts, and takes a snapshot in."""
    objects = loaded(paths)
    objects.replace_all(map(added, messages), authoritative=True)
    return objects


def loaded(paths: Paths) -> Objects:
    objects = Objects(paths)
    objects.load()
    return objects


def names(objects: Objects) -> set[str]:
    return {name for known in (objects.services, objects.endpoint_slices) for _, name in known}


def count(paths: Paths) -> int:
    """Records in the log."""
    return sum(1 for _ in records((paths.objects / LOG).read_bytes()))


def test_services_and_slices_of_headless_ones_are_known_to_the_next_agent(paths: Paths) -> None:
    snapshot(paths, numbered(1), numbered(2), headless(), slice_of("web", PORTS, ["10.0.0.3"]))
    objects = loaded(paths)
    assert list(objects.services.values()) == [numbered(1), numbered(2)]
    assert list(objects.endpoint_slices.values()) == [headless()]


def test_the_newest_of_each_counts_and_what_has_gone_is_gone(paths: Paths) -> None:
    objects = snapshot(paths, numbered(1), numbered(2), numbered(3), headless())
    changed = numbered(1)
    changed.spec.ports[0].port = 81
    objects.apply(ObjectChange(type="MODIFIED", service=changed))
    objects.apply(ObjectChange(type="DELETED", service=numbered(2)))
    no_longer = slice_of("db", PORTS, ["10.0.0.2"])
    objects.apply(ObjectChange(type="MODIFIED", endpointSlice=no_longer))
    again = loaded(paths)
    assert list(again.services.values()) == [changed, numbered(3)]
    assert not again.endpoint_slices
    again.replace_all([added(numbered(3))], authoritative=False)
    assert names(loaded(paths)) == {"web-3"}


def test_what_has_not_changed_is_not_written_again(paths: Paths) -> None:
    told: list[str] = []
    for objects in (snapshot(paths, numbered(1), headless()), loaded(paths)):
        assert names(objects) == {"web-1", "db-1"}
        before = (paths.objects / LOG).stat()
        objects.listen(lambda kind, _: told.append(kind))
        objects.replace_all([added(numbered(1)), added(headless())], authoritative=True)
        assert (paths.objects / LOG).stat() == before
    assert told == []


def test_a_snapshot_takes_the_place_of_what_nobody_has_asked_for(paths: Paths) -> None:
    snapshot(paths, numbered(1), numbered(2))
    for left_over in ({"web-2", "web-3"}, set[str]()):
        objects = snapshot(paths, *(numbered(int(name[-1])) for name in sorted(left_over)))
        assert names(objects) == names(loaded(paths)) == left_over
    assert count(paths) == 0


def test_a_snapshot_that_a_full_disk_did_not_take_is_written_with_the_next_change(paths: Paths) -> None:
    snapshot(paths, numbered(1))
    with largest_file(10):
        objects = snapshot(paths, numbered(2), numbered(3))
    assert names(loaded(paths)) == {"web-1"}
    objects.apply(added(numbered(4)))
    assert names(objects) == names(loaded(paths)) == {"web-2", "web-3", "web-4"}


def test_a_log_torn_at_any_byte_gives_what_was_before_and_takes_what_comes(paths: Paths) -> None:
    objects = snapshot(paths)
    for number in range(3):
        objects.apply(added(numbered(number)))
    whole = (paths.objects / LOG).read_bytes()
    ends = [end for end, _ in records(whole)]
    for cut in range(0, len(whole), 7):
        for tail in (b"", bytes(64)):
            (paths.objects / LOG).write_bytes(whole[:cut] + tail)
            torn = loaded(paths)
            before = {f"web-{number}" for number, end in enumerate(ends) if end <= cut}
            assert names(torn) == before
            torn.apply(added(numbered(9)))
            assert names(loaded(paths)) == before | {"web-9"}


def test_a_log_that_is_nonsense_is_left_out_and_written_anew(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    (paths.objects / LOG).write_bytes(b"nonsense" * 100)
    objects = loaded(paths)
    with caplog.at_level(logging.WARNING):
        assert names(objects) == set()
    assert "is torn" in caplog.text
    objects.replace_all([added(numbered(1))], authoritative=True)
    assert names(loaded(paths)) == {"web-1"}


def test_a_service_that_changes_all_the_time_does_not_fill_the_disk(paths: Paths) -> None:
    objects, changing = snapshot(paths, numbered(1), numbered(2)), numbered(1)
    most = 0
    for number in range(2 * SPARE):
        changing.metadata.resourceVersion = str(number)
        objects.apply(added(changing))
        if number % 100 == 0:
            most = max(most, count(paths))
    assert SPARE / 2 < most <= SPARE + 4
    assert list(loaded(paths).services.values()) == [changing, numbered(2)]


def test_what_a_full_disk_did_not_take_is_written_with_the_next_change(
    paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    objects = snapshot(paths, numbered(1))
    with largest_file((paths.objects / LOG).stat().st_size + 10), caplog.at_level(logging.WARNING):
        objects.apply(added(numbered(2)))
    assert "cannot keep services" in caplog.text
    assert names(objects) == {"web-1", "web-2"}
    assert names(loaded(paths)) == {"web-1"}
    objects.apply(added(numbered(3)))
    assert names(loaded(paths)) == {"web-1", "web-2", "web-3"}


def test_files_of_an_earlier_version_are_taken_up_and_cleared_away(paths: Paths) -> None:
    def put(*messages: Service | EndpointSlice) -> None:
        for number, message in enumerate(messages):
            kind = "service" if isinstance(message, Service) else "endpointSlice"
            (paths.objects / f"{kind}-{number}.pb").write_bytes(message.SerializeToString())

    put(numbered(1), numbered(2), headless())
    with largest_file(10):
        assert names(loaded(paths)) == {"web-1", "web-2", "db-1"}
    assert len(left(paths.objects)) == 3
    for _ in range(2):
        assert names(loaded(paths)) == {"web-1", "web-2", "db-1"}
        assert left(paths.objects) == [LOG]


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_nothing_is_left_of_a_secret_that_goes(paths: Paths) -> None:
    secret, settings = Secret(), ConfigMap()
    secret.metadata.namespace = settings.metadata.namespace = "default"
    secret.metadata.name = settings.metadata.name = "keys"
    secret.data["key"] = b"do not tell"
    objects = snapshot(paths, secret, settings)
    assert list(loaded(paths).secrets.values()) == [secret]
    assert holding(paths.run, b"do not tell")
    assert not holding(paths.state, b"do not tell")
    objects.apply(ObjectChange(type="DELETED", secret=secret))
    objects.apply(ObjectChange(type="DELETED", configMap=settings))
    assert not left(paths.secrets)
    assert left(paths.objects) == [LOG]


def holding(root: Path, what: bytes) -> Iterable[Path]:
    return [path for path in root.rglob("*") if path.is_file() and what in path.read_bytes()]
