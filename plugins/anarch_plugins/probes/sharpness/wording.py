"""What the numbers of the probe ``sharpness`` are called, and what each of them means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import attrs

from anarch_plugins.probes.sharpness.options import SharpnessOptions

DEFINITIONS = {
    "quadratic": "radius^2 lambda_max / 2, the worst of a quadratic loss at its minimum",
    "average": "mean of L(w + d) - L(w) over random d and -d, normal of this deviation in every weight, or of this length in every filter",
    "worst": "largest L(w + d) - L(w) that projected gradient ascent finds for d no longer than this radius; the true maximum is no lower",
    "sam": "L(w + d) - L(w) for the d of this length along which the loss rises fastest (SAM; with adaptive lengths ASAM)",
}
LENGTHS = {
    "plain": "|d|",
    "adaptive": "|d / w|, entry by entry; weights that are zero stay so",
    "filter": "the largest |d_f| / |w_f| of a filter f, the weights into one output channel at all positions; biases stay as they are",
}
DIRECTIONS = {
    "": "all directions, by the parameters as they are",
    "_shared": "the shared directions alone, in the coordinates n^(1/2) w, with lengths relative to the shared part of w",
}


@attrs.frozen
class Number:
    """One scalar of the probe.

    Attributes:
        definition: of :data:`DEFINITIONS`.
        lengths: of :data:`LENGTHS`.
        radius: length of the perturbation; of an average, deviation of the noise.
        directions: of :data:`DIRECTIONS`.
    """

    definition: str
    lengths: str
    radius: float
    directions: str

    @property
    def name(self) -> str:
        """As in results: ``worst_0.05_shared``, ``adaptive_average_0.5``."""
        prefix = "" if self.lengths == "plain" else f"{self.lengths}_"
        return f"{prefix}{self.definition}_{self.radius:g}{self.directions}"


def numbers(options: SharpnessOptions) -> Iterator[Number]:
    """All that the options ask for: by directions, lengths and definition; radii from the smallest."""
    for directions in DIRECTIONS if options.shared else [""]:
        for lengths in dict.fromkeys(options.lengths):
            for definition in DEFINITIONS:
                if definition in options.definitions or (definition == "quadratic" and options.quadratic and lengths == "plain"):
                    radii = options.noise if definition == "average" else options.filter_radii if lengths == "filter" else options.radii
                    for radius in sorted(set(radii)):
                        yield Number(definition, lengths, radius, directions)


def definitions(options: SharpnessOptions) -> dict[str, str]:
    """What the words in the names of these numbers mean."""
    asked = list(numbers(options))
    words = [*(DEFINITIONS.items()), *(LENGTHS.items())]
    said = {word: text for word, text in words if any(word in (number.definition, number.lengths) for number in asked)}
    return said | ({"all": DIRECTIONS[""], "shared": DIRECTIONS["_shared"]} if options.shared else {"all": DIRECTIONS[""]})


def numbers_in(scalars: Iterable[str]) -> Iterator[Number]:
    """Those that scalars are named after; other scalars are passed over."""
    for name in scalars:
        if found := _NAME.fullmatch(name):
            lengths, definition, radius, directions = found.groups()
            yield Number(definition, lengths or "plain", float(radius), directions or "")


_NAME = re.compile(rf"(?:(adaptive|filter)_)?({'|'.join(DEFINITIONS)})_([0-9.e+-]+)(_shared)?")
