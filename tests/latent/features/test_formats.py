import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from fgsynth.latent.features.formats import READERS
from fgsynth.utils.errors import UserError

npz, safetensors, parquet = (READERS[s] for s in (".npz", ".safetensors", ".parquet"))


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("data", [b"", b"no such file", bytes(2000)])
def test_garbage_is_one_sentence_with_the_file(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"a{suffix} is not a readable file of features") as caught:
        READERS[suffix](path)
    assert "\n" not in str(caught.value)


def test_python_objects_in_an_npz_are_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", features=np.ones((1, 1)), label=np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz is not .* \(label: Object arrays cannot be loaded"):
        npz(tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_bare_array_is_no_npz(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match=r"a\.npz is not a readable file"):
        npz(tmp_path / "a.npz")


def test_a_truncated_npz_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", features=np.random.default_rng(0).random((50, 9)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[200:400] = bytes(200)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz is not a readable file of features \(features"):
        npz(tmp_path / "a.npz")


def test_half_precision_and_split_places_of_safetensors(tmp_path):
    tensors = {
        "features": torch.tensor([[1.5], [2.5]], dtype=torch.bfloat16),
        "label": torch.tensor([0, 0]),
        "split": torch.tensor([0, 2], dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"classes": json.dumps(["ant"])})
    held = safetensors(tmp_path / "a.safetensors")
    assert held["features"].tolist() == [[1.5], [2.5]]
    assert held["split"].tolist() == ["train", "test"]
    assert held["classes"].tolist() == ["ant"]


@pytest.mark.parametrize("split", [torch.tensor([5]), torch.tensor([-1]), torch.tensor([0.0])])
def test_a_place_that_is_no_split_is_refused(tmp_path, split):
    save_file({"split": split}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="key 'split' must hold integers 0 to 4: train, val, test"):
        safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("classes", ["no json", "{}", "[1]"])
def test_classes_in_the_metadata_must_be_names(tmp_path, classes):
    save_file({"label": torch.zeros(1)}, tmp_path / "a.safetensors", {"classes": classes})
    with pytest.raises(UserError, match="'classes' in the metadata is"):
        safetensors(tmp_path / "a.safetensors")


def frame(path, **columns):
    pd.DataFrame(columns).to_parquet(path)
    return path


def test_lists_and_columns_of_a_table_are_alike(tmp_path):
    a = parquet(frame(tmp_path / "a.parquet", feature=[[1.0, 2.0], [3.0, 4.0]], label=[5, 6]))
    b = parquet(frame(tmp_path / "b.parquet", f0=[1.0, 3.0], f1=[2.0, 4.0], label=[5, 6]))
    assert a["features"].tolist() == b["features"].tolist() == [[1, 2], [3, 4]]
    assert a["label"].tolist() == b["label"].tolist() == [5, 6]
    assert "split" not in a


def test_names_in_a_category_column_are_names(tmp_path):
    held = parquet(frame(tmp_path / "a.parquet", f0=[1.0, 3.0], label=pd.Categorical(["b", "a"])))
    assert held["label"].tolist() == ["b", "a"]
    assert held["label"].dtype.kind == "U"


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"feature": [[1.0, 2.0], [3.0]]}, "row 1 of column 'feature' has 1 numbers, row 0 has 2"),
        ({"feature": [[1.0, 2.0], None]}, "row 1 of column 'feature' has 0 numbers, row 0 has 2"),
        ({"feature": [1.0, 2.0]}, "column 'feature' is double: give lists of numbers"),
        ({"f0": [1.0], "f2": [1.0]}, "has no column 'f1': features need all of f0 to f1"),
        ({"f0": [1.0, 2.0], "label": ["a", None]}, "row 1 has no label"),
        ({"f0": [1.0, 2.0], "split": [None, "train"]}, "row 0 has no split"),
    ],
)
def test_a_malformed_table_is_named_by_column_and_row(tmp_path, columns, sentence):
    with pytest.raises(UserError, match=rf"a\.parquet.*{sentence}"):
        parquet(frame(tmp_path / "a.parquet", **columns))


def test_a_number_that_is_missing_in_a_list_is_not_finite(tmp_path):
    held = parquet(frame(tmp_path / "a.parquet", feature=[[1.0, None], [3.0, 4.0]]))
    assert np.isnan(held["features"]).tolist() == [[False, True], [False, False]]
