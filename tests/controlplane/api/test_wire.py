"""The encodings that are put together by hand say what protobuf would."""

from __future__ import annotations

from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api import wire
from controlplane.store.stored import Event, Stored
from podplane.kinds import CONFIG_MAP, KINDS
from podplane.v1 import config_pb2, meta_pb2, pod_pb2, services_pb2, session_pb2

BYTES = config_pb2.ConfigMap(metadata=meta_pb2.ObjectMeta(name="a")).SerializeToString()
STORED = Stored(CONFIG_MAP, "configmaps/default/a", 7, 3, BYTES)


def test_lists_and_frames_have_the_same_field_numbers_for_every_kind() -> None:
    frames = {
        service.methods_by_name["Watch"].output_type for service in services_pb2.DESCRIPTOR.services_by_name.values()
    }
    assert len(frames) == len(KINDS)
    for kind in KINDS.values():
        fields = kind.list_message.DESCRIPTOR.fields_by_name
        for field in ("apiVersion", "kind", "metadata", "items"):
            assert fields[field].number == wire.number(pod_pb2.PodList.DESCRIPTOR, field)
    assert {frame.fields_by_name["events"].number for frame in frames} == {1}


def test_a_page_is_a_list_of_what_was_stored_at_its_revision() -> None:
    page = wire.page(CONFIG_MAP, [wire.item(STORED.wire)] * 2, meta_pb2.ListMeta(resourceVersion="9"))
    listed = config_pb2.ConfigMapList.FromString(page)
    assert (listed.kind, listed.apiVersion, listed.metadata.resourceVersion) == ("ConfigMapList", "v1", "9")
    assert [one.metadata.resourceVersion for one in listed.items] == ["7", "7"]


def test_a_frame_is_its_events_and_a_bookmark_only_a_revision() -> None:
    frame = wire.frame([Event("ADDED", STORED), wire.bookmark(CONFIG_MAP, 9)])
    events = config_pb2.ConfigMapWatchFrame.FromString(frame).events
    seen = [(one.type, one.object.metadata.name, one.object.metadata.resourceVersion) for one in events]
    assert seen == [("ADDED", "a", "7"), ("BOOKMARK", "", "9")]


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_integers_are_encoded_as_protobuf_does(value: int) -> None:
    field = wire.number(session_pb2.ControlFrame.DESCRIPTOR, "revision")
    assert session_pb2.ControlFrame.FromString(wire.integer(field, value)).revision == value


def test_every_watch_frame_parses_as_its_kinds_message() -> None:
    for service in services_pb2.DESCRIPTOR.services_by_name.values():
        message = GetMessageClass(service.methods_by_name["Watch"].output_type)
        assert message.FromString(wire.frame([])) == message()
