"""SVG drawings as a part of a page: identities of their own, a name for who cannot see them, colours that follow the reader's theme."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable

from anarch_core.html import Html

SCALE = 0.105
"""Width on the page in rem per point of the drawing, at most: letters of 8 points become about as large as the captions."""

_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_ROOT = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)


def inline(drawing: str, name: str, title: str, class_: str) -> Html:
    """An SVG file as an element.

    Args:
        drawing: the file's text, as matplotlib writes it.
        name: prefix that no other drawing on the page has.
        title: what it shows, read aloud instead of it.
        class_: its class.
    """
    start = _ROOT.search(drawing)
    if start is None:
        msg = f"the drawing {name} is no SVG with a viewBox"
        raise ValueError(msg)
    body = drawing[start.end() :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    seen: Counter[str] = Counter()

    def identity(found: re.Match[str]) -> str:
        seen[found[1]] += 1  # matplotlib gives equal images the same identity
        return f'id="{name}-{found[1]}{"" if seen[found[1]] == 1 else f"-{seen[found[1]]}"}"'

    body = re.sub(r'\bid="([^"]+)"', identity, body)
    body = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'href="#{name}-\2"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace("xlink:href=", "href=")
    body = _COLOUR.sub(lambda found: f"var(--c{found[0][1:]}, {found[0]})", body)
    label = html.escape(title)
    width = float(start[1].split()[2]) * SCALE
    attributes = f'class="{class_}" role="img" aria-label="{label}" viewBox="{start[1]}" style="max-width:{width:.1f}rem"'
    return Html(f"<svg {attributes}><title>{label}</title>{body}")


def dark_colours(page: Iterable[str]) -> str:
    """Declarations that turn every colour of the drawings into one of the same hue for a dark page."""
    found = sorted({"000000"} | {colour for text in page for colour in re.findall(r"var\(--c([0-9a-f]{6})", text)})
    return "".join(f"--c{colour}:{in_the_dark(colour)};" for colour in found)


def in_the_dark(colour: str) -> str:
    """A colour as it looks on a dark ground: greys turned around (black ``"000000"`` becomes nearly white), others lifted, hues kept.

    Lightness is that of Oklab (Ottosson 2020), in which equal steps look equal.
    """
    linear = [_linear(int(colour[index : index + 2], 16) / 255) for index in (0, 2, 4)]
    lms = [sum(weight * value for weight, value in zip(row, linear, strict=True)) ** (1 / 3) for row in _TO_LMS]
    lightness, a, b = (sum(weight * value for weight, value in zip(row, lms, strict=True)) for row in _TO_LAB)
    lightness = 0.94 - 0.70 * lightness if math.hypot(a, b) < GREY else 0.50 + 0.42 * lightness
    lms = [(lightness + weight[0] * a + weight[1] * b) ** 3 for weight in _FROM_LAB]
    rgb = [sum(weight * value for weight, value in zip(row, lms, strict=True)) for row in _FROM_LMS]
    return "#" + "".join(f"{round(255 * _encoded(min(max(value, 0.0), 1.0))):02x}" for value in rgb)


GREY = 0.03
"""Chroma below which a colour counts as grey."""

_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_FROM_LAB = ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))
_FROM_LMS = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _encoded(value: float) -> float:
    return value * 12.92 if value <= 0.0031308 else float(1.055 * value ** (1 / 2.4) - 0.055)
