import pytest
import torch

from fgsynth.config.schema import LatentSets
from fgsynth.latent.features import registry
from fgsynth.latent.study import bridge, comparison
from fgsynth.utils.errors import UserError

WORLD = {"n_min": 3, "n_val": 2, "n_test": 3, "modes": [1.0], "n_max": 110, "seed": 0}


@pytest.fixture(scope="module")
def settings():
    return LatentSets.model_validate(
        {
            "extractor": "unclip:data/pretrained/mini-unclip",
            "digits": {"n_max": 60, "n_min": 4, "n_val": 5, "n_test": 10, "filters": 4},
            "worlds": {"places_lt": {**WORLD, "strata": [2, 3, 7]}},
            "cifar100": "nowhere",
            "cifar100_val": 5,
            "places_lists": "nowhere",
            "places_images": "nowhere",
        }
    )


def test_digits_are_another_draw_for_another_seed(settings):
    a, b, c = (registry.load("digits_lt", seed, settings, "x").choosing for seed in (0, 0, 1))
    assert torch.equal(a.features, b.features)
    assert a.counts().tolist() != c.counts().tolist()
    assert a.counts().max() == 60


def test_the_mini_world_comes_as_features_with_its_images(settings, tmp_path):
    drawn = registry.load("places_lt_features", 1, settings, str(tmp_path))
    assert drawn.choosing.counts().min() == 3
    assert drawn.choosing.counts().max() == 110
    assert len(drawn.images.source.label) == len(drawn.choosing.features)
    # The full set holds every class as often as the largest.
    assert drawn.choosing.part("train", "rest")[1].bincount().tolist() == [110] * 12
    other = registry.load("places_lt_features", 2, settings, str(tmp_path)).choosing
    assert other.counts().tolist() != drawn.choosing.counts().tolist()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("digits", "No benchmark of features 'digits': choose one of digits_lt, imagenet_lt_features"),
        ("cifar100_lt:much", "No benchmark of features 'cifar100_lt:much'"),
        ("cifar100_lt:100", "nowhere has no intact CIFAR-100"),
        ("places365_lt", "nowhere"),
    ],
)
def test_what_is_not_there_is_named(settings, tmp_path, name, sentence):
    with pytest.raises(UserError, match=sentence):
        registry.load(name, 0, settings, str(tmp_path))


def test_the_bridge_in_both_directions(settings, tmp_path, root):
    from fgsynth.generate.generator import Generator
    from fgsynth.miniworld import judge

    folder = root / "data/pretrained/mini-unclip"
    model, reader = Generator.load(folder, 4), judge.load(folder / "judge.safetensors")
    raw = registry.load("places_lt_features", 1, settings, str(tmp_path)).choosing
    few = bridge.few_classes(raw)
    assert len(few) == 7
    decoded = bridge.decode(raw, 0, model, reader, ["class gaussian"], per_class=2)
    assert {k: v.shape for k, v in decoded.images.items()} == {
        "real": (14, 32, 32, 3),
        "class gaussian": (14, 32, 32, 3),
    }
    assert decoded.titles == [raw.classes[c] for c in few for _ in range(2)]
    read = decoded.recognised
    real = read[(read["features"] == "real") & (read["text"] == "the class")]
    assert real["recognised"].iloc[0] > 50  # of twelve scenes, after four steps
    draw = comparison.Draw(comparison.scaled(raw), 0, [0.01])
    rows = bridge.images_against_samples(raw, draw, model, ["class gaussian"], per_class=2)
    assert list(rows["method"]) == ["no synthetic features", "unCLIP images", "class gaussian"]
    assert rows["overall"].gt(50).all()


def test_noise_degrades_features_and_nothing_else(settings):
    clean, noisy = (registry.load(f"digits_lt{end}", 0, settings, "x").choosing for end in ("", ", noise 2"))
    assert torch.equal(clean.label, noisy.label)
    assert (clean.split == noisy.split).all()
    added = noisy.features - clean.features
    spread = (clean.features - clean.features.mean(0)).std().item()
    assert added.std().item() == pytest.approx(2 * spread, rel=0.05)
    with pytest.raises(UserError, match="No benchmark of features 'digits_lt, noise much'"):
        registry.load("digits_lt, noise much", 0, settings, "x")
