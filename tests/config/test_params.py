import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import dump_yaml

from fgsynth.config import params
from fgsynth.config.blocks import read
from fgsynth.utils.errors import UserError


def changed(root, tmp_path, edit):
    raw = read(root / "params.yaml")
    edit(raw)
    path = tmp_path / "params.yaml"
    dump_yaml(path, raw)
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
        (lambda p: p["blocks"]["toy_2d"].pop("n_points"), "key 'mini.toy_2d.n_points' is missing"),
        (lambda p: p["mini"]["toy_2d"].update(seeds="8"), "key 'mini.toy_2d.seeds' is '8'"),
        (lambda p: p["mini"]["toy_2d"].update(seeds=1), "key 'mini.toy_2d.seeds' is 1"),
        (lambda p: p["mini"]["toy_2d"].update(scales=[0.1, -1.0]), "key 'mini.toy_2d.scales.1' is -1.0"),
        (lambda p: p["mini"]["toy_2d"].update(scales=[0.1]), "must contain 0.0, the unguided reference"),
        (lambda p: p.update(scale="large"), "key 'scale' is 'large'"),
        (
            lambda p: p["mini"]["imagenet_lt"].update(sampling={"cgf": 3.0}),
            "unknown key 'mini.imagenet_lt.sampling.cgf': check its spelling or remove it.",
        ),
        (
            lambda p: p["mini"]["blocks"]["imagenet_lt_world"].pop("n_max"),
            "key 'mini.ablations.world.n_max' is missing: add it.",
        ),
        (lambda p: p["paper"]["ablations"].update(mini_world=None), "mini_world is needed beside a real set"),
        (
            lambda p: p["mini"]["ablations"].update(dropouts=[0.0, 0.3]),
            "contain 0.0 and sampling.dropout",
        ),
        (lambda p: p["mini"]["ablations"].update(scales=[0.3]), "must contain sampling.scales.entropy"),
        (lambda p: p["mini"]["imagenet_lt"].update(split="tset"), "key 'mini.imagenet_lt.split' is 'tset'"),
        (lambda p: p["mini"]["imagenet_lt"].update(amounts=[0.0, 0.5]), "amounts must contain 0.0 and 1.0"),
        (lambda p: p["mini"]["imagenet_lt"].update(weights=[0.0]), "weights 1.0"),
        (
            lambda p: p["mini"]["latent_probe"].update(sets=["digits_lt"]),
            "sets must contain one that ends in _f",
        ),
        (
            lambda p: p["mini"]["latent_probe"].update(curve_methods=["smoote"]),
            "there is no method 'smoote' of synthetic features",
        ),
        (
            lambda p: p["mini"]["latent_probe"].update(shots=[2, 5, 2]),
            "key 'mini.latent_probe.shots' is [2, 5, 2]: a value stands twice",
        ),
        (lambda p: p["mini"]["toy_2d"].update(scales=[0.0, 0.1, 0.0]), "a value stands twice"),
        (
            lambda p: p["mini"]["blocks"]["training"].update(augment=["crop", "crop"]),
            "key 'mini.blocks.training.augment' is ['crop', 'crop']: a value stands twice",
        ),
        (lambda p: p["mini"]["places_lt"].update(second_epochs=0), "key 'mini.places_lt.second_epochs' is 0"),
        (
            lambda p: p["evening"]["places_lt"].update(world={"strata": [4, 4]}),
            "key 'evening.places_lt.world.strata.2' is missing",
        ),
        (
            lambda p: p["paper"]["blocks"]["places_lt_world"].pop("root"),
            "key 'paper.places_lt.world.root' is missing",
        ),
        (
            lambda p: p["paper"]["nicopp"].update(world={"source": "disc"}),
            "key 'paper.nicopp.world.source' is 'disc': input should be 'disk'",
        ),
        (
            lambda p: p["paper"]["imagenet_lt"].update(split="test"),
            "of a real set the official test split is 'final'",
        ),
        (
            lambda p: p["mini"]["nicopp"].update(training={"workers": -1}),
            "key 'mini.nicopp.training.workers' is -1",
        ),
        (
            lambda p: p["mini"]["nicopp"].update(search={"rates": [0, 1]}),
            "unknown key 'mini.nicopp.search.rates'",
        ),
        (
            lambda p: p["mini"]["nicopp"].update(coefficients=[0.0, 0.03]),
            "key 'mini.nicopp.coefficients.0' is 0.0",
        ),
        (
            lambda p: p["paper"]["blocks"]["training"].update(counts="both"),
            "key 'paper.blocks.training.counts' is 'both'",
        ),
        (
            lambda p: p["blocks"]["sampling"]["scales"].pop("combined"),
            "scales must give entropy, loss, hardness and combined",
        ),
        (
            lambda p: p["mini"]["beyond"]["methods"]["imagenet_lt"].pop(),
            "methods.imagenet_lt must contain 'LDM (txt, img, dropout), more images'",
        ),
        (
            lambda p: p["blocks"]["beyond"]["methods"]["nicopp"].remove("LDM-FG (Entropy)"),
            "methods.nicopp must contain 'LDM-FG (Entropy)'",
        ),
        (
            lambda p: p["mini"]["beyond"].update(changes={"imagenet_lt": {"epoch": 3}}),
            "'mini.beyond': changes.imagenet_lt: unknown key 'epoch': check its spelling",
        ),
        (lambda p: p["feedback_map"].update(worlds=2), "unknown key 'feedback_map.worlds'"),
        (lambda p: p["feedback_map"]["denoisers"].update(batch=0), "key 'feedback_map.denoisers.batch' is 0"),
        (lambda p: p["variance"].update(sets=1), "key 'variance.sets' is 1"),
        (lambda p: p["smoke"].update(nicopp=3), "key 'smoke.nicopp' is 3"),
        (lambda p: p["smoke"].update(nicop={}), "unknown key 'smoke.nicop'"),
        (lambda p: p["smoke"]["toy_2d"].update(sedes=3), "does not declare the parameter 'sedes'"),
    ],
)
def test_a_wrong_key_is_named(root, tmp_path, edit, sentence):
    path = changed(root, tmp_path, edit)
    with pytest.raises(UserError) as caught:
        params.load(path)
    assert sentence in str(caught.value)
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_block_is_told_once_where_it_stands(root, tmp_path):
    path = changed(root, tmp_path, lambda p: p["blocks"]["sampling"].update(cfg_txt=3.0, cfg=0.5))
    with pytest.raises(UserError) as caught:
        params.load(path)
    told = str(caught.value)
    assert told.count("unknown key") == told.count("'blocks.sampling.cfg_txt'") == 1
    assert told.count("key 'blocks.sampling.cfg' is 0.5") == 1
    assert told.count(str(path)) == 2


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("own_pictures", "own_images", ("mini",)),
        ("pictures", "images", ("mini", "own_images")),
        ("pictures", "images", ("pretrain",)),
        ("ways", "methods", ("blocks", "latent_probe")),
        ("curve_ways", "curve_methods", ("blocks", "latent_probe")),
        ("ideas", "methods", ("blocks", "beyond")),
    ],
)
def test_an_old_name_is_told(root, tmp_path, old, new, key):
    def rename(raw):
        for name in key:
            raw = raw[name]
        raw[old] = raw.pop(new, "pets")

    path = changed(root, tmp_path, rename)
    with pytest.raises(UserError) as caught:
        params.load(path)
    assert str(caught.value).startswith(f"{path}: `{old}` is `{new}` now.")
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize("scale", ["smoke", "mini", "evening", "paper"])
def test_the_folder_of_own_images_stands_where_dvc_reads_it(root, tmp_path, scale):
    path = changed(root, tmp_path, lambda p: p["blocks"]["own_folder"].update(images="pets"))
    assert params.load(path).model_copy(update={"scale": scale}).overrides("own_images")["images"] == "pets"
    path = changed(root, tmp_path, lambda p: p[scale]["own_images"].update(images="pets"))
    with pytest.raises(UserError, match=rf"'{scale}\.own_images\.images' is nothing that DVC follows: give"):
        params.load(path)


