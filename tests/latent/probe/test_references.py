import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from fgsynth.latent.probe.references import nearest_class_mean, nearest_neighbours, shrinkage_lda
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


@pytest.mark.parametrize("fit", [nearest_class_mean, shrinkage_lda])
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
