"""Which pixels the positions of a convolution read along one axis."""

from __future__ import annotations

from anarch_core.lattice.geometry import NOTHING, Axis


def test_reads_of_each_padding_mode():
    axis = Axis(4, 3, before=1, after=1)
    assert axis.reads()[[0, -1]].tolist() == [[NOTHING, 0, 1], [2, 3, NOTHING]]
    folds = {"reflect": [1, 2], "replicate": [0, 3], "circular": [3, 0]}
    for mode, (low, high) in folds.items():
        reads = Axis(4, 3, before=1, after=1, mode=mode).reads()
        assert (reads[0, 0], reads[-1, -1]) == (low, high)
