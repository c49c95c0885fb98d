from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.latent.probe.linear import fit_probe
from fgsynth.latent.probe.objective import Objective, log_prior
from fgsynth.latent.samplers.gaussians import Gaussian
from fgsynth.latent.samplers.noise import CHUNK
from fgsynth.latent.stochastic import _dealt, fit_probe_stream, mixture
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

SIZES = torch.tensor([900, 300, 40])
TO_ADD = torch.tensor([0, 600, 860])


@pytest.fixture(scope="module")
def data():
    g = generator("stream")
    label = torch.arange(3).repeat_interleave(SIZES)
    centre = 1.2 * torch.randn(3, 8, generator=g)
    scale = torch.tensor([30.0, 10.0, 3.0, 1.0, 1.0, 1.0, 0.3, 0.1])
    return (torch.randn(1240, 8, generator=g) + centre[label]) * scale - 2, label


@pytest.fixture(scope="module")
def sampler(data):
    return Gaussian().fit(*data)


def gathered(batches):
    blocks = list(batches(0))
    return torch.cat([e for e, _ in blocks]), torch.cat([y for _, y in blocks]), [len(y) for _, y in blocks]


@pytest.mark.parametrize("rows", [200, 900, 10_000])
def test_blocks_together_are_the_real_and_all_synthetic_rows(data, sampler, rows):
    e, y, sizes = gathered(mixture(*data, sampler, TO_ADD, rows=rows))
    new, new_label = sampler.sample_all(TO_ADD, 0)
    whole, whole_label = torch.cat([data[0], new]), torch.cat([data[1], new_label])
    assert len(sizes) == -(-2700 // rows)
    assert torch.equal(y.bincount(), whole_label.bincount())
    assert torch.equal(e[e[:, 0].argsort()], whole[whole[:, 0].argsort()])


def test_epochs_repeat_and_seeds_differ(data, sampler):
    one = mixture(*data, sampler, TO_ADD, rows=900, seed=1)
    for (e, y), (again, y_again) in zip(one(0), one(1), strict=True):
        assert torch.equal(e, again)
        assert torch.equal(y, y_again)
    other, _ = next(mixture(*data, sampler, TO_ADD, rows=900, seed=2)(0))
    assert not torch.equal(next(one(0))[0][:200], other[:200])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=20), st.integers(1, 12))
def test_every_class_is_dealt_evenly_and_wholly(counts, parts):
    counts = torch.tensor(counts)
    ends = torch.stack([_dealt(counts, i, parts) for i in range(parts + 1)])
    shares = ends.diff(dim=0)
    assert torch.equal(ends[0], torch.zeros_like(counts))
    assert torch.equal(ends[-1], counts)
    assert (shares >= 0).all()
    chunks = (counts + CHUNK - 1) // CHUNK
    assert (shares <= ((chunks + parts - 1) // parts) * CHUNK).all()


def test_a_stream_reaches_the_minimum_of_the_full_batch(data, sampler):
    batches = mixture(*data, sampler, TO_ADD, rows=1000)
    e, y, _ = gathered(batches)
    counts = y.bincount()
    exact = fit_probe(e, y, counts, weight_decay=1e-3, tolerance=1e-6)
    probe = fit_probe_stream(batches, len(y), counts, 20, weight_decay=1e-3, batch=128, rate=0.05)
    value = Objective(e, y, log_prior(counts).float(), 1.0, 1e-3)(probe.weight, probe.bias)[0]
    assert exact.objective <= value + 1e-6
    assert value < exact.objective + 1e-3
    assert (probe.predict(e) == exact.predict(e)).float().mean() > 0.98
    assert probe.converged is None


def test_the_same_seed_gives_the_same_probe_and_another_a_different_one(data, sampler):
    batches = mixture(*data, sampler, TO_ADD, rows=1000)
    kwargs = dict(weight_decay=1e-3, batch=100)
    first, same, other = (
        fit_probe_stream(batches, 2700, SIZES, 1, seed=seed, **kwargs).weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_weight_decay_and_logit_adjustment_are_those_of_the_full_batch(data, sampler):
    batches = mixture(*data, sampler, TO_ADD, rows=1000)
    kwargs = dict(weight_decay=1e-3, batch=100)
    plain = fit_probe_stream(batches, 2700, SIZES, 1, **kwargs)
    adjusted = fit_probe_stream(batches, 2700, SIZES, 1, tau=2.0, **kwargs)
    torch.testing.assert_close(adjusted.bias, plain.bias - 2 * torch.log(SIZES / 1240))
    heavy = fit_probe_stream(batches, 2700, SIZES, 10, weight_decay=10.0, batch=100, rate=0.02)
    e, y, _ = gathered(batches)
    exact = fit_probe(e, y, SIZES, weight_decay=10.0, tolerance=1e-5)
    torch.testing.assert_close(
        heavy.weight, exact.weight, rtol=0.05, atol=0.05 * float(exact.weight.abs().max())
    )


def test_bad_streams_are_refused(data, sampler):
    e, y = data
    batches = mixture(e, y, sampler, TO_ADD, rows=1000)

    def fit(stream, counts=SIZES, rows=2700, epochs=1, weight_decay=1e-3, **other):
        return fit_probe_stream(stream, rows, counts, epochs, weight_decay=weight_decay, **other)

    with pytest.raises(UserError, match=r"Rows 0, epochs 1, batch 2048, rate 0\.1: give 1 or more"):
        fit(batches, rows=0)
    with pytest.raises(UserError, match="rate 0: give"):
        fit(batches, rate=0)
    with pytest.raises(UserError, match="Weight decays"):
        fit(batches, weight_decay=-1)
    with pytest.raises(UserError, match="The first epoch has no blocks"):
        fit(lambda _: iter([]))
    with pytest.raises(UserError, match="Class 2 has no features in the first epoch"):
        fit(lambda _: iter([(e[y < 2], y[y < 2])]))
    with pytest.raises(UserError, match="Class 2 among the features of block 0: their classes are 0 to 1"):
        fit(batches, counts=SIZES[:2])
    with pytest.raises(UserError, match="8 dimensions, a later block 7: take"):
        fit(lambda _: iter([(e, y), (e[:, :7].contiguous(), y)]))
    with pytest.raises(UserError, match=r"features of block 0 \(class 0\) is not finite"):
        fit(lambda _: iter([(e / 0, y)]))
    with pytest.raises(UserError, match="Blocks of 0 rows: give at least 1"):
        mixture(e, y, sampler, TO_ADD, rows=0)
    with pytest.raises(UserError, match="Class 1 has the count -1"):
        mixture(e, y, sampler, torch.tensor([0, -1, 0]))


def test_no_more_than_one_block_is_made_at_once(data, sampler):
    made = []

    class Watched:
        def sample_all(self, counts, seed, *, start):
            made.append(int(counts.sum()))
            return sampler.sample_all(counts, seed, start=start)

    list(islice(mixture(*data, Watched(), TO_ADD, rows=900)(0), 1))
    assert len(made) == 1
    assert made[0] < 1460
