import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.config.schema import Groups, LongTail
from fgsynth.data import mini
from fgsynth.data.benchmark import COLUMNS, strata
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.miniworld.places import PLACES
from fgsynth.utils.errors import UserError

TAIL = LongTail(n_max=120, n_min=4, strata=(3, 9, 12), n_val=2, n_test=3, modes=(0.5, 0.5))
GROUPS = Groups(n_max=12, n_min=1, empty=5, held_out=9, classes=4, modes=(0.9, 0.1))


def other(asked, **changes):
    return type(asked)(**{**asked.model_dump(), **changes})


@pytest.fixture(scope="module")
def long_tailed():
    return mini.imagenet_lt(TAIL)


@pytest.fixture(scope="module")
def grouped():
    return mini.nicopp(GROUPS)


@pytest.mark.parametrize("sizes", [(8, 9, 7), (1, 1, 2), (385, 479, 136)])
@pytest.mark.parametrize(("n_max", "n_min"), [(1280, 5), (200, 4), (105, 2), (110, 19)])
def test_the_tail_has_the_strata_asked_for(sizes, n_max, n_min):
    counts = mini.tail_counts(other(TAIL, strata=sizes, n_max=n_max, n_min=n_min))
    names = strata(counts)
    assert tuple((names == name).sum() for name in ("many", "medium", "few")) == sizes
    assert (counts[0], counts[-1]) == (n_max, n_min)
    assert (np.diff(counts) <= 0).all()


def test_the_long_tailed_draw_is_as_asked(long_tailed):
    m = long_tailed.manifest
    assert m.classes == tuple(CLASSES)
    assert sorted(m.counts().tolist(), reverse=True) == mini.tail_counts(TAIL).tolist()
    assert m.counts().tolist() != mini.tail_counts(TAIL).tolist()  # which class is rare is drawn
    for split, n in (("val", 2), ("test", 3), ("final", 3)):
        assert m.counts(split).tolist() == [n] * len(CLASSES)
    assert mini.imagenet_lt(other(TAIL, seed=1)).manifest.counts().tolist() != m.counts().tolist()
    places = mini.places_lt(other(TAIL, strata=(1, 1, len(PLACES) - 2)))
    assert places.manifest.classes == tuple(PLACES)


def test_strata_must_add_up_to_the_classes():
    with pytest.raises(UserError, match=r"imagenet_lt has 24 classes, its strata \[1, 1, 1\] add up to 3"):
        mini.imagenet_lt(other(TAIL, strata=(1, 1, 1)))


def test_the_rule_of_the_held_out_by_hand():
    assert mini.held_out_split(5, 7).tolist() == ["val"] + ["test"] * 4  # fewer than are held out
    assert mini.held_out_split(7, 7).tolist() == ["val"] * 2 + ["test"] * 5
    assert mini.held_out_split(9, 7).tolist() == ["val"] * 2 + ["test"] * 5 + ["train"] * 2
    splits = mini.held_out_split(886, 75).tolist()  # the largest group of NICO++
    assert [splits.count(name) for name in ("val", "test", "train")] == [25, 50, 811]


@given(st.integers(3, 80), st.integers(2, 24), st.integers(0, 11), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_pools_leave_as_many_groups_empty_as_asked(held_out, classes, empty, seed):
    n = mini.pools(Groups(n_max=30, n_min=2, empty=empty, held_out=held_out, classes=classes, modes=(1.0,),
                          seed=seed))  # fmt: skip
    assert len(n) == 6 * classes
    assert (n <= held_out).sum() == empty
    assert n.min() >= 3  # a third of which is one image to validate on
    assert n.max() == held_out + 30


def test_empty_groups_have_no_training_image_but_are_tested(grouped):
    m = grouped.manifest
    train, test = m.group_counts(), m.group_counts("test")
    assert len(train) == 24
    assert (train == 0).sum() == GROUPS.empty
    assert (train.max(), train[train > 0].min()) == (GROUPS.n_max, GROUPS.n_min)
    assert (test[train > 0] == 6).all()
    assert (test[train == 0] == 6).all()  # 8 held out, of which 2 val
    assert (m.group_counts("val")[train == 0] == 2).all()
    assert torch.equal(m.group_counts("final"), test)


@pytest.mark.parametrize("seed", range(5))
def test_no_class_is_empty(seed):
    assert mini.nicopp(other(GROUPS, seed=seed)).manifest.counts().min() > 0


def test_not_all_groups_can_be_empty():
    with pytest.raises(UserError, match="24 empty groups of 24: leave some"):
        mini.nicopp(other(GROUPS, empty=24))


@pytest.mark.parametrize("name", ["long_tailed", "grouped"])
def test_splits_share_no_image(name, request):
    bench = request.getfixturevalue(name)
    keys = {split: set(bench.manifest.rows(split)["key"]) for split in ("train", "val", "test", "final")}
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == len(bench.manifest.table)
    seen = bench.images(bench.manifest.table)
    assert len(torch.unique(seen.flatten(1), dim=0)) == len(seen)


def test_final_and_test_are_different_images_of_the_same_groups(grouped):
    test, final = (grouped.manifest.rows(split) for split in ("test", "final"))
    assert test[["label", "context"]].equals(final[["label", "context"]])
    different = grouped.images(test) != grouped.images(final)
    assert (different.flatten(1).float().mean(1) > 0.2).all()


@pytest.mark.parametrize("name", ["long_tailed", "grouped"])
def test_an_image_depends_on_its_row_alone(name, request):
    bench = request.getfixturevalue(name)
    rows = bench.manifest.rows("test").iloc[:20]
    order = rows.sample(frac=1, random_state=0).index[:7]
    assert torch.equal(bench.images(rows.loc[order].reset_index(drop=True)), bench.images(rows)[order])


def test_factors_are_known_beside_the_manifest_and_never_in_it(grouped):
    m, rows = grouped.manifest, grouped.manifest.rows("test")
    assert list(m.table.columns) == COLUMNS
    factors = grouped.factors(rows)
    assert factors["kind"].tolist() == [m.classes[y] for y in rows["label"]]
    assert factors["context"].tolist() == [m.contexts[c] for c in rows["context"]]
    assert set(factors["mode"]) <= {0, 1}


def test_another_draw_is_another_data_set(long_tailed):
    """The keys are the same ones, the images are not."""
    m, changed = long_tailed.manifest, mini.imagenet_lt(other(TAIL, modes=(1.0,)))
    rows = m.rows("test").iloc[:9]
    assert changed.manifest.table.equals(m.table)
    assert not torch.equal(changed.images(rows), long_tailed.images(rows))
    assert changed.manifest.digest != m.digest
    assert mini.imagenet_lt(TAIL).manifest.digest == m.digest
    assert mini.imagenet_lt(other(TAIL, seed=1)).manifest.digest != m.digest


def test_modes_follow_their_shares(long_tailed):
    mode = long_tailed.factors(long_tailed.manifest.rows("train"))["mode"]
    assert (mode == 1).mean() == pytest.approx(0.5, abs=0.06)
    assert set(mode) == {0, 1}
