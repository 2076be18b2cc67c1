"""When it is told that a service cannot be programmed."""

from __future__ import annotations

from nodeagent.proxy.complaints import AGAIN, NO_HEALTH_CHECK, UNPROGRAMMED, Complaint, Complaints

REFUSED, OTHER = Complaint(UNPROGRAMMED, "refused"), Complaint(UNPROGRAMMED, "refused otherwise")
TAKEN = Complaint(NO_HEALTH_CHECK, "taken")


def test_each_is_told_at_once_when_its_words_change_and_now_and_then() -> None:
    complaints = Complaints()
    assert list(complaints.due({"a/x": REFUSED, "a/y": TAKEN}, 10.0)) == [("a/x", REFUSED), ("a/y", TAKEN)]
    assert list(complaints.due({"a/x": REFUSED, "a/y": TAKEN}, 12.0)) == []
    assert (complaints.of("a/x"), complaints.of("a/z")) == ("refused", "")
    assert list(complaints.due({"a/x": OTHER, "a/y": TAKEN}, 14.0)) == [("a/x", OTHER)]
    assert list(complaints.due({"a/x": OTHER, "a/y": TAKEN}, 10.0 + AGAIN)) == [("a/y", TAKEN)]


def test_what_is_well_again_is_forgotten_and_told_anew_when_it_comes_back() -> None:
    complaints = Complaints()
    assert list(complaints.due({"a/x": REFUSED}, 10.0)) == [("a/x", REFUSED)]
    assert list(complaints.due({}, 11.0)) == []
    assert complaints.of("a/x") == ""
    assert list(complaints.due({"a/x": REFUSED}, 12.0)) == [("a/x", REFUSED)]
