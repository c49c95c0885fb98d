import pickle

import numpy as np
import pytest
import tiny_cifar
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cifar import CLASSES, POOL, TEST

from fgsynth.latent.features import cifar
from fgsynth.latent.features.cifar import cifar100_lt, exponential_counts, thinned
from fgsynth.utils.errors import UserError


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    return folder, *tiny_cifar.write(folder)


@pytest.fixture
def folder(stand_in, monkeypatch):
    tiny_cifar.patch(monkeypatch, stand_in[1])
    return stand_in[0]


@pytest.mark.parametrize(
    ("imbalance", "total", "last"), [(1, 50_000, 500), (10, 19_573, 50), (50, 12_608, 10), (100, 10_847, 5)]
)
def test_profiles_have_the_published_sizes(imbalance, total, last):
    counts = exponential_counts(100, 500, imbalance)
    assert counts.sum() == total
    assert (counts[0], counts[-1]) == (500, last)
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize(("c", "n_max", "imbalance"), [(1, 5, 2), (10, 5, 0.5), (10, 5, 6), (10, 5, np.nan)])
def test_profiles_that_leave_a_class_empty_are_refused(c, n_max, imbalance):
    with pytest.raises(UserError, match=f"Imbalance {imbalance} of {c} classes of at most {n_max}"):
        exponential_counts(c, n_max, imbalance)


def test_splits_of_the_official_files(folder, stand_in):
    made = cifar100_lt(folder, imbalance=5, n_val=2)
    label, split = made.source.label.numpy(), made.split
    sizes = {name: np.bincount(label[split == name], minlength=CLASSES) for name in set(split.tolist())}
    assert set(sizes) == {"train", "val", "rest", "test"}
    assert sizes["train"].tolist() == exponential_counts(CLASSES, POOL - 2, 5).tolist()
    assert (sizes["train"] + sizes["rest"] == POOL - 2).all()
    assert (sizes["val"] == 2).all()
    assert (sizes["test"] == TEST).all()
    assert split[-TEST * CLASSES :].tolist() == ["test"] * (TEST * CLASSES)
    assert made.classes[7] == "class 7"
    contents = stand_in[2]
    first = torch.from_numpy(contents["train"]["data"][0].reshape(3, 32, 32)).permute(1, 2, 0)
    assert torch.equal(made.source.x[0], first)
    assert label[: POOL * CLASSES].tolist() == contents["train"]["fine_labels"]


def test_the_images_are_the_same_for_every_imbalance_and_seed(folder):
    a, b = cifar100_lt(folder, imbalance=10), cifar100_lt(folder, imbalance=2, n_val=1, seed=5)
    assert torch.equal(a.source.x, b.source.x)
    assert torch.equal(a.source.label, b.source.label)
    assert (a.split != b.split).any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.floats(1, 8))
def test_the_set_for_choosing_is_a_part_of_the_usual_one(seed, n_val, imbalance):
    label = np.repeat(np.arange(5), 20)
    usual, choosing = (thinned(label, 5, imbalance, n, seed) for n in (0, n_val))
    assert set(np.flatnonzero(choosing == "train")) <= set(np.flatnonzero(usual == "train"))
    assert np.bincount(label[choosing == "val"], minlength=5).tolist() == [n_val] * 5
    assert np.array_equal(choosing, thinned(label, 5, imbalance, n_val, seed))


def test_a_steeper_tail_is_a_part_of_a_flatter_one_and_seeds_differ():
    label = np.repeat(np.arange(5), 20)
    steep, flat, other = (thinned(label, 5, *a) for a in ((20, 0, 0), (2, 0, 0), (20, 0, 1)))
    assert set(np.flatnonzero(steep == "train")) < set(np.flatnonzero(flat == "train"))
    assert (steep != other).any()


@pytest.mark.parametrize("n_val", [-1, 20])
def test_a_validation_set_that_takes_all_is_refused(n_val):
    with pytest.raises(UserError, match=f"n_val = {n_val} of 20 images per class"):
        thinned(np.repeat(np.arange(5), 20), 5, 2, n_val, 0)


def test_a_set_that_is_not_balanced_is_refused():
    with pytest.raises(UserError, match="Class 1 has 2 images, others 3"):
        thinned(np.array([0, 0, 0, 1, 1]), 2, 1, 0, 0)


def test_without_files_the_folder_is_named_and_nothing_is_downloaded(tmp_path):
    with pytest.raises(
        UserError, match=r"has no intact CIFAR-100 .*put the folder cifar-100-python of https"
    ):
        cifar100_lt(tmp_path)
    assert not list(tmp_path.iterdir())


def test_altered_files_are_refused_before_they_are_unpickled(folder, monkeypatch):
    monkeypatch.setattr(cifar.CIFAR100, "test_list", [["test", "0" * 32]])
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(UserError, match="has no intact CIFAR-100"):
        cifar100_lt(folder)
