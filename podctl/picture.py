"""The waterfall of pods as one SVG document: it needs nothing from elsewhere, and follows the reader's light or dark.

Pure. What pods say of themselves is escaped. Every span is one `rect` with a `title`, which browsers show as a tooltip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from html import escape

from podctl.lifeline import Panel, Span, length

WIDTH = 960
_EDGE = 24
_RIGHT = WIDTH - _EDGE
_ROW, _BAR = 22, 14
_MORE = 14
"""Pixels beyond the scale that a bar has for what goes on."""
_GLYPH = 6.8
"""Pixels that a character takes, about."""
_LABEL = 40
"""Characters of a label that are shown; the tooltip has all of it."""
_TICKS = 6
_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #24292f }
.page { fill: #ffffff }
.head { font-size: 15px; font-weight: 600 }
.quiet, .tick { fill: #656d76 }
.tick { font-size: 11px }
.label { text-anchor: end }
.grid { stroke: #d8dee4 }
.control { fill: #8250df }
.pod { fill: #0969da }
.container { fill: #1b9aaa }
.run { fill: #57ab5a }
.ready { fill: #2da44e }
.failed { fill: #cf222e }
.more { stroke: #ffffff; stroke-width: 2; fill: none }
.on { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .page { fill: #0d1117 }
  .quiet, .tick { fill: #8d96a0 }
  .grid { stroke: #30363d }
  .control { fill: #a371f7 }
  .pod { fill: #4493f8 }
  .container { fill: #39b8c8 }
  .run { fill: #6bc46d }
  .ready { fill: #3fb950 }
  .failed { fill: #f85149 }
  .more { stroke: #0d1117 }
  .on { fill: #0d1117 }
}
"""
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may contain."""


def picture(lives: Sequence[tuple[str, Sequence[Panel]]]) -> str:
    """A document of every pod's (title, panels), one below the other."""
    body: list[str] = []
    y = _EDGE
    for title, panels in lives:
        head, _, rest = title.partition(": ")
        body.append(f'<text class="head" x="{_EDGE}" y="{y + 10}">{_text(head)}</text>')
        body.append(f'<text class="quiet" x="{_EDGE}" y="{y + 30}">{_text(rest)}</text>')
        y += 52
        longest = max(len(span.label) for panel in panels for span in panel.spans)
        left = round(_EDGE + 12 + min(longest, _LABEL) * _GLYPH)
        for panel in panels:
            body += _panel(panel, left, y)
            y += _height(panel)
        y += _ROW // 2
    names = _text("; ".join(title for title, _ in lives))
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{names}">'
    page = f'<path class="page" d="M0 0h{WIDTH}v{y}H0z"/>'
    return "\n".join([head, f"<title>{names}</title>", f"<style>{_STYLE}</style>", page, *body, "</svg>"])


def _height(panel: Panel) -> int:
    return _ROW * len(panel.spans) + 40


def _panel(panel: Panel, left: int, top: int) -> Iterator[str]:
    total = max(panel.end - panel.start, 1e-6)
    bottom = top + _ROW * len(panel.spans) + 16
    step = _step(total)
    for number in range(int(total / step + 1e-9) + 1):
        x = left + number * step / total * (_RIGHT - left)
        yield f'<path class="grid" d="M{x:.1f} {top + 12}V{bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{top + 6}" text-anchor="middle">{_tick(number * step)}</text>'
    for row, span in enumerate(panel.spans):
        yield from _row(panel, span, left, top + 16 + row * _ROW)


def _row(panel: Panel, span: Span, left: int, y: int) -> Iterator[str]:
    def x(at: float) -> float:
        return left + min(max((at - panel.start) / max(panel.end - panel.start, 1e-6), 0.0), 1.0) * (_RIGHT - left)

    begin, goes_on = x(span.start), span.end is None or span.end > panel.end
    end = _RIGHT + _MORE if span.end is None or goes_on else max(x(span.end), begin + 2)
    lasts = "" if span.end is None else length(span.end - span.start)
    label = span.label if len(span.label) <= _LABEL else span.label[: _LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    yield f'<text class="label" x="{left - 10}" y="{y + 12}">{_text(label)}</text>'
    tip = f"{span.label}: {lasts or 'goes on'}" + (f" ({span.note})" if span.note else "")
    place = f'x="{begin:.1f}" y="{y + 1}" width="{end - begin:.1f}" height="{_BAR}" rx="2"'
    yield f'<rect class="{span.kind}" {place}><title>{_text(tip)}</title></rect>'
    if goes_on:
        yield f'<path class="more" d="M{end - 8} {y + 4}l4 4l-4 4"/>'
    if words := ", ".join(part for part in (lasts, span.note) if part):
        yield _words(words, left, begin, end, y + 12)


def _words(words: str, left: float, begin: float, end: float, y: int) -> str:
    """Beside the bar, on the side that has room; else on it."""
    long = len(words) * _GLYPH
    kind, at, anchor = "quiet", end + 6, "start"
    if end + 6 + long > WIDTH - 8:
        on_it = begin - 6 - long < left
        kind, at, anchor = ("on", end - 14, "end") if on_it else ("quiet", begin - 6, "end")
    return f'<text class="{kind}" x="{at:.1f}" y="{y}" text-anchor="{anchor}">{_text(words)}</text>'


def _step(total: float) -> float:
    """Between lines of the grid: 1, 2 or 5 of a power of ten, or of what clocks count in."""
    if total > 60:
        clock = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
        return next((step for step in clock if total / step <= _TICKS), 86400 * math.ceil(total / 86400 / _TICKS))
    power = 10.0 ** math.floor(math.log10(total / _TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if total / (power * factor) <= _TICKS)


def _tick(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms" if seconds else "0"
    return f"{seconds:.3g}s" if seconds < 60 else length(seconds)


def _text(words: str) -> str:
    """In ASCII, so that it does not matter how it is written to a file."""
    return escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", words)).encode("ascii", "xmlcharrefreplace").decode()
