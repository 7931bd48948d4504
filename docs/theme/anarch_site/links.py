"""Links between files of the repository, as links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def relinked(markdown: str, page: str, places: Mapping[str, str]) -> str:
    """A page whose links to files of the repository are links to their pages; others are left alone, and found wanting by the build.

    Args:
        markdown: of the page.
        page: where it is on the site.
        places: by file of the repository, its page.
    """
    homes = {place: path for path, place in places.items()}
    if page not in homes:
        return markdown
    home = posixpath.dirname(homes[page])

    def relink(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(home, match[1]))
        place = places.get(target, places.get(f"{target}/README.md"))
        if place is None:
            return match[0]
        return posixpath.relpath(place, posixpath.dirname(page)) + (match[2] or "")

    # What is code stays as it is.
    parts, last = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_LINK.sub(relink, markdown[last : code.start()]), code[0]]
        last = code.end()
    return "".join([*parts, _LINK.sub(relink, markdown[last:])])
