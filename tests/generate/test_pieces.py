import pytest

from fgsynth.generate import pieces
from fgsynth.generate.pieces import PIECES, Step, steps
from fgsynth.generate.store import Store
from fgsynth.utils.errors import UserError
from tests.generate.test_store import content, make, plan, written


@pytest.fixture
def store(tmp_path):
    """Ten images in shards of 7 and 3, nothing made."""
    made = Store(tmp_path / "store", plan(), per_shard=7)
    made.tidy()
    return made


@pytest.fixture
def whole(tmp_path):
    """The same, written at once."""
    made = Store(tmp_path / "whole", plan(), per_shard=7)
    written(made)
    return made


class Asked:
    """Makes images and keeps the keys it was asked for."""

    def __init__(self):
        self.keys = []

    def __call__(self, rows):
        self.keys += rows["key"].tolist()
        return make(rows)


@pytest.mark.parametrize("piece", [1, 3, 7, 100])
def test_a_shard_of_pieces_has_the_bytes_of_one_written_at_once(store, whole, piece):
    for number in (0, 1):
        assert pieces.missing(store, number)
        *_, last = steps(store, number, make, piece)
        assert last.there == len(store.rows(number))
        assert not pieces.missing(store, number)
    pieces.tidy(store, set())
    assert content(store.folder) == content(whole.folder)


def test_steps_say_what_was_found_and_what_was_made(store):
    begun = steps(store, 0, make, 3)
    assert [next(begun), next(begun)] == [Step(0, 0), Step(3, 3)]
    assert list(steps(store, 0, make, 3)) == [Step(3, 0), Step(6, 3), Step(7, 1)]


def test_a_piece_that_is_there_is_not_made_again(store, whole):
    asked = Asked()
    begun = steps(store, 0, asked, 3)
    while next(begun).there < 6:
        pass
    begun.close()
    assert pieces.missing(store, 0)
    list(steps(store, 0, asked, 3))
    assert asked.keys == store.rows(0)["key"].tolist()
    assert store.files(0)[0].read_bytes() == whole.files(0)[0].read_bytes()
    assert not (store.folder / PIECES / "00000").exists()


def test_a_damaged_piece_and_one_of_another_size_are_made_again(store, whole):
    for piece, damaged in ((3, True), (2, False)):
        begun = steps(store, 0, make, 3)
        while next(begun).there < 6:
            pass
        begun.close()
        if damaged:
            path = store.folder / PIECES / "00000" / "00001.tar"
            data = bytearray(path.read_bytes())
            data[600] ^= 1
            path.write_bytes(data)
        asked = Asked()
        assert next(steps(store, 0, asked, piece)).there == (3 if damaged else 0)
        list(steps(store, 0, asked, piece))
        assert store.files(0)[0].read_bytes() == whole.files(0)[0].read_bytes()
        store.files(0)[1].unlink()


def test_tidying_leaves_only_the_pieces_to_keep(store):
    for number in (0, 1):
        begun = steps(store, number, make, 2)
        next(begun), next(begun)
    pieces.tidy(store, {1})
    assert [p.name for p in (store.folder / PIECES).iterdir()] == ["00001"]
    pieces.tidy(store, set())
    assert not (store.folder / PIECES).exists()


def test_no_index_stands_beside_a_joined_tar_that_is_not_its_own(store, whole, monkeypatch):
    changed = Store(whole.folder, plan().assign(seed=range(10)), per_shard=7)
    changed.tidy()
    begun = steps(changed, 0, make, 100)
    assert [next(begun).there, next(begun).there] == [0, 7]
    monkeypatch.setattr("pandas.DataFrame.to_parquet", lambda *_, **__: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        next(begun)
    assert whole.files(0)[0].exists()
    assert not whole.files(0)[1].exists()


def test_unfit_images_are_refused_and_earlier_pieces_stay(store):
    def spoils(rows):
        images, notes = make(rows)
        return (images, notes) if store.rows(0)["key"][0] in set(rows["key"]) else (images[1:], notes[1:])

    begun = steps(store, 0, spoils, 3)
    with pytest.raises(UserError, match=r"00001\.tar got 2 images for 3 rows: make one for each"):
        list(begun)
    assert next(steps(store, 0, make, 3)) == Step(3, 0)
    assert pieces.missing(store, 0)
