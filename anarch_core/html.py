"""Pieces of HTML in which every text is escaped, unless it is HTML already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

VOID = frozenset({"meta", "br", "img"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | None) -> Html:
    """``<name attribute="...">children</name>``; an underscore in an attribute's name is a hyphen, at its end it is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items() if value is not None
    )
    return Html(f"<{name}{given}>") if name in VOID else Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Children one after the other, texts escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child, quote=False) for child in children))


def paragraph(*children: str) -> Html:
    """A paragraph."""
    return element("p", *children)


def bullets(items: Iterable[str]) -> Html:
    """A list without order."""
    return element("ul", *(element("li", item) for item in items))


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    texts: int = 1,
    strong: Iterable[int] = (),
    wrapped: bool = False,
) -> Html:
    """A table in a box that scrolls sideways where the page is narrow; the first cell of a row is its heading.

    Args:
        caption: what it shows.
        headings: of the columns.
        rows: cells.
        texts: how many columns, from the left, are texts; the others are numbers and flush right.
        strong: rows that stand out.
        wrapped: whether cells may take several lines.
    """
    marked = set(strong)

    def cells(row: Sequence[str]) -> Iterable[Html]:
        for index, cell in enumerate(row):
            class_ = None if index < texts else "number"
            yield element("th", cell, scope="row") if index == 0 else element("td", cell, class_=class_)

    head = (element("th", heading, scope="col", class_=None if index < texts else "number") for index, heading in enumerate(headings))
    body = (element("tr", *cells(row), class_="strong" if index in marked else None) for index, row in enumerate(rows))
    content = element(
        "table", element("thead", element("tr", *head)), element("tbody", *body), class_="wrapped" if wrapped else None, aria_label=caption
    )
    # The caption stands outside, so that it does not scroll away.
    return join(
        [element("p", caption, class_="caption"), element("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)]
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Names and what they stand for."""
    return element("dl", *(Html(element("dt", name) + element("dd", text)) for name, text in pairs))


def folded(summary: str, *children: str) -> Html:
    """Something that opens when it is asked for."""
    return element("details", element("summary", summary), *children)
