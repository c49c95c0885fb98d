import numpy as np
import pytest
import torch
from PIL import Image
from tiny_bench import bench

from fgsynth.data.sources import ImageFiles, Images, Rendered, digest, take
from fgsynth.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Three grey images of different size and brightness."""
    for i in range(3):
        path = tmp_path / "train" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4 + i, 5, 3), 10 * i, np.uint8)).save(path)
    return tmp_path


def files(folder, paths=("train/0.png", "train/1.png", "train/2.png"), label=(0, 1, 0)):
    return ImageFiles(tuple(str(folder / path) for path in paths), torch.tensor(label))


def test_files_are_opened_when_they_are_taken(folder):
    source = files(folder)
    (folder / "train/1.png").unlink()
    taken = take(source, torch.tensor([2, 0]))
    assert [tuple(x.shape) for x in taken] == [(6, 5, 3), (4, 5, 3)]
    assert [int(x.max()) for x in taken] == [20, 0]
    with pytest.raises(UserError, match=r"There is no image at .*1\.png"):
        take(source, torch.tensor([1]))


def test_the_digest_of_files_is_of_contents_and_labels_wherever_they_are(folder, tmp_path_factory):
    before = digest(files(folder))
    assert before == digest(files(folder))
    assert before != digest(files(folder, label=(0, 1, 1)))
    assert before != digest(files(folder, paths=("train/1.png", "train/0.png", "train/2.png")))
    moved = tmp_path_factory.mktemp("moved") / "all"
    folder.rename(moved)
    assert before == digest(files(moved))
    size = (moved / "train/0.png").stat().st_size
    (moved / "train/0.png").write_bytes(b"x" * size)
    assert before != digest(files(moved))


def test_a_file_that_is_not_there_is_named(folder):
    (folder / "train/2.png").unlink()
    with pytest.raises(UserError, match=r"train/2\.png cannot be read \(No such file.*: restore"):
        digest(files(folder))


def test_images_in_memory_have_a_digest_of_every_pixel():
    x, label = torch.zeros(3, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1, 0])
    other = x.clone()
    other[2, 3, 3, 2] = 1
    assert digest(Images(x, label)) != digest(Images(other, label))
    assert torch.equal(take(Images(other, label), torch.tensor([2])), other[2:])


def test_rows_of_a_benchmark_are_rendered_when_they_are_taken():
    made = bench({"train": [4, 2], "test": [1, 1]})
    source = Rendered(made, made.manifest.table)
    rows = torch.tensor([5, 0])
    expected = made.images(made.manifest.table.iloc[[5, 0]].reset_index(drop=True))
    assert torch.equal(source.take(rows), expected)
    assert source.label.tolist() == made.manifest.table["label"].tolist()


def test_other_rows_of_a_benchmark_have_another_digest():
    made = bench({"train": [4, 2], "test": [1, 1]})
    table = made.manifest.table
    assert digest(Rendered(made, table)) == digest(Rendered(made, table.copy()))
    assert digest(Rendered(made, table)) != digest(Rendered(made, table.iloc[::-1]))
