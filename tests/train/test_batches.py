from dataclasses import replace

import pytest
import torch

from fgsynth.data.sources import Images, fingerprint
from fgsynth.train.batches import training_batches
from fgsynth.train.recipe import Recipe
from fgsynth.train.sampling import Rows, steps
from fgsynth.utils.errors import UserError

RECIPE = Recipe(batch=8, augment=())


def images(n, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 8, 8, 3), dtype=torch.uint8, generator=draw)
    return Images(x, torch.arange(n) % 3)


class Files:
    """Images that are opened one by one."""

    def __init__(self, inner):
        self.inner, self.label = inner, inner.label

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        return self.inner[i]


REAL, MADE = images(36, 0), images(30, 1)


def test_files_and_workers_give_the_same_batches():
    recipe = replace(RECIPE, augment=("crop", "jitter"))
    there, opened = (
        list(training_batches(real, MADE, recipe, 3, 0, workers, False))
        for real, workers in ((REAL, 0), (Files(REAL), 1))
    )
    assert len(there) == len(opened) == 3
    assert all(
        torch.equal(a, b)
        for one, other in zip(there, opened, strict=True)
        for a, b in zip(one[:2], other[:2], strict=True)
    )
    state = torch.get_rng_state()
    next(training_batches(REAL, None, recipe, 3, 0, 0, False))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("real", [REAL, Files(REAL)])
@pytest.mark.parametrize(("side", "size"), [(None, 2), (None, 3), (6, 3), (6, 11)])
def test_processes_share_the_batches_of_one_and_their_halves(real, side, size):
    # Eleven processes share nine images: some have none of a kind.
    recipe = replace(RECIPE, batch=9, augment=("crop", "jitter"), side=side)

    def batches(**share):
        return list(training_batches(real, MADE, recipe, 4, 0, 0, False, **share))

    whole = batches()
    shares = [batches(rank=rank, size=size) for rank in range(size)]
    for i, (x, label, *_) in enumerate(whole):
        sizes = [len(share[i].label) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        for rank, share in enumerate(shares):
            assert torch.equal(share[i][0], x[rank::size])
            assert torch.equal(share[i][1], label[rank::size])
    rest = batches(start=3)
    assert len(rest) == 1
    assert torch.equal(rest[0][0], whole[3][0])


def test_a_view_of_a_file_does_not_depend_on_the_files_beside_it():
    recipe = replace(RECIPE, batch=6, augment=("crop", "flip", "blur"), side=6)
    (x, *_), *_ = training_batches(Files(REAL), None, recipe, 1, 0, 0, False)
    rows, *_ = next(steps(Rows(REAL.label), None, recipe, 1, 0))
    other = Files(images(36, 5))
    last = int(rows[-1])
    other.inner.x[last] = REAL.x[last]
    (y, *_), *_ = training_batches(other, None, recipe, 1, 0, 0, False)
    assert torch.equal(x[-1], y[-1])
    assert not torch.equal(x[0], y[0])


def test_halves_are_exact_and_passes_without_replacement():
    recipe = replace(RECIPE, batch=8, real_share=0.5)
    each = list(steps(Rows(REAL.label[:10]), Rows(MADE.label[:7]), recipe, 5, 0))
    assert all(len(real) == len(synthetic) == 4 for real, synthetic, *_ in each)
    real, synthetic = (torch.cat([step[i] for step in each]) for i in (0, 1))
    for drawn, n in ((real, 10), (synthetic, 7)):
        assert sorted(drawn[:n].tolist()) == sorted(drawn[n : 2 * n].tolist()[:n]) == list(range(n))
    assert real[:10].tolist() != real[10:].tolist()
    assert len({step.seed for step in each}) == 5
    (x, label, *_), *_ = training_batches(
        REAL, MADE, replace(RECIPE, real_share=0.25, augment=()), 1, 0, 0, False
    )
    rows, made, *_ = next(steps(Rows(REAL.label), Rows(MADE.label), replace(RECIPE, real_share=0.25), 1, 0))
    assert len(rows) == 2
    assert torch.equal(x, torch.cat([REAL.x[rows], MADE.x[made]]))
    assert torch.equal(label, torch.cat([REAL.label[rows], MADE.label[made]]))


@pytest.mark.parametrize("names", [("crop", "flip"), ("jitter",)])
def test_without_a_share_of_real_images_all_are_synthetic(names):
    recipe = replace(RECIPE, real_share=0.0, augment=names, batch=8)
    (x, label, *_), *_ = training_batches(REAL, MADE, recipe, 1, 0, 0, False)
    rows, made, *_ = next(steps(Rows(REAL.label), Rows(MADE.label), recipe, 1, 0))
    assert (len(rows), len(x), recipe.updates(36, True)) == (0, 8, 5)
    assert torch.equal(label, MADE.label[made])


def test_a_fingerprint_tells_images_and_labels_apart():
    other = Images(REAL.x, REAL.label.flip(0))
    assert fingerprint(REAL) == fingerprint(Images(REAL.x.clone(), REAL.label))
    assert len({fingerprint(p) for p in (REAL, MADE, other, Files(REAL))}) == 4


def test_images_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"uint8 \(n, h, w, 3\) is needed"):
        Images(MADE.x.float(), MADE.label)
    with pytest.raises(UserError, match="one int64 label each"):
        Images(MADE.x, MADE.label[:4])
