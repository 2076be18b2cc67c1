"""Label and field selectors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane import selectors
from podplane.errors import Invalid
from podplane.v1 import event_pb2, meta_pb2, pod_pb2

LABELS = {"app": "web", "tier": "a", "size": "5", "x.y/z": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier=a", True),
        ("app=db", False),
        ("app!=db", True),
        ("other!=db", True),
        ("tier in (a,b)", True),
        ("tier in (b, c),app", False),
        ("tier notin (b)", True),
        ("other notin (b)", True),
        ("app", True),
        ("other", False),
        ("!other", True),
        ("!app", False),
        ("size>4", True),
        ("size>5", False),
        ("size<6", True),
        ("app<6", False),
        ("other>1", False),
        ("x.y/z=", True),
        ("in=b", False),
    ],
)
def test_kubectls_strings(text: str, matches: bool) -> None:
    assert selectors.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "=a",
        "a=b=c",
        "a in b",
        "a in (",
        "a in ()x",
        "a,,b",
        "a,",
        ",",
        "a b",
        "-a=b",
        "a=-b",
        "a>x",
        "!",
        "a=(b)",
        "a/b/c=d",
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="unable to parse the label selector"):
        selectors.parse(text)


def test_no_selector_matches_nothing_and_an_empty_one_everything() -> None:
    assert not selectors.from_message(None).matches({})
    assert selectors.from_message(meta_pb2.LabelSelector()).matches(LABELS)


def test_messages() -> None:
    message = meta_pb2.LabelSelector(matchLabels={"app": "web"})
    message.matchExpressions.add(key="tier", operator="NotIn", values=["b"])
    assert selectors.from_message(message).matches(LABELS)
    assert not selectors.from_message(message).matches({"tier": "a"})
    message.matchExpressions.add(key="tier", operator="Near")
    with pytest.raises(Invalid, match='"Near" is not an operator'):
        selectors.from_message(message)


NAMES = st.from_regex("[a-z]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)


@settings(deadline=None)
@given(st.dictionaries(NAMES, NAMES, max_size=3), st.dictionaries(NAMES, NAMES, max_size=3))
def test_printing_and_parsing_agree(wanted: dict[str, str], labels: dict[str, str]) -> None:
    selector = selectors.from_map(wanted)
    assert selectors.parse(str(selector)) == selector
    assert selector.matches({**labels, **wanted})
    assert selector.matches(labels) is all(labels.get(key) == value for key, value in wanted.items())


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("metadata.name=web", True),
        ("metadata.name==web,status.phase!=Running", False),
        ("status.phase!=Pending", True),
        ("spec.nodeName=", True),
        ("spec.hostNetwork=false", True),
        (r"status.message=a\,b\=c", True),
    ],
)
def test_field_selectors(text: str, matches: bool) -> None:
    pod = pod_pb2.Pod(metadata=meta_pb2.ObjectMeta(name="web"))
    pod.status.phase, pod.status.message = "Running", "a,b=c"
    assert selectors.parse_fields(text, pod_pb2.Pod).matches(pod) is matches


def test_fields_that_do_not_exist_are_refused() -> None:
    for path in ("spec.nope", "metadata", "metadata.labels", "spec.containers.name", "metadata.name.x"):
        with pytest.raises(Invalid, match=f"field label not supported: {path}"):
            selectors.parse_fields(f"{path}=a", pod_pb2.Pod)
    with pytest.raises(Invalid, match="unable to parse"):
        selectors.parse_fields("metadata.name", pod_pb2.Pod)
    event = event_pb2.Event()
    event.involvedObject.uid = "u"
    assert selectors.parse_fields("involvedObject.uid=u", event_pb2.Event).matches(event)
