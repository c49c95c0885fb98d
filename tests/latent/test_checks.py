import pytest
import torch

from fgsynth.latent.checks import by_class, check_counts, check_features
from fgsynth.utils.errors import UserError

FEATURES, LABEL = torch.arange(6.0).reshape(3, 2), torch.tensor([1, 0, 1])


def test_good_features_pass():
    assert check_features(FEATURES, LABEL) is None
    assert check_counts(torch.tensor([0, 3])) is None


@pytest.mark.parametrize(
    ("features", "label", "sentence"),
    [
        ([[1.0]], LABEL, "The training features are of the type list: give a torch.float32"),
        (FEATURES.double(), LABEL, "features are torch.float64 of the shape"),
        (FEATURES[0], LABEL, r"have the shape \(2,\): give at least one row"),
        (FEATURES[:0], LABEL[:0], r"have the shape \(0, 2\)"),
        (FEATURES, ["cat", "dog", "cat"], "labels of the training features are of the type list"),
        (FEATURES, LABEL.float(), "labels of the training features are torch.float32"),
        (FEATURES, LABEL[:2], r"3 rows of training features but labels of the shape \(2,\)"),
        (FEATURES, LABEL[:, None], r"labels of the shape \(3, 1\)"),
        (FEATURES, torch.tensor([0, 1, -1]), "Row 2 of the training features has the class -1"),
    ],
)
def test_bad_features_are_refused_in_one_sentence(features, label, sentence):
    with pytest.raises(UserError, match=sentence):
        check_features(features, label, "training features")


def test_finite_features_pass_even_where_their_sum_is_not_finite():
    large = torch.full((3, 2), 3e38)
    assert not large.sum().isfinite()
    assert check_features(large, LABEL) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_row_that_is_not_finite_is_named_with_its_class(value):
    features = FEATURES.clone()
    features[1:, 1] = value
    with pytest.raises(UserError, match=r"Row 1 of the features \(class 0\) is not finite"):
        check_features(features, LABEL)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([1, 2], "The counts are of the type list"),
        (torch.tensor([1.5]), "The counts are torch.float32"),
        (torch.tensor(3), r"of the shape \(\)"),
        (torch.tensor([2, -1]), "Class 1 has the count -1"),
    ],
)
def test_bad_counts_are_refused_in_one_sentence(counts, sentence):
    with pytest.raises(UserError, match=sentence):
        check_counts(counts)


def test_rows_are_grouped_in_their_order_and_copied():
    features = FEATURES.clone()
    groups = by_class(features, LABEL)
    assert list(groups) == [0, 1]
    features.zero_()
    assert torch.equal(groups[0], FEATURES[[1]])
    assert torch.equal(groups[1], FEATURES[[0, 2]])
