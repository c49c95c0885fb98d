import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgsynth import latent
from fgsynth.errors import UserError
from fgsynth.metrics import strata


@pytest.fixture(scope="module")
def data():
    pictures, label = latent.digits()
    return latent.random_convolution_features(pictures, 8), label


def test_counts_populate_every_stratum():
    counts = latent.long_tail_counts(10, 134, 5)
    assert counts[0] == 134
    assert counts[-1] == 5
    assert set(strata(counts)) == {"many", "medium", "few"}
    with pytest.raises(UserError, match="need 2 <= n_min <= n_max"):
        latent.long_tail_counts(10, 5, 134)


@given(st.integers(0, 10_000))
def test_split_is_disjoint_balanced_and_repeatable(seed):
    label = np.repeat(np.arange(4), 50)
    counts = latent.long_tail_counts(4, 30, 3)
    split = latent.long_tail_split(label, counts, 5, 10, seed)
    assert sorted(np.bincount(label[split.train])) == sorted(counts)
    assert np.bincount(label[split.test]).tolist() == [10] * 4
    assert np.bincount(label[split.val]).tolist() == [5] * 4
    assert np.bincount(label[split.balanced]).tolist() == [30] * 4
    held_out = set(split.val) | set(split.test)
    assert len(held_out) == 60
    assert not held_out & set(split.balanced)
    assert set(split.train) <= set(split.balanced)
    assert np.array_equal(split.train, latent.long_tail_split(label, counts, 5, 10, seed).train)


def test_split_names_the_class_that_is_too_small():
    label = np.array([0] * 50 + [1] * 20)
    with pytest.raises(UserError, match="Class 1 has 20 samples, but 45"):
        latent.long_tail_split(label, np.array([30, 3]), 5, 10, 0)


def test_class_gaussian_samples_follow_the_class():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3000, 2, generator=g) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]]) + 5
    b = torch.randn(3000, 2, generator=g)
    sampler = latent.ClassGaussian(strength=0).fit(torch.cat([a, b]), torch.tensor([0] * 3000 + [1] * 3000))
    drawn = sampler.sample(0, 20_000, seed=1)
    torch.testing.assert_close(drawn.mean(0), a.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(a.T), atol=0.15, rtol=0)
    assert torch.equal(drawn, sampler.sample(0, 20_000, seed=1))
    assert not torch.equal(drawn, sampler.sample(0, 20_000, seed=2))


def test_a_small_class_borrows_the_pooled_covariance():
    g = torch.Generator().manual_seed(0)
    wide, narrow = 3 * torch.randn(500, 2, generator=g), 0.1 * torch.randn(4, 2, generator=g)
    features, label = torch.cat([wide, narrow]), torch.tensor([0] * 500 + [1] * 4)
    own = latent.ClassGaussian(strength=0).fit(features, label).sample(1, 2000, 0).std()
    borrowed = latent.ClassGaussian(strength=20).fit(features, label).sample(1, 2000, 0).std()
    assert own < 0.5
    assert borrowed > 2


def test_class_gaussian_names_the_class():
    with pytest.raises(UserError, match="Class 1 has 1 features"):
        latent.ClassGaussian().fit(torch.randn(4, 2), torch.tensor([0, 0, 0, 1]))
    with pytest.raises(UserError, match="Class 7 was not fitted"):
        latent.ClassGaussian().fit(torch.randn(4, 2), torch.zeros(4).long()).sample(7, 1, 0)


def test_fill_reaches_the_largest_class_and_keeps_the_real(data):
    features, label = data
    mine = torch.cat([torch.where(label == y)[0][: 5 + 10 * y] for y in range(10)])
    sampler = latent.ClassGaussian().fit(features[mine], label[mine])
    e, y = latent.fill(features[mine], label[mine], sampler, 0)
    assert y.bincount().tolist() == [95] * 10
    assert torch.equal(e[: len(mine)], features[mine])


def test_probe_is_at_the_minimum_of_its_objective(data):
    features, label = data
    counts = label.bincount()
    probe = latent.fit_probe(features, label, counts, 0.01, 0.0)
    w = probe.weight.double().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(features.double() @ w + probe.bias.double(), label)
    (loss + 0.01 * w.square().sum()).backward()
    assert w.grad.abs().max() < 1e-3
    assert (probe.predict(features) == label).float().mean() > 0.95


def test_balanced_softmax_probe_favours_rare_classes(data):
    features, label = data
    split = latent.long_tail_split(label.numpy(), latent.long_tail_counts(10, 134, 5), 10, 30, 0)
    e, y = features[split.train], label[split.train]
    rare = int(y.bincount().argmin())
    plain, balanced = (latent.fit_probe(e, y, y.bincount(), 0.01, b).predict(features) for b in (0.0, 1.0))
    assert (balanced == rare).sum() > (plain == rare).sum()


def test_trial_has_every_method_once(data):
    features, label = data
    split = latent.long_tail_split(label.numpy(), latent.long_tail_counts(10, 134, 5), 10, 30, 0)
    rows = latent.trial(features, label, split, 0, [0.01])
    assert rows["method"].tolist() == [m.name for m in latent.METHODS]
    assert rows[["overall", "many", "medium", "few"]].stack().between(0, 100).all()
    few = rows.set_index("method")["few"]
    assert few["full balanced set"] > few["cross entropy"]
