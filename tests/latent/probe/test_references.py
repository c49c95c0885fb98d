import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from fgsynth.latent.probe.references import (
    nearest_class_mean,
    nearest_neighbours,
    shrinkage_lda,
    shrunk_lda,
)
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

COUNTS = torch.tensor([60, 30, 12])


def drawn(counts, seed):
    label = torch.arange(3).repeat_interleave(counts)
    centre = 1.5 * torch.randn(3, 5, generator=generator("references centre"))
    return torch.randn(len(label), 5, generator=generator("references", seed)) + centre[label] + 3, label


@pytest.fixture(scope="module")
def train():
    return drawn(COUNTS, 0)


@pytest.fixture(scope="module")
def val():
    return drawn(torch.tensor([100, 100, 100]), 1)


def test_nearest_class_mean_is_scikit_learns_nearest_centroid(train, val):
    theirs = NearestCentroid().fit(train[0].numpy(), train[1].numpy())
    ours = nearest_class_mean(*train, 3)
    np.testing.assert_array_equal(ours.predict(val[0]), theirs.predict(val[0].numpy()))


def test_shrinkage_lda_is_nearly_scikit_learns(train, val):
    theirs = LinearDiscriminantAnalysis("lsqr", shrinkage="auto", priors=[1 / 3] * 3)
    theirs.fit(train[0].numpy(), train[1].numpy())
    agree = shrinkage_lda(*train, 3).predict(val[0]).numpy() == theirs.predict(val[0].numpy())
    assert agree.mean() > 0.95


def test_the_corrected_bias_is_that_of_the_true_means():
    """In many dimensions m^T m is |mu|^2 + k / n on average."""
    k, counts = 800, torch.tensor([400, 10, 10])
    label = torch.arange(3).repeat_interleave(counts)
    e = torch.randn(420, k, generator=generator("corrected")) + 5
    plain, corrected = (shrinkage_lda(e, label, 3, corrected=c) for c in (False, True))
    torch.testing.assert_close(plain.weight, corrected.weight)
    centre = e.mean(0)
    scores = [torch.linalg.vecdot(p.weight.T, centre) + p.bias for p in (plain, corrected)]
    # All true means are equal, so no class is more likely where they are.
    assert float(scores[0][0] - scores[0][1:].mean()) > 25
    assert (scores[1] - scores[1].mean()).abs().max() < 10
    truth = torch.randn(3000, k, generator=generator("corrected test")) + 5
    assert (plain.predict(truth) == 0).float().mean() > 0.99


def test_shrunk_means_help_where_rows_are_few():
    g = generator("shrunk LDA")
    centre = 0.4 * torch.randn(8, 60, generator=g)
    label = torch.arange(8).repeat_interleave(torch.tensor([150, 80, 20, 8, 4, 3, 2, 2]))
    e = torch.randn(len(label), 60, generator=g) + centre[label]
    test = torch.arange(8).repeat_interleave(200)
    x = torch.randn(1600, 60, generator=g) + centre[test]
    right = {f: (f(e, label, 8).predict(x) == test).float().mean() for f in (shrinkage_lda, shrunk_lda)}
    assert right[shrunk_lda] > right[shrinkage_lda] + 0.03


def test_one_neighbour_is_the_most_similar_feature(train, val):
    e, y = train
    found = nearest_neighbours(e, y, 3, *val, ks=[1])
    cosine = torch.nn.functional.cosine_similarity(val[0][:, None], e[None], dim=2)
    assert torch.equal(found.predict(val[0]), y[cosine.argmax(1)])
    assert torch.equal(found.predict(val[0] * 50), found.predict(val[0]))


def test_votes_are_weighted_by_similarity():
    e = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    found = nearest_neighbours(e, torch.tensor([0, 1, 1]), 2, e, torch.tensor([0, 1, 1]), ks=[3])
    query = torch.tensor([[1.0, 0.2]])
    cosine = (e @ query[0]) / e.norm(dim=1) / query.norm()
    vote = (cosine / 0.07).exp()
    expected = torch.log(vote[0] / (vote[1] + vote[2]))
    logits = found.logits(query)[0]
    assert float(logits[0] - logits[1]) == pytest.approx(float(expected), rel=1e-4)


def test_the_number_of_neighbours_is_chosen_on_the_validation_set(train, val):
    alone = {k: nearest_neighbours(*train, 3, *val, ks=[k]) for k in (1, 5, 100)}
    right = {k: (found.predict(val[0]) == val[1]).float().mean() for k, found in alone.items()}
    chosen = nearest_neighbours(*train, 3, *val, ks=[1, 5, 100, 500])
    assert chosen.k == max(right, key=right.get)
    assert right[chosen.k] > min(right.values())


@pytest.mark.parametrize("fit", [nearest_class_mean, shrinkage_lda, shrunk_lda])
def test_every_reference_beats_chance_and_refuses_bad_data(train, val, fit):
    e, y = train
    assert (fit(e, y, 3).predict(val[0]) == val[1]).float().mean() > 0.6
    with pytest.raises(UserError, match="Class 3 has no features"):
        fit(e, y, 4)
    with pytest.raises(UserError, match="labels of the shape"):
        fit(e, y[:5], 3)


def test_neighbours_refuse_what_does_not_fit(train, val):
    with pytest.raises(UserError, match=r"k of \[0, 200\] for 102 features: give one from 1 to 102"):
        nearest_neighbours(*train, 3, *val, ks=[0, 200])
    with pytest.raises(UserError, match="Class 3 has no features"):
        nearest_neighbours(*train, 4, *val, ks=[1])
    with pytest.raises(UserError, match="validation features"):
        nearest_neighbours(*train, 3, val[0] / 0, val[1], ks=[1])
