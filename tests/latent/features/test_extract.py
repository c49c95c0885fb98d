import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fgsynth.data.sources import Images
from fgsynth.latent.features.extract import extract
from fgsynth.latent.features.extractors import Extractor
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator


class Corner(nn.Module):
    """The colour of the first pixel, times a weight: says which image it saw."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)

    def forward(self, x):
        return x[:, :, 0, 0] * self.weight


def corner(weight=1.0, **changes):
    def prepare(images):
        return torch.stack([torch.tensor(p.getpixel((0, 0))).float().reshape(3, 1, 1) for p in images])

    made = {"name": "corner", "preprocessing": "{}", "prepare": prepare}
    return Extractor(**{**made, "network": Corner(weight), "device": torch.device("cpu"), **changes})


def source(n=10, seed=0):
    x = torch.randint(0, 256, (n, 8, 8, 3), generator=generator("images", seed)).to(torch.uint8)
    return Images(x, torch.arange(n) % 3)


class Counting:
    """Images that note who was taken, and stop at a row once."""

    def __init__(self, images, stop=None, error=KeyboardInterrupt):
        self.images, self.stop, self.error = images, stop, error
        self.label, self.digest, self.taken = images.label, "counting", []

    def take(self, rows):
        if self.stop in rows.tolist():
            raise self.error("stopped")
        self.taken += rows.tolist()
        return self.images.x[rows]


def expected(images):
    return images.x[:, 0, 0].float()


@pytest.mark.parametrize(("batch", "shard"), [(3, 4), (1, 100), (64, 1), (2, 5)])
def test_features_are_in_order_whatever_the_batch_and_shard(tmp_path, batch, shard):
    images = source()
    features, label = extract(corner(), images, tmp_path, batch=batch, shard=shard)
    assert torch.equal(features, expected(images))
    assert torch.equal(label, images.label)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 13), st.integers(1, 13))
def test_no_row_is_lost_or_twice(tmp_path_factory, n, batch, shard):
    images, counting = source(n), Counting(source(n))
    features, _ = extract(corner(), counting, tmp_path_factory.mktemp("any"), batch=batch, shard=shard)
    assert torch.equal(features, expected(images))
    assert counting.taken == list(range(n))


def test_what_is_kept_opens_no_image(tmp_path):
    first, again = Counting(source()), Counting(source())
    made = extract(corner(), first, tmp_path)
    kept = extract(corner(), again, tmp_path)
    assert torch.equal(made[0], kept[0])
    assert torch.equal(made[1], kept[1])
    assert again.taken == []


def test_the_note_says_what_the_features_are_of(tmp_path):
    extract(corner(), source(), tmp_path)
    note = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert (note["rows"], note["k"], note["dtype"]) == (10, 3, "F32")
    assert note["extractor"] == "corner"
    assert note["weights"] == corner().digest
    assert len(note["manifest"]) == 16


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_stopped_run_goes_on_with_the_next_shard(tmp_path, error):
    with pytest.raises(error):
        extract(corner(), Counting(source(), stop=7, error=error), tmp_path, batch=2, shard=3)
    assert not list(tmp_path.glob("*.json"))
    again = Counting(source())
    features, _ = extract(corner(), again, tmp_path, batch=2, shard=3)
    assert again.taken == [6, 7, 8, 9]
    assert torch.equal(features, expected(source()))
    assert not list(tmp_path.glob("*.parts"))


def test_a_damaged_shard_is_made_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract(corner(), Counting(source(), stop=9), tmp_path, shard=3, batch=3)
    (first, second, _) = sorted(tmp_path.glob("*.parts/*.safetensors"))
    first.write_bytes(first.read_bytes()[:-4])
    second.write_bytes(b"")
    again = Counting(source())
    features, _ = extract(corner(), again, tmp_path, shard=3, batch=3)
    assert again.taken == [0, 1, 2, 3, 4, 5, 9]
    assert torch.equal(features, expected(source()))


def test_a_run_killed_between_features_and_note_is_joined_again(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fgsynth.latent.features.extract.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(corner(), Counting(source()), tmp_path)
    again = Counting(source())
    assert torch.equal(extract(corner(), again, tmp_path)[0], expected(source()))
    assert again.taken == []


def test_other_weights_images_preprocessing_and_names_are_kept_apart(tmp_path):
    runs = [
        (corner(), source()),
        (corner(2.0), source()),
        (corner(), source(seed=1)),
        (corner(preprocessing='{"size": 7}'), source()),
        (corner(name="other"), source()),
    ]
    for extractor, images in runs:
        extract(extractor, images, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == len(runs)


@pytest.mark.parametrize(("key", "value"), [("rows", 11), ("k", 4), ("dtype", "F16"), ("sha256", "0")])
def test_a_note_that_does_not_fit_its_features_is_refused(tmp_path, key, value):
    extract(corner(), source(), tmp_path)
    note = next(tmp_path.glob("*.json"))
    note.write_text(json.dumps(json.loads(note.read_text()) | {key: value}))
    with pytest.raises(UserError, match=rf"safetensors has {key} .*says {value}: delete {note.name}"):
        extract(corner(), source(), tmp_path)


def test_features_that_were_changed_or_lost_are_refused(tmp_path):
    extract(corner(), source(), tmp_path)
    file, note = next(tmp_path.glob("*.safetensors")), next(tmp_path.glob("*.json"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"has sha256"):
        extract(corner(), source(), tmp_path)
    for spoil in (lambda: file.write_bytes(b"x"), file.unlink, lambda: note.write_text("{")):
        spoil()
        with pytest.raises(UserError, match=r"is missing or damaged: delete .*json to extract"):
            extract(corner(), source(), tmp_path)
    note.unlink()
    assert torch.equal(extract(corner(), source(), tmp_path)[0], expected(source()))


def test_a_feature_that_is_not_finite_names_its_image(tmp_path):
    class Spoiled(Corner):
        def forward(self, x):
            e = super().forward(x)
            return torch.where(e == marked, torch.inf, e)

    images = source()
    marked = float(images.x[7, 0, 0, 1])
    images.x[:7, 0, 0] = 0
    with pytest.raises(UserError, match=r"'corner' gives image 7 a feature that is not finite"):
        extract(corner(network=Spoiled()), images, tmp_path, batch=5)


def test_an_image_that_cannot_be_read_is_one_sentence(tmp_path):
    broken = Counting(source(), stop=4, error=UserError)
    with pytest.raises(UserError) as caught:
        extract(corner(), broken, tmp_path)
    assert str(caught.value) == "stopped"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch": 0}, "Features of 0 images per batch: at least 1"),
        ({"shard": 0}, "Features of 0 images per shard: at least 1"),
        ({"source": source(0)}, "Features of 0 images: at least 1"),
    ],
)
def test_nothing_to_do_is_refused(tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        extract(corner(), **{"source": source(), "folder": tmp_path, **arguments})


def test_the_global_generator_is_left_alone(tmp_path):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    extract(corner(), source(), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