@pytest.mark.parametrize("images", ["~/pets", "pets/list.csv", "pets/LIST.CSV"])
def test_what_dvc_cannot_follow_is_refused(root, tmp_path, images):
    path = changed(root, tmp_path, lambda p: p["blocks"]["own_folder"].update(images=images))
    with pytest.raises(UserError, match=f"'blocks.own_folder.images' is {images}, and DVC follows neither"):
        params.load(path)


def test_the_stage_of_own_images_depends_on_the_folder_it_reads(root, tmp_path, monkeypatch):
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    Repo.init(tmp_path, no_scm=True)
    monkeypatch.chdir(tmp_path)

    def deps(*overrides):
        apply_overrides(tmp_path / "params.yaml", list(overrides))
        stage = Repo(tmp_path).stage.load_one(name="own_images")
        return {dep.def_path for dep in stage.deps}

    first = deps("scale=mini")
    given = params.load(tmp_path / "params.yaml").mini.own_images.images
    assert given in first
    assert (root / given).exists()
    assert deps("blocks.own_folder.images=/elsewhere/pets") ^ first == {given, "/elsewhere/pets"}


def test_overrides_by_scale(root, tmp_path):
    mini = params.load(root / "params.yaml")
    assert mini.overrides("toy_2d")["n_steps"] == 30
    smoke = params.load(
        changed(root, tmp_path, lambda p: (p.update(scale="smoke"), p["smoke"]["toy_2d"].update(seeds=2)))
    )
    assert smoke.overrides("toy_2d") == {"seeds": 2}
    assert smoke.overrides("latent_probe") == {}
    with pytest.raises(UserError, match="No stage 'toy'"):
        mini.overrides("toy")
    with pytest.raises(UserError, match="`own_pictures` is `own_images` now"):
        mini.overrides("own_pictures")


