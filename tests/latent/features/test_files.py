import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.latent.features.files import FeatureSet, read, write
from fgsynth.latent.features.formats import SPLITS
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

SUFFIXES = (".npz", ".safetensors", ".parquet")


def feature_set(**changes):
    made = {
        "features": torch.randn(6, 3, generator=generator("features")),
        "label": torch.tensor([0, 1, 0, 1, 0, 1]),
        "split": np.array(["train", "train", "val", "test", "rest", "final"]),
        "classes": ("zebra", "ant"),
    }
    return FeatureSet(**{**made, **changes})


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_as_it_was(tmp_path, suffix):
    made, path = feature_set(), tmp_path / f"a{suffix}"
    write(path, made)
    again = read(path)
    assert torch.equal(again.features, made.features)
    assert torch.equal(again.label, made.label)
    assert again.split.tolist() == made.split.tolist()
    assert again.classes == ("zebra", "ant")
    assert again.name == str(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_set_survives_any_format(tmp_path_factory, data):
    n, k, c = (data.draw(st.integers(1, top)) for top in (20, 5, 3))
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
    e = torch.tensor(data.draw(st.lists(numbers, min_size=(n + c) * k, max_size=(n + c) * k)))
    y = data.draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    split = data.draw(st.lists(st.sampled_from(SPLITS), min_size=n, max_size=n))
    names = data.draw(st.lists(st.text('aä ,"1', min_size=1), min_size=c, max_size=c, unique=True))
    made = FeatureSet(
        e.reshape(-1, k), torch.tensor([*range(c), *y]), np.array(["train"] * c + split), tuple(names)
    )
    path = tmp_path_factory.mktemp("any") / f"a{data.draw(st.sampled_from(SUFFIXES))}"
    write(path, made)
    again = read(path)
    assert torch.equal(again.features, made.features)
    assert torch.equal(again.label, made.label)
    assert again.split.tolist() == made.split.tolist()
    assert again.classes == made.classes


def test_parts_counts_and_rows_by_hand():
    made = feature_set()
    e, y = made.part("train", "rest")
    assert torch.equal(e, made.features[[0, 1, 4]])
    assert y.tolist() == [0, 1, 0]
    assert made.counts().tolist() == [1, 1]
    assert made.where("val").tolist() == [2]


def test_a_split_that_is_not_there_is_named():
    made = feature_set(split=np.array(["train"] * 6))
    with pytest.raises(UserError, match=r"feature set has no split 'val': choose of train"):
        made.part("train", "val")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label": torch.zeros(5).long()}, "6 rows of features of feature set"),
        ({"features": torch.full((6, 3), torch.nan)}, "Row 0 of the features of feature set"),
        ({"split": np.array(["train"] * 5)}, "key 'split' has shape .5,. for 6 features"),
        ({"split": np.array(["train"] * 5 + ["dev"])}, "row 5 has split 'dev': choose one of train, val"),
        ({"classes": ("ant", "ant")}, "key 'classes' has 'ant' twice"),
        ({"classes": ("ant",)}, "row 1 has label 1, but key 'classes' names classes 0 to 0"),
        (
            {"label": torch.tensor([0, 1, 0, 1, -1, 1])},
            "Row 4 of the features of feature set has the class -1",
        ),
        ({"label": torch.tensor([0, 0, 0, 1, 0, 1])}, "class 'ant' is in split 'test' but has no training"),
        ({"classes": ("zebra", "ant", "bee")}, "class 'bee' is in key 'classes' but has no training"),
    ],
)
def test_a_set_that_is_not_sound_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        feature_set(**changes)


def test_labels_with_gaps_are_mapped_and_their_values_kept(tmp_path):
    e = np.arange(8.0).reshape(4, 2)
    made = read(save(tmp_path / "a.npz", features=e, label=np.array([70, -3, 70, 8])))
    assert made.label.tolist() == [2, 0, 2, 1]
    assert made.classes == ("-3", "8", "70")
    assert made.split.tolist() == ["train"] * 4
    assert made.features.dtype == torch.float32


def test_labels_that_are_names_are_mapped_in_alphabetical_order(tmp_path):
    e = np.ones((3, 2), np.float16)
    made = read(save(tmp_path / "a.npz", features=e, label=np.array(["dog", "ant", "dog"])))
    assert made.label.tolist() == [1, 0, 1]
    assert made.classes == ("ant", "dog")


GOOD = {"features": np.ones((4, 2)), "label": np.array([0, 1, 0, 1])}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label": None}, "a.npz has no key 'label', only features"),
        ({"features": None}, "a.npz has no key 'features', only label"),
        ({"features": np.ones(4)}, "key 'features' is float64 of shape .4,.: give numbers"),
        (
            {"features": np.ones((0, 2)), "label": np.zeros(0, int)},
            "key 'features' is float64 of shape .0, 2.",
        ),
        ({"features": np.full((4, 2), "x")}, "key 'features' is <U1"),
        ({"label": np.array([0, 1])}, "key 'label' has shape .2,. for 4 features"),
        ({"label": np.zeros((4, 1), int)}, "key 'label' has shape .4, 1."),
        ({"label": np.zeros(4)}, "key 'label' is float64: give integers or names"),
        ({"split": np.array(["train"])}, "key 'split' has shape .1,. for 4 features"),
        ({"split": np.array(["train", "train", "dev", "val"])}, "a.npz: row 2 has split 'dev'"),
        ({"split": np.array(["train", "val", "train", "val"])}, "a.npz: class '1' is in split 'val' but has"),
        ({"classes": np.array([3, 4])}, "key 'classes' is int64 of shape .2,.: give names"),
        ({"classes": np.array(["a", "b"]), "label": np.array(list("abab"))}, "'label' has names beside key"),
        ({"classes": np.array(["a"])}, "a.npz: row 1 has label 1"),
    ],
)
def test_a_malformed_file_is_one_sentence_with_file_and_key(tmp_path, changes, sentence):
    arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
    with pytest.raises(UserError, match=sentence) as caught:
        read(save(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_in_float32_is_named_by_row(tmp_path, value):
    e = np.ones((4, 2))
    e[2, 1] = value
    with pytest.raises(UserError, match=r"Row 2 of the features of .*a\.npz"):
        read(save(tmp_path / "a.npz", features=e, label=np.array([0, 1, 0, 1])))


def test_other_suffixes_and_absent_files_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"a.pkl is no file of features: end the name in one of .npz, .parquet"
    ):
        read(tmp_path / "a.pkl")
    with pytest.raises(UserError, match=r"There is no file of features at .*a.npz"):
        read(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"Cannot write features to .*a.csv"):
        write(tmp_path / "a.csv", feature_set())


def test_columns_of_a_foreign_table_are_features_in_their_numbers_order(tmp_path):
    columns = {f"f{i}": [float(i), i + 0.5] for i in reversed(range(12))}
    pd.DataFrame({**columns, "label": ["b", "a"]}).to_parquet(tmp_path / "a.parquet")
    made = read(tmp_path / "a.parquet")
    assert made.features[1].tolist() == [i + 0.5 for i in range(12)]
    assert made.classes == ("a", "b")
