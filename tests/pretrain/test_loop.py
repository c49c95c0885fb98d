import pytest
import torch
from torch import nn

from fgsynth.config.params import Training
from fgsynth.pretrain.loop import rate, train

PLAN = Training(updates=12, batch=4, rate=0.01, decay=0.9, cool=0.5)
X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(1)
    return nn.Linear(3, 1)


def loss_of(model):
    return lambda rows, draw: (model(X[rows]) - torch.randn(4, 1, generator=draw)).square().mean()


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path):
    whole, stopped = network(), network()
    through = train(whole, loss_of(whole), len(X), PLAN, tmp_path / "a" / "net.pt", every=4)

    def fails(rows, draw):
        if (tmp_path / "b" / "net.pt").exists():
            raise KeyboardInterrupt
        return loss_of(stopped)(rows, draw)

    with pytest.raises(KeyboardInterrupt):
        train(stopped, fails, len(X), PLAN, tmp_path / "b" / "net.pt", every=4)
    assert torch.load(tmp_path / "b" / "net.pt", weights_only=True)["update"] == 4
    again = network()
    resumed = train(again, loss_of(again), len(X), PLAN, tmp_path / "b" / "net.pt", every=4)
    assert resumed.losses == through.losses
    assert len(resumed.losses) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert not torch.equal(whole.weight, network().weight)


def test_a_finished_run_is_only_loaded(tmp_path):
    model = network()
    first = train(model, loss_of(model), len(X), PLAN, tmp_path / "net.pt")
    second = train(network(), lambda *_: pytest.fail("trained"), len(X), PLAN, tmp_path / "net.pt")
    assert second.losses == first.losses
    assert second.seconds >= first.seconds - 0.5


def test_the_rate_warms_up_stays_and_falls():
    plan = Training(updates=1000, batch=1, rate=2.0, decay=0.9, cool=0.3)
    rates = [rate(plan, u) for u in range(1000)]
    assert rates[0] < 0.1
    assert rates[100] == rates[699] == 2.0
    assert rates[850] == pytest.approx(1.0)
    assert rates[999] < 0.01
