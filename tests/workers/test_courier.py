"""Files on their way: whole or not at all, where they belong or nowhere, with the times that inventories know them by."""

import os

import attrs
import numpy
import pytest

from anarch_core.errors import RunError
from anarch_core.experiment.store import RunStore
from anarch_core.workers.courier import PIECE, Desk, Piece, names, pieces


@pytest.fixture
def far(tmp_path):
    return RunStore(tmp_path / "far")


@pytest.fixture
def home(tmp_path):
    return RunStore(tmp_path / "home")


def put(store, name, content, segment="a"):
    path = store.segment(segment).path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def everything(store):
    """All that is below a run directory, hidden or not."""
    return {path.relative_to(store.path).as_posix(): path.read_bytes() for path in store.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1])
def test_a_file_arrives_with_its_bytes_and_its_time(far, home, size):
    sent = put(far, "snapshots/40.safetensors", os.urandom(size))
    os.utime(sent, ns=(0, 1_234_567_890_123_456_789))
    desk, travelling = Desk(home, ["a"]), list(pieces(far, "a", "snapshots/40.safetensors"))
    for piece in travelling:
        desk.take(piece)
    arrived = home.segment("a").snapshot(40)
    assert arrived.read_bytes() == sent.read_bytes()
    assert arrived.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert len(travelling) == max(1, -(-size // PIECE))
    assert len(everything(home)) == 1


def small(name, content, start=0, size=None, segment="a"):
    data = numpy.frombuffer(content, dtype=numpy.uint8)
    return Piece(segment=segment, name=name, data=data, start=start, size=len(content) if size is None else size, modified=7)


def test_of_a_sender_that_dies_between_two_pieces_the_old_file_is_left_and_nothing_else(home):
    put(home, "resume.safetensors", b"old")
    desk = Desk(home, ["a"])
    desk.take(small("resume.safetensors", b"new", size=6))
    desk.drop()
    desk.drop()
    assert everything(home) == {"segments/a/resume.safetensors": b"old"}


def test_another_file_after_an_unfinished_one_is_a_new_beginning(home):
    desk = Desk(home, ["a"])
    desk.take(small("resume.safetensors", b"new", size=6))
    desk.take(small("history.jsonl", b"rows"))
    assert everything(home) == {"segments/a/history.jsonl": b"rows"}


@pytest.mark.parametrize(
    "piece",
    [
        small("final.safetensors", b"def", start=3, size=6),
        small("resume.safetensors", b"ef", start=4, size=6),
        small("resume.safetensors", b"def", start=3, size=7),
        attrs.evolve(small("resume.safetensors", b"def", start=3, size=6), modified=8),
    ],
    ids=["of another file", "with a gap", "of another size", "of another time"],
)
def test_a_piece_that_does_not_follow_is_refused_and_leaves_nothing(home, piece):
    desk = Desk(home, ["a"])
    desk.take(small("resume.safetensors", b"abc", size=6))
    with pytest.raises(RunError, match="without those before it"):
        desk.take(piece)
    assert everything(home) == {}


def test_a_file_that_is_gone_goes_here_too(home):
    put(home, "resume.safetensors", b"state")
    desk = Desk(home, ["a"])
    desk.take(Piece(segment="a", name="resume.safetensors"))
    desk.take(Piece(segment="a", name="probes/delta-end.safetensors"))  # was never here
    assert everything(home) == {}


def test_a_folder_goes_with_its_last_file(home):
    put(home, "retraced/snapshots/4.safetensors", b"network")
    put(home, "retraced/resume.safetensors", b"state")
    desk = Desk(home, ["a"])
    desk.take(Piece(segment="a", name="retraced/snapshots/4.safetensors"))
    assert sorted(path.name for path in home.segment("a").path.rglob("*")) == ["resume.safetensors", "retraced"]
    desk.take(Piece(segment="a", name="retraced/resume.safetensors"))
    assert list(home.segment("a").path.iterdir()) == []


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("b", "final.safetensors"),
        ("../a", "final.safetensors"),
        ("a", "../b/final.safetensors"),
        ("a", "snapshots/../../../config.toml"),
        ("a", "/etc/passwd"),
        ("a", "snapshots//40.safetensors"),
        ("a", ".lock"),
        ("a", "snapshots/.40.safetensors.00000000.tmp"),
        ("a", ""),
        ("a", "."),
        ("a", "a\0b"),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_belongs_elsewhere_is_refused(home, segment, name, gone):
    desk, piece = Desk(home, ["a"]), small(name, b"evil", segment=segment)
    with pytest.raises(RunError, match="does not belong here"):
        desk.take(attrs.evolve(piece, data=None) if gone else piece)
    assert everything(home) == {}


@pytest.mark.parametrize("link", ["segments", "segments/a", "segments/a/snapshots", "segments/a/other"])
def test_nothing_is_written_through_a_link(home, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (home.path / link).parent.mkdir(parents=True)
    (home.path / link).symlink_to(outside)
    with pytest.raises(RunError, match=r"is a link, and nothing is written outside"):
        Desk(home, ["a"]).take(small("other/40.safetensors" if link.endswith("other") else "snapshots/40.safetensors", b"evil"))
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(home, tmp_path):
    (tmp_path / "outside").write_bytes(b"precious")
    home.segment("a").path.mkdir(parents=True)
    home.segment("a").final_file.symlink_to(tmp_path / "outside")
    Desk(home, ["a"]).take(small("final.safetensors", b"network"))
    assert (tmp_path / "outside").read_bytes() == b"precious"
    assert home.segment("a").final_file.read_bytes() == b"network"
    assert not home.segment("a").final_file.is_symlink()


def test_a_folder_in_the_place_of_a_file_is_put_aside(home):
    put(home, "final.safetensors/mine.txt", b"precious")
    Desk(home, ["a"]).take(small("final.safetensors", b"network"))
    assert home.segment("a").final_file.read_bytes() == b"network"
    assert b"precious" in everything(home).values()


def test_what_is_hidden_or_no_file_does_not_travel(far):
    for name in (".lock", "history.jsonl", "snapshots/40.safetensors", "retraced/snapshots/20.safetensors", "probes/.x.00000000.tmp"):
        put(far, name, b"")
    (far.segment("a").path / "link").symlink_to("history.jsonl")
    assert names(far.segment("a")) == ["history.jsonl", "retraced/snapshots/20.safetensors", "snapshots/40.safetensors"]
    with pytest.raises(OSError, match="link"):
        next(pieces(far, "a", "link"))


def test_a_file_that_becomes_shorter_while_it_is_sent_is_no_file(far):
    sent = put(far, "final.safetensors", bytes(PIECE + 1))
    travelling = pieces(far, "a", "final.safetensors")
    next(travelling)
    os.truncate(sent, 5)
    with pytest.raises(RunError, match="became shorter"):
        next(travelling)
