import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.data.benchmark import strata
from fgsynth.latent.features import digits as d
from fgsynth.utils.errors import UserError


def test_counts_populate_every_stratum():
    counts = d.long_tail_counts(10, 134, 5)
    assert counts[0] == 134
    assert counts[-1] == 5
    assert set(strata(counts)) == {"many", "medium", "few"}


@pytest.mark.parametrize(("n_max", "n_min"), [(5, 134), (134, 1)])
def test_counts_that_do_not_fall_or_leave_one_are_refused(n_max, n_min):
    with pytest.raises(UserError, match="need 2 <= n_min <= n_max"):
        d.long_tail_counts(10, n_max, n_min)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_split_is_disjoint_balanced_and_repeatable(seed):
    label = np.repeat(np.arange(4), 50)
    counts = d.long_tail_counts(4, 30, 3)
    split = d.long_tail_split(label, counts, 5, 10, seed)
    sizes = {name: np.bincount(label[rows], minlength=4) for name, rows in split.items()}
    assert sorted(sizes["train"]) == sorted(counts)
    assert sizes["test"].tolist() == [10] * 4
    assert sizes["val"].tolist() == [5] * 4
    assert (sizes["train"] + sizes["rest"]).tolist() == [30] * 4
    every = np.concatenate(list(split.values()))
    assert len(set(every.tolist())) == len(every) == 180
    assert np.array_equal(split["train"], d.long_tail_split(label, counts, 5, 10, seed)["train"])


def test_split_names_the_class_that_is_too_small():
    label = np.array([0] * 50 + [1] * 20)
    with pytest.raises(UserError, match="Class 1 has 20 samples, but 45"):
        d.long_tail_split(label, np.array([30, 3]), 5, 10, 0)


def test_random_convolutions_are_centred_of_length_one_and_frozen():
    images, _ = d.digits()
    e = d.random_convolution_features(images, 8)
    assert e.shape == (1797, 32)
    torch.testing.assert_close(e.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
    assert e.std() == pytest.approx(1, abs=1e-4)
    assert torch.equal(e, d.random_convolution_features(images, 8))
    assert not torch.equal(e, d.random_convolution_features(images, 8, seed=1))


def test_the_set_holds_every_image_of_the_draw_once():
    images, label = d.digits()
    # A feature is the number of its image.
    features = torch.arange(len(label)).float().reshape(-1, 1)
    split = d.long_tail_split(label.numpy(), d.long_tail_counts(10, 134, 5), 10, 30, 0)
    made = d.digits_lt(features, label, split)
    for name, rows in split.items():
        e, y = made.part(name)
        assert e[:, 0].long().tolist() == rows.tolist()
        assert torch.equal(y, label[rows])
    assert made.counts().tolist() == np.bincount(label[split["train"]]).tolist()
    assert len(images) > len(made.label)
