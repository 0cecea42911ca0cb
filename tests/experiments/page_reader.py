"""Reads a page of HTML with the standard library, and sees to it that it is well-formed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "hr", "img", "meta", "wbr"}


@dataclass
class Element:
    """An element with its attributes, its children (elements and texts), and the element that it is in."""

    tag: str
    attributes: dict
    parent: "Element | None" = None
    children: list = field(default_factory=list)

    @property
    def text(self):
        """The whole text in it, white space as a browser shows it."""
        return " ".join("".join(self._texts()).split())

    def _texts(self):
        for child in self.children:
            if isinstance(child, Element):
                yield from child._texts()
            else:
                yield child

    def all(self, tag=None, **attributes):
        """The elements in it with this tag and these attributes (a trailing ``_`` is dropped), in order."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in (None, child.tag) and wanted.items() <= child.attributes.items():
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def one(self, tag=None, **attributes):
        """The only such element."""
        [found] = self.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = self.open = Element("", {})
        self.declared = []

    def handle_decl(self, decl):
        self.declared.append(decl)

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs), self.open)
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_endtag(self, tag):
        assert tag == self.open.tag, f"</{tag}> closes <{self.open.tag}> in line {self.getpos()[0]}"
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def read_page(html):
    """The root of a page in which every tag is closed, and nothing has the same ``id`` as another."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open is reader.root, f"<{reader.open.tag}> is not closed"
    assert reader.declared == ["doctype html"]
    ids = [element.attributes["id"] for element in reader.root.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids), ids
    return reader.root


def read_table(table):
    """The cells of a table by the texts of their row's and their column's headers, but for the head itself."""
    head = [cell.text for cell in table.one("thead").all("th", scope="col")]
    rows = {}
    for row in [row for part in ("tbody", "tfoot") for body in table.all(part) for row in body.all("tr")]:
        cells = [child for child in row.children if isinstance(child, Element)]
        assert cells[0].tag == "th"
        if cells[0].attributes["scope"] == "row":
            rows[cells[0].text] = dict(zip(head[1:], cells[1:], strict=True))
    return rows