def test_the_experiments_differ_between_the_scales_as_they_say(root):
    loaded = params.load(root / "params.yaml")
    for stage in ("imagenet_lt", "places_lt", "nicopp"):
        mini, evening, paper = (
            getattr(getattr(loaded, scale), stage) for scale in ("mini", "evening", "paper")
        )
        assert mini.split == evening.split == paper.split == "final"
        assert mini.sampling.fill_to < mini.world.n_max
        assert evening.sampling.fill_to is None  # to the largest class or group
        assert evening.world.seed != mini.world.seed, "final images that no run has looked at"
        assert (paper.sampling.n_steps, paper.sampling.every) == (30, 5)
        assert paper.sampling.through_network
        assert paper.world.source == "disk"
        assert paper.training.side == 224
    balanced = {s: getattr(loaded.mini, s).training.balanced for s in ("imagenet_lt", "places_lt", "nicopp")}
    assert balanced == {"imagenet_lt": 1.0, "places_lt": 1.0, "nicopp": 0.0}


def test_the_printed_protocol_is_asked_for(root):
    """FG 4.1 to 4.3 and appendix F, as far as they are printed."""
    paper = params.load(root / "params.yaml").paper
    fill = [getattr(paper, stage).sampling.fill_to for stage in ("imagenet_lt", "places_lt", "nicopp")]
    assert fill == [1300, 4980, 811]
    training = [getattr(paper, stage).training for stage in ("imagenet_lt", "places_lt", "nicopp")]
    assert [(t.network, t.pretrained, t.epochs) for t in training] == [
        ("resnext50_32x4d", False, 150), ("resnet152", True, 30), ("resnet50", True, 50),
    ]  # fmt: skip
    assert [t.batch for t in training[:2]] == [512, 512]
    assert (training[1].rate, training[1].weight_decay, paper.places_lt.second_epochs) == (0.0028, 0.0005, 10)
    assert set(paper.imagenet_lt.training.augment) == {"crop", "jitter", "blur", "grey"}
    assert (paper.nicopp.draws, paper.nicopp.seeds, paper.nicopp.training.augment) == (10, 5, ())
    assert (paper.nicopp.search.rate, paper.nicopp.search.batch) == ((-4, -2), (6, 6.75))
    assert paper.ablations.table_per_class == 20
    assert set(paper.places_lt.sampling.scales.values()) == {0.03}


def test_table_4_uses_the_images_and_classifiers_of_imagenet_lt(root):
    loaded = params.load(root / "params.yaml")
    for scale in (loaded.mini, loaded.evening, loaded.paper):
        for part in ("work", "world", "sampling", "training"):
            assert getattr(scale.ablations, part) == getattr(scale.imagenet_lt, part), part
        assert scale.ablations.table_seeds <= scale.imagenet_lt.seeds


def test_the_map_starts_from_the_point_of_the_experiments(root):
    loaded = params.load(root / "params.yaml")
    of_map, point = loaded.feedback_map, loaded.evening.imagenet_lt
    ours, theirs = (at.sampling.model_dump(exclude={"per_shard", "scales"}) for at in (of_map, point))
    assert ours == theirs
    assert of_map.sampling.scales["entropy"] == point.sampling.scales["entropy"]
    shorter = {"epochs": of_map.training.epochs, "updates_per_epoch": of_map.training.updates_per_epoch}
    assert of_map.training == point.training.model_copy(update=shorter)
    worlds = [getattr(loaded.evening, name).world.seed for name in ("imagenet_lt", "places_lt", "nicopp")]
    assert of_map.world.seed >= max(worlds) + 10  # none of theirs


def test_every_stage_has_a_block_at_every_scale(root):
    loaded = params.load(root / "params.yaml")
    assert list(params.Smoke.model_fields) == list(params.Stages.model_fields)
    for stage in params.Stages.model_fields:
        seeds = loaded.overrides(stage)["seeds"]
        assert min(seeds.values() if isinstance(seeds, dict) else [seeds]) >= 2
