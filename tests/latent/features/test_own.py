import numpy as np
import pytest
import torch
from PIL import Image

from fgsynth.latent.features import own
from fgsynth.utils.errors import UserError

SIZES = {"cat": (5, 3), "dog": (4, 2), "emu": (1, 0)}


def picture(i):
    """An image like no other."""
    pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write(root, sizes=SIZES, held="test"):
    i = 0
    for name, counts in sizes.items():
        for split, n in zip(("train", held), counts, strict=True):
            for _ in range(n):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(i).save(path)
                i += 1
    return root


def sizes(found, seed):
    split, label = found.draw(seed), found.images.source.label.numpy()
    return [(int((split[label == y] == "train").sum()), int((split[label == y] == "test").sum()))
            for y in range(len(found.images.classes))]  # fmt: skip


@pytest.mark.parametrize("held", ["test", "val", "final"])
def test_what_the_folder_holds_out_is_tested_and_all_else_trained_on(tmp_path, held):
    found = own.of_folder(write(tmp_path, held=held))
    assert sizes(found, 0) == [*SIZES.values()]
    tested = np.array([f"/{held}/" in path for path in found.images.source.paths])
    assert ((found.draw(0) == "test") == tested).all()


def test_without_any_a_fifth_is_tested_and_a_class_of_one_is_kept_for_training(tmp_path):
    found = own.of_folder(write(tmp_path, {"cat": (10, 0), "dog": (5, 0), "emu": (1, 0)}))
    assert sizes(found, 0) == [(8, 2), (4, 1), (1, 0)]


def test_other_splits_exchange_images_within_classes(tmp_path):
    found = own.of_folder(write(tmp_path))
    assert sizes(found, 3) == [*SIZES.values()]
    assert any((found.draw(seed) != found.draw(0)).any() for seed in range(1, 4))
    assert (found.draw(2) == found.draw(2)).all()


def test_a_group_stays_on_its_side(tmp_path):
    write(tmp_path, {"cat": (6, 0), "dog": (6, 0)})
    lines = ["path,label,group,split"]
    for path in sorted((tmp_path / "train").rglob("*.png")):
        number = int(path.stem) % 6
        split = "test" if number < 2 else "train"
        lines.append(f"{path.relative_to(tmp_path)},{path.parent.name},camera {number // 2},{split}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    found = own.of_folder(tmp_path / "list.csv")
    assert all((found.draw(seed) == found.draw(0)).all() for seed in range(4))


def test_copies_count_once_so_that_none_is_on_both_sides(tmp_path):
    root = write(tmp_path)
    copy = root / "test/cat/copy.png"
    copy.write_bytes(next((root / "train/cat").iterdir()).read_bytes())
    assert len(own.of_folder(root).images.source) == sum(map(sum, SIZES.values()))


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [({"cat": (4, 2)}, "has one class, 'cat'"), ({"cat": (1, 0), "dog": (1, 0)}, "no class has two images")],
)
def test_what_cannot_be_learnt_or_tested_is_refused(tmp_path, sizes, sentence):
    with pytest.raises(UserError, match=sentence):
        own.of_folder(write(tmp_path, sizes))


def test_features_follow_the_contents_of_a_folder_that_changes(tmp_path, monkeypatch):
    root = write(tmp_path / "own")
    monkeypatch.setenv("FGSYNTH_CACHE", str(tmp_path / "cache"))
    first, again = (own.featurise(own.of_folder(root), own.MINI_WORLD, str(tmp_path)) for _ in range(2))
    assert torch.equal(first.features, again.features)
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 1
    changed = root / "train/cat/0.png"
    picture(99).convert("CMYK").convert("L").save(changed)
    other = own.featurise(own.of_folder(root), own.MINI_WORLD, str(tmp_path))
    moved = (other.features != first.features).any(1)
    assert [path for path, m in zip(other.own.images.source.paths, moved, strict=True) if m] == [str(changed)]


def test_a_published_long_tail_keeps_its_own_test_set(monkeypatch):
    asked = []

    def official(name, seed, where):
        asked.append((name, seed))
        return own.ImageSet(None, np.array(["train", "test"]), ("a", "b"), name)

    monkeypatch.setattr(own, "official", official)
    found = own.of_official("cifar100_lt:50", None)
    assert found.draw(4).tolist() == ["train", "test"]
    assert asked == [("cifar100_lt:50", 0), ("cifar100_lt:50", 4)]
