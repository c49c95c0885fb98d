import numpy as np
import pytest
import torch

from fgsynth.latent.features.feature_set import FeatureSet
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator


def feature_set(**changes):
    made = {
        "features": torch.randn(6, 3, generator=generator("features")),
        "label": torch.tensor([0, 1, 0, 1, 0, 1]),
        "split": np.array(["train", "train", "val", "test", "rest", "final"]),
        "classes": ("zebra", "ant"),
    }
    return FeatureSet(**{**made, **changes})


def test_parts_counts_and_rows_by_hand():
    made = feature_set()
    e, y = made.part("train", "rest")
    assert torch.equal(e, made.features[[0, 1, 4]])
    assert y.tolist() == [0, 1, 0]
    assert made.counts().tolist() == [1, 1]
    assert made.where("val").tolist() == [2]


def test_a_split_that_is_not_there_is_named():
    made = feature_set(split=np.array(["train"] * 6))
    with pytest.raises(UserError, match=r"feature set has no split 'val': choose one of train"):
        made.part("train", "val")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label": torch.zeros(5).long()}, "6 rows of features of feature set"),
        ({"features": torch.full((6, 3), torch.nan)}, "Row 0 of the features of feature set"),
        (
            {"label": torch.tensor([0, 1, 0, 1, -1, 1])},
            "Row 4 of the features of feature set has the class -1",
        ),
    ],
)
def test_a_set_that_is_not_sound_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        feature_set(**changes)
