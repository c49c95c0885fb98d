"""Every key of params.yaml, set through DVC's own machinery, reaches its places and no other."""

import json
from copy import deepcopy
from itertools import combinations

import pytest
from dvc.utils.hydra import apply_overrides

from fgsynth.config import params
from fgsynth.config.blocks import EXTENDS, Resolver, read
from fgsynth.utils.errors import UserError

FIXED_LENGTH = ("strata", "modes", "rate", "batch")
OTHERS = {
    "scale": "evening", "counts": "real", "dtype": "bfloat16", "revision": "a0b1",
    "template": "a drawing of *", "dropout": 0.25, "entropy": 0.3, "unknown_images": "go on",
    "official": "cifar100_lt:10",
}  # fmt: skip
ONLY = {
    "blocks.tables.split": "split 'test' is of the mini world",
    "paper.blocks.imagenet_lt_world.source": "input should be 'disk'",
    "paper.blocks.places_lt_world.source": "input should be 'disk'",
    "paper.blocks.nicopp_world.source": "input should be 'disk'",
}
"""Keys that take one value only -> what is said of any other."""


def leaves(value, key=()):
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from leaves(below, (*key, name))
    else:
        yield key, value


def another(key, value):
    """A valid value that the key does not have, whatever other keys have."""
    name = key[-1]
    if name == "optimiser":
        return "sgd" if value == "adamw" else "adamw"
    if name in OTHERS:
        return OTHERS[name]
    if name == "n_steps" and "ablations" in key:
        return value + 5
    if isinstance(value, list):
        return (
            [*value[:-1], another("_", value[-1])] if name in FIXED_LENGTH else [*value, added(name, value)]
        )
    if value is None or isinstance(value, bool):
        return 7 if value is None else not value
    if isinstance(value, str):
        return f"{value}other"
    return value + (1 if value < 20 else -1) if isinstance(value, int) else 0.9 * value or 0.5


def added(name, values):
    if name == "augment":
        return next(one for one in ("grey", "flip") if one not in values)
    if name == "cfg":
        return 2.0
    if name in ("methods", "curve_methods", "samplers"):
        return "kernel density" if "kernel density" not in values else "ERM"
    kinds = {float: 0.9, int: 7, str: "another, of {}"}
    return kinds[type(values[0])] if values else 7


@pytest.fixture(scope="module")
def raw(root):
    return read(root / "params.yaml")


@pytest.fixture(scope="module")
def settable(root, raw):
    """Keys and another value of each; an empty mapping gets a key."""
    part = params.load(root / "params.yaml").mini.imagenet_lt.model_dump(mode="json")
    world = {name: part[name] for name in ("world", "sampling", "training")}
    some = {"imagenet_lt": ["Fill-Up"], "places_lt": [], "nicopp": ["DFR"]}
    found = {("blocks", "ablations", "mini_world"): world, ("blocks", "baselines", "methods"): some}
    for key, value in leaves(raw):
        if key in found or key[-1] == EXTENDS or key[:2] == ("smoke", "blocks") or ".".join(key) in ONLY:
            continue
        if value == {}:
            found[(*key, "epochs" if key[0] != "smoke" else "seeds")] = 7
        else:
            found[key] = another(key, value)
    return found


def override(raw, key, value):
    below = raw
    for name in key[:-1]:
        below = below.get(name, {})
    return f"{'' if key[-1] in below else '+'}{'.'.join(key)}={written(value)}"


def written(value):
    """A value as overrides take it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(below)}" for name, below in value.items()) + "}"
    return json.dumps(value)


def changed(raw, values):
    raw = deepcopy(raw)
    for key, value in values.items():
        below = raw
        for name in key[:-1]:
            below = below[name]
        below[key[-1]] = value
    return raw


@pytest.fixture(scope="module")
def places(root, raw):
    """Every place of a value of every stage -> the key that gives it, by the committed file."""
    return {place: node.key for place, node in Resolver(raw, "").resolve().leaves()}


def filled(key):
    """The places of a key that is put into an empty mapping."""
    if key[1:3] == ("blocks", "places_lt_training"):
        stages = (("places_lt", "training"), ("baselines", "changes", "places_lt"))
        return [(key[0], *stage, key[-1]) for stage in stages if key[0] != "paper"]
    if key[-3:] == ("changes", "imagenet_lt", "epochs"):
        return [(scale, *key[1:]) for scale in ("mini", "evening", "paper")]
    return [key] if key[0] == "smoke" else []


def effective(path):
    return dict(leaves(params.load(path).model_dump(mode="json")))


def test_every_key_reaches_its_places_and_no_other(root, tmp_path, raw, settable, places):
    """Keys are set in groups such that of any two some group has the one and not the other."""
    codes = list(combinations(range(12), 5))
    assert len(settable) <= len(codes)
    text, path = (root / "params.yaml").read_text(), tmp_path / "params.yaml"
    before = effective(root / "params.yaml")
    assert all(settable[key] != value for key, value in leaves(raw) if key in settable)
    for i in range(12):
        group = {key: value for (key, value), code in zip(settable.items(), codes, strict=False) if i in code}
        path.write_text(text)
        apply_overrides(path, [override(raw, key, value) for key, value in group.items()])
        assert read(path) == changed(raw, group)
        expected = dict(before)
        for place, key in places.items():
            if key in group:
                assert place in expected
                expected[place] = group[key]
        for key in group:
            for place in filled(key):
                expected.pop(place[:-1], None)
                expected[place] = group[key]
        flat = {(*place, *key): at for place, value in expected.items() for key, at in leaves(value)}
        assert effective(path) == flat


@pytest.mark.parametrize("key", ONLY)
def test_a_key_with_one_value_refuses_others(root, tmp_path, key):
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text())
    apply_overrides(path, [f"{key}={'test' if key.endswith('split') else 'other'}"])
    with pytest.raises(UserError, match=ONLY[key]):
        params.load(path)


def test_every_extends_is_followed(root, tmp_path, raw):
    """Each alone names a block that is not there, and is told by its own key."""
    keys = [key for key, _ in leaves(raw) if key[-1] == EXTENDS]
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text())
    apply_overrides(path, [f"{'.'.join(key)}=nowhere" for key in keys])
    assert read(path) == changed(raw, dict.fromkeys(keys, "nowhere"))
    for key in keys:
        with pytest.raises(UserError) as caught:
            Resolver(changed(raw, {key: "nowhere"}), "params.yaml").resolve()
        assert f"'{'.'.join(key)}' is 'nowhere', and no block is called so" in str(caught.value)


def test_a_plus_changes_one_stage_alone(root, tmp_path, places):
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text())
    apply_overrides(path, ["+mini.nicopp.sampling.n_steps=20", "+mini.imagenet_lt.split=test"])
    after, before = effective(path), effective(root / "params.yaml")
    assert {place: after[place] for place in after if after[place] != before[place]} == {
        ("mini", "nicopp", "sampling", "n_steps"): 20,
        ("mini", "imagenet_lt", "split"): "test",
    }
