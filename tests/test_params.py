import pytest
import yaml

from fgsynth import params
from fgsynth.errors import UserError


def changed(root, tmp_path, edit):
    raw = yaml.safe_load((root / "params.yaml").read_text())
    edit(raw)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_committed_file_is_whole_and_frozen(root):
    loaded = params.load(root / "params.yaml")
    assert loaded.scale == "mini"
    with pytest.raises(ValueError, match="frozen"):
        loaded.scale = "paper"


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda p: p["mini"]["toy_2d"].update(sedes=3), "unknown key 'mini.toy_2d.sedes'"),
        (lambda p: p["mini"].update(toy={}), "unknown key 'mini.toy'"),
        (lambda p: p["paper"]["toy_2d"].pop("updates"), "key 'paper.toy_2d.updates' is missing"),
        (lambda p: p["mini"]["toy_2d"].update(seeds="8"), "key 'mini.toy_2d.seeds' is '8'"),
        (lambda p: p["mini"]["toy_2d"].update(seeds=1), "key 'mini.toy_2d.seeds' is 1"),
        (lambda p: p["mini"]["toy_2d"].update(scales=[0.1, -1.0]), "key 'mini.toy_2d.scales.1' is -1.0"),
        (lambda p: p["mini"]["toy_2d"].update(scales=[0.1]), "must contain 0.0, the unguided reference"),
        (lambda p: p.update(scale="large"), "key 'scale' is 'large'"),
    ],
)
def test_a_wrong_key_is_named(root, tmp_path, edit, sentence):
    path = changed(root, tmp_path, edit)
    with pytest.raises(UserError) as caught:
        params.load(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("scale: [")
    with pytest.raises(UserError, match="not valid YAML"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("mini")
    with pytest.raises(UserError, match="expected keys"):
        params.load(tmp_path / "params.yaml")


def test_overrides_by_scale(root, tmp_path):
    mini = params.load(root / "params.yaml")
    assert mini.overrides("toy_2d")["n_steps"] == 30
    smoke = params.load(
        changed(root, tmp_path, lambda p: p.update(scale="smoke", smoke={"toy_2d": {"seeds": 2}}))
    )
    assert smoke.overrides("toy_2d") == {"seeds": 2}
    assert smoke.overrides("latent_probe") == {}
    with pytest.raises(UserError, match="No stage 'toy'"):
        mini.overrides("toy")
