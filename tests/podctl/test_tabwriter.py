"""Alignment as Go's text/tabwriter does it."""

from __future__ import annotations

from podctl.tabwriter import align


def test_column_is_as_wide_as_its_widest_cell_and_the_padding() -> None:
    assert align("Name:\tweb\nNamespace:\tdefault") == "Name:       web\nNamespace:  default"


def test_line_without_tabs_begins_new_columns() -> None:
    text = "Name:\tweb\nData\nlong-key:\tv"
    assert align(text) == "Name:  web\nData\nlong-key:  v"


def test_inner_columns_are_aligned_within_their_block() -> None:
    text = "a\tb\tc\naa\tbbb\tc\nx\ty"
    assert align(text) == "a   b    c\naa  bbb  c\nx   y"


def test_text_after_the_last_tab_is_not_padded() -> None:
    assert align("a\tb\nccc\td") == "a    b\nccc  d"
