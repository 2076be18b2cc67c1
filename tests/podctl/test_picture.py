"""The picture of a pod's life: a document that any XML parser reads, with a bar for every span."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from podctl.lifeline import CONTROL, FAILED, POD, RUN, Panel, Span
from podctl.picture import WIDTH, picture

NAMES = {"svg": "http://www.w3.org/2000/svg"}
START = Panel(100.0, 100.06, [
    Span("scheduling", 100.0, 100.004, "on node-1", CONTROL),
    Span("sandbox", 100.01, 100.02, kind=POD),
    Span("create app", 100.02, 100.02, kind=POD),
    Span("app", 100.05, None, "running", RUN),
])  # fmt: skip


def _drawn(*panels: Panel, title: str = "pod default/web: Running") -> ElementTree.Element:
    return ElementTree.fromstring(picture([(title, panels)]))


def _bars(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Tooltip of each rect -> its left and right edge."""
    return {
        bar.findtext("svg:title", "", NAMES): (
            float(bar.attrib["x"]),
            float(bar.attrib["x"]) + float(bar.attrib["width"]),
        )
        for bar in root.iterfind(".//svg:rect", NAMES)
    }


def test_every_span_is_one_bar_with_its_time_on_one_scale() -> None:
    bars = _bars(_drawn(START))
    assert list(bars) == [
        "scheduling: 4.0ms (on node-1)", "sandbox: 10ms", "create app: 0.0ms", "app: goes on (running)",
    ]  # fmt: skip
    (left, scheduled), sandbox, instant, (app, right) = bars.values()
    scale = (right - 14 - left) / 60
    assert scheduled - left == pytest.approx(4 * scale, abs=0.2)
    assert sandbox == pytest.approx((left + 10 * scale, left + 20 * scale), abs=0.2)
    assert app == pytest.approx(left + 50 * scale, abs=0.2)
    assert instant[1] - instant[0] == pytest.approx(2, abs=0.1)  # it is still to be seen


def test_labels_and_times_can_be_read_without_pointing_at_bars() -> None:
    words = [text.text for text in _drawn(START).iterfind(".//svg:text", NAMES)]
    assert {"pod default/web", "Running", "scheduling", "4.0ms, on node-1", "sandbox", "10ms", "0", "60ms"} <= set(
        words
    )


def test_several_panels_and_pods_stand_below_one_another() -> None:
    root = ElementTree.fromstring(picture([("pod a: Running", [START, START]), ("pod b: Running", [START])]))
    tops = [float(bar.attrib["y"]) for bar in root.iterfind(".//svg:rect", NAMES)]
    assert tops == sorted(set(tops))
    assert len(tops) == 12
    assert tops[-1] + 14 < float(root.attrib["height"])


@pytest.mark.parametrize(
    "hostile", ["</text><script>alert(1)</script>", "a\x00b\x1b[31m", "\ud800", "&lt;\"'>", "naïve ☃"]
)
def test_what_a_pod_says_is_text_and_nothing_else(hostile: str) -> None:
    text = picture([(f"pod x: {hostile}", [Panel(0.0, 1.0, [Span(hostile, 0.0, 1.0, hostile, FAILED)])])])
    root = ElementTree.fromstring(text)
    assert text.isascii()
    assert {element.tag.partition("}")[2] for element in root.iter()} == {
        "svg",
        "title",
        "style",
        "path",
        "text",
        "rect",
    }
    shown = "".join(one if one.isprintable() and not "\ud800" <= one <= "\udfff" else "\ufffd" for one in hostile)
    assert shown in [element.text for element in root.iterfind(".//svg:text", NAMES)]


def test_it_needs_nothing_from_elsewhere_and_knows_dark_readers() -> None:
    text = picture([("pod x: Running", [START])])
    assert "prefers-color-scheme: dark" in text
    for word in ("href", "url(", "@import", "<script", "<!"):
        assert word not in text
    assert text.count("http") == 1  # the name of SVG


def test_a_life_without_length_and_a_long_name_are_drawn() -> None:
    name = "start " + "x" * 63
    bars = _bars(_drawn(Panel(5.0, 5.0, [Span(name, 5.0, None)])))
    ((left, right),) = bars.values()
    assert list(bars) == [f"{name}: goes on"]
    assert 0 < left < right <= WIDTH
