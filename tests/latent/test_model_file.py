import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fgsynth.latent import model_file
from fgsynth.latent.estimator import LatentClassifier
from fgsynth.latent.features.extractors import extractor
from fgsynth.utils.errors import UserError

MINI = "unclip:data/pretrained/mini-unclip"
COLOURS = {"sky blue": (30, 90, 220), "red": (220, 40, 30), "grass": (40, 160, 50)}


def picture(colour, i):
    noise = np.random.default_rng(i).integers(-25, 26, (32, 32, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier of three colours, written; the classifier and images to predict."""
    reader, folder = extractor(MINI), tmp_path_factory.mktemp("model")
    x = reader([picture(c, i) for c in COLOURS.values() for i in range(6)])
    y = np.repeat(np.arange(3), 6)
    model = LatentClassifier(random_state=0).fit(x.numpy(), y)
    model_file.save(model, list(COLOURS), reader, folder)
    new = tmp_path_factory.mktemp("new")
    for i, (name, colour) in enumerate(COLOURS.items()):
        picture(colour, 50 + i).save(new / f"{i} {name}.png")
    (new / "notes.txt").touch()
    return folder, model, new


def test_a_written_classifier_predicts_as_the_one_in_memory(made):
    folder, model, new = made
    found = model_file.predict(folder, [new])
    assert [path.stem[2:] for path in found["path"]] == list(found["class"]) == list(COLOURS)
    expected = model.predict_proba(extractor(MINI)(found["path"].tolist()).numpy())
    np.testing.assert_allclose(found["probability"], expected.max(1), atol=1e-6)
    np.testing.assert_allclose(found["its probability"], np.sort(expected, 1)[:, -2], atol=1e-6)
    assert (found["second"] != found["class"]).all()
    one = model_file.predict(folder, [found["path"][1]])
    assert one["class"].tolist() == ["red"]


def test_the_files_hold_numbers_and_text_alone(made):
    folder = made[0]
    assert sorted(path.name for path in folder.iterdir()) == ["classifier.json", "classifier.safetensors"]
    assert json.loads((folder / "classifier.json").read_text())["classes"] == list(COLOURS)
    assert {k: tuple(v.shape) for k, v in load_file(folder / "classifier.safetensors").items()} == {
        "weight": (made[1].n_features_in_, 3), "bias": (3,),
    }  # fmt: skip


@pytest.fixture
def copy(made, tmp_path):
    for path in made[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_folder_that_is_not_whole_is_refused(made, copy, tmp_path):
    note = copy / "classifier.json"
    held = json.loads(note.read_text())
    note.write_text(json.dumps(held | {"weights": "other"}))
    with pytest.raises(UserError, match=r"unclip:.* has other weights than"):
        model_file.predict(copy, [made[2]])
    note.write_text(json.dumps(held | {"classes": ["one"]}))
    with pytest.raises(UserError, match="are of different classifiers"):
        model_file.predict(copy, [made[2]])
    save_file({"weight": torch.zeros(2, 2)}, copy / "classifier.safetensors")
    with pytest.raises(UserError, match="holds no whole classifier"):
        model_file.predict(copy, [made[2]])
    with pytest.raises(UserError, match=r"classifier.json is missing"):
        model_file.predict(tmp_path / "nowhere", [made[2]])


def test_no_image_and_a_damaged_one_are_named(made, tmp_path):
    with pytest.raises(UserError, match=r"No image \(.jpg"):
        model_file.predict(made[0], [tmp_path])
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad.jpg is not a readable image"):
        model_file.predict(made[0], [tmp_path])
