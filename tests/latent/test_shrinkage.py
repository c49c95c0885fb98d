import math

import pytest
import torch

from fgsynth.latent.shrinkage import Whitening, shrunk_means

EYE = Whitening(torch.eye(1), torch.eye(1))


def test_whitened_residuals_are_white():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(2).repeat_interleave(torch.tensor([4000, 3000]))
    turn = torch.randn(6, 6, generator=g)
    features = 3 * label[:, None] + torch.randn(7000, 6, generator=g) @ turn / 6**0.5
    groups = {y: features[label == y] for y in (0, 1)}
    whitening = Whitening.fit(groups)
    z = torch.cat([x - x.mean(0) for x in groups.values()]) @ whitening.forward
    covariance = z.T @ z / 6998
    # Shrinkage takes the smallest variances for a little larger than they are.
    assert ((covariance.diagonal() > 0.9) & (covariance.diagonal() < 1.01)).all()
    torch.testing.assert_close(
        covariance - covariance.diagonal().diag(), torch.zeros(6, 6), atol=0.02, rtol=0
    )
    torch.testing.assert_close(whitening.forward @ whitening.back, torch.eye(6), atol=1e-4, rtol=0)
    sizes = whitening.back.norm(dim=1)
    assert (sizes[:-1] >= sizes[1:]).all()


def test_means_of_few_rows_are_drawn_to_the_others_as_the_formula_says():
    values, counts = (5.0, -3.0, 1.0), (1, 100, 50)
    groups = {y: torch.full((n, 1), m) for y, (m, n) in enumerate(zip(values, counts, strict=True))}
    means = shrunk_means(groups, EYE)
    # The spread f / n = v / (n v + 1) tells v, at which precision-weighted squares have their expected sum.
    v = 1 / (1 / means[0].spread ** 2 - 1)
    weight = [1 / (v + 1 / n) for n in counts]
    centre = sum(w * m for w, m in zip(weight, values, strict=True)) / sum(weight)
    squares = sum(w * (m - centre) ** 2 for w, m in zip(weight, values, strict=True))
    assert squares == pytest.approx(len(values) - 1, rel=1e-6)
    for y, (m, n) in enumerate(zip(values, counts, strict=True)):
        f = v / (v + 1 / n)
        assert float(means[y].mean) == pytest.approx(centre + f * (m - centre))
        assert means[y].spread == pytest.approx(math.sqrt(f / n))
    assert means[0].mean < 5 - 0.2


def test_equal_class_means_are_taken_as_one():
    groups = {y: torch.tensor([[1.0], [3.0]]) for y in range(3)}
    for mean in shrunk_means(groups, EYE).values():
        assert float(mean.mean) == 2
        assert mean.spread == 0


def test_noisy_means_of_single_rows_do_not_pass_for_a_difference():
    """Twenty classes of one row and five of 200, true means of variance 1/4: the estimate holds for both."""
    g = torch.Generator().manual_seed(0)
    true = 0.5 * torch.randn(25, 400, generator=g)
    groups = {y: true[y] + torch.randn(1 if y < 20 else 200, 400, generator=g) for y in range(25)}
    means = shrunk_means(groups, Whitening(torch.eye(400), torch.eye(400)))
    v = 1 / (1 / means[0].spread ** 2 - 1)
    assert v == pytest.approx(0.25, rel=0.1)
    error = [float((means[y].mean - true[y]).square().mean()) for y in range(20)]
    plain = [float((groups[y].mean(0) - true[y]).square().mean()) for y in range(20)]
    assert sum(error) / 20 == pytest.approx(means[0].spread ** 2, rel=0.1)
    assert sum(error) < 0.3 * sum(plain)


def test_one_class_alone_keeps_its_mean():
    own = shrunk_means({0: torch.tensor([[1.0], [3.0]])}, EYE)[0]
    assert float(own.mean) == 2
    assert own.spread == pytest.approx(math.sqrt(0.5))
