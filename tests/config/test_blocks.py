import pytest
from dvc.utils.serialize import load_yaml

from fgsynth.config import params
from fgsynth.config.blocks import SCALES, Resolver, read
from fgsynth.utils.errors import UserError


def told(path):
    with pytest.raises(UserError) as caught:
        params.load(path)
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_damaged_files(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params\.yaml is missing: restore it"):
        params.load(path)
    for content, sentence in {
        b"scale: [": "not valid YAML",
        b"scale: mini\x00": "not valid YAML",
        b"mini": "expected keys",
        b"scale: mini  # caf\xe9": "byte 18 is not UTF-8",
        b"mini: &a {b: 1}\nfull: *a": "an alias (*name) repeats a block",
        b"mini: &a {b: 1}\nfull:\n  <<: *a\n  c: 2": "write `extends: NAME`",
    }.items():
        path.write_bytes(content)
        assert sentence in told(path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in told(path)


def test_a_key_twice_is_an_error(root, tmp_path):
    path = tmp_path / "params.yaml"
    text = (root / "params.yaml").read_text()
    path.write_text(text + "scale: paper\n")
    assert f"key 'scale' stands twice (again in line {text.count(chr(10)) + 1})" in told(path)
    path.write_text(text.replace("every: 5}", "every: 5, seeds: 4}"))
    assert "key 'seeds' stands twice" in told(path)


def test_values_mean_what_they_mean_to_dvc(tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text("a: 1e-5\nb: no\nc: 010\nd: 0o10\ne: 1_000\nf: 12:30\ng: ~\nh: on\ni: .5\nj: 0.00001\n")
    assert read(path) == load_yaml(path)
    assert read(path)["a"] == read(path)["j"] == 0.00001
    assert (read(path)["b"], read(path)["c"], read(path)["h"]) == ("no", 10, "on")


def resolved(raw):
    return Resolver(raw, "params.yaml").resolve().plain


def test_blocks_of_the_scale_come_before_those_of_all():
    raw = {
        "blocks": {"a": {"x": 1, "y": {"p": 1, "q": 2}}, "s": {"part": {"extends": "a"}, "z": 3}},
        "mini": {
            "blocks": {"a": {"extends": "a", "x": 2}},
            "one": {"extends": "s"},
            "two": {"extends": ["s", "a"], "part": {"y": {"q": 5}}},
        },
        "evening": {"one": {"extends": "s", "part": {"x": 7}}, "two": {"extends": "a"}},
        "paper": {"blocks": {"a": {"x": 9}}, "one": {"extends": "blocks.a"}, "two": {"extends": "a"}},
    }
    assert resolved(raw) == {
        "mini": {
            "one": {"part": {"x": 2, "y": {"p": 1, "q": 2}}, "z": 3},
            "two": {"part": {"x": 2, "y": {"p": 1, "q": 5}}, "z": 3, "x": 2, "y": {"p": 1, "q": 2}},
        },
        "evening": {
            "one": {"part": {"x": 7, "y": {"p": 1, "q": 2}}, "z": 3},
            "two": {"x": 1, "y": {"p": 1, "q": 2}},
        },
        "paper": {"one": {"x": 1, "y": {"p": 1, "q": 2}}, "two": {"x": 9}},
    }


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"one": {"extends": "b"}}, "'mini.one.extends' is 'b', and no block is called so: choose from a"),
        ({"one": {"extends": 3}}, "'mini.one.extends' is 3, and no block is called so"),
        ({"one": {"extends": ["a", "b"]}}, "'mini.one.extends' is 'b', and no block is called so"),
        ({"one": {"extends": {"a": 1}}}, "and no block is called so"),
        ({"blocks": {"b": {"x": 1}}, "one": {"extends": "a"}}, "'mini.blocks.b' is a block that nothing ext"),
        ({"one": {"extends": "a", "x": 2}}, "'blocks.a.x' has no effect, as no stage takes it from there"),
        ({"one": {"x": 2}}, "'blocks.a' is a block that nothing extends: remove it"),
        (
            {"blocks": {7: {"x": 1}}, "one": {"extends": "a"}},
            "'mini.blocks.7' is a block that nothing extends",
        ),
        ({"blocks": {"b": 3}, "one": {"extends": "b"}}, "'mini.blocks.b' is 3: a block is a mapping of keys"),
        ({"blocks": {"b": {"extends": "c"}, "c": {"extends": "b"}}, "one": {"extends": "b"}}, "in a circle"),
        ({"blocks": {"b": {"y": {"extends": "b"}}}, "one": {"extends": "b"}}, "in a circle"),
    ],
)
def test_what_cannot_be_resolved_is_one_sentence(raw, sentence):
    with pytest.raises(UserError) as caught:
        resolved({"blocks": {"a": {"x": 1}}, "mini": raw})
    assert str(caught.value).startswith("params.yaml: '")
    assert sentence in str(caught.value)


def test_a_key_of_a_block_of_smoke_has_no_effect(root):
    raw = read(root / "params.yaml")
    raw["smoke"]["blocks"]["sampling"]["n_steps"] = 3
    with pytest.raises(UserError, match=r"'smoke\.blocks\.sampling\.n_steps' has no effect"):
        resolved(raw)


def test_a_stage_depends_on_the_blocks_that_its_values_come_from(root):
    """At every scale but smoke, whose blocks have no keys."""
    raw = read(root / "params.yaml")
    resolver = Resolver(raw, "params.yaml")
    resolver.resolve()
    stages = load_yaml(root / "dvc.yaml")["stages"]
    for scale in SCALES:
        for stage in params.Stages.model_fields:
            listed = [name.replace("${scale}", scale) for name in stages[stage]["params"]]
            assert len(set(listed)) == len(listed)
            used = {".".join(block) for block in resolver.used.get((scale, stage), ())}
            if scale != "smoke":
                assert set(listed) == {"scale", f"{scale}.{stage}", *used}, stage
            for name in listed:
                value = raw
                for part in name.split("."):
                    value = value[part]
    used = {".".join(block) for block in resolver.used[("feedback_map",)]}
    of_map = load_yaml(root / "reports/evening/dvc.yaml")["stages"]["map"]["do"]["params"]
    assert set(of_map) == {"feedback_map", "pretrain.conditioning", *used}
    of_table = {".".join(block) for block in resolver.used[("mini", "imagenet_lt")]}
    assert set(stages["variance"]["params"]) == {"variance", "mini.imagenet_lt", *of_table}
    assert stages["pretrain"]["params"] == ["pretrain"]
    assert ("pretrain",) not in resolver.used
