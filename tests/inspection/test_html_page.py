"""The page holds all it shows, and takes names as text."""

import base64
from html.parser import HTMLParser

import pytest

from hf_audioformer.inspection.html_page import Section, html_page

pytestmark = pytest.mark.unit


class Page(HTMLParser):
    """Collects what a browser would: the sources of images, the text, and whether tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.sources += [value for name, value in values.items() if name in ("src", "href") and value]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_tables_and_figures_lie_in_the_page() -> None:
    table = [("name", "number"), ("<b>bold</b>", "1")]
    parts = [Section("First", "Text & more.", table), Section("Second", "", figures=[('a "name"', b"png")])]
    page = Page(html_page("Title <x>", parts))
    assert page.open == []
    assert page.sources == ["#s1", "#s2", "data:image/png;base64," + base64.b64encode(b"png").decode()]
    for text in ("Title <x>", "Text & more.", "number", "<b>bold</b>"):
        assert text in page.text
