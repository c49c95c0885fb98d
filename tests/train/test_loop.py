import pytest
import torch
from timm.layers import BatchNormAct2d

from fgsynth.data.sources import Images
from fgsynth.models.networks import create, small
from fgsynth.train.loop import Fit, _synchronised
from fgsynth.train.objective import Batch
from fgsynth.train.ranks import Ranks
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.train import predict, train
from fgsynth.utils.errors import UserError

RECIPE = Recipe(network="test_convnext", optimiser="sgd", epochs=1, updates_per_epoch=3, batch=10, rate=0.01)
ALONE = Ranks(0, 1, torch.device("cpu"))
X = torch.randint(0, 256, (10, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABEL = torch.arange(10) % 3


def updated(pieces):
    fit = Fit(RECIPE, torch.tensor([5, 3, 2]), 0, ALONE, 3, 3, Compute(accumulate=pieces))
    fit.network.train()
    losses = [fit.update(Batch(X, LABEL)).item() for _ in range(3)]
    return losses, fit.network.state_dict()


@pytest.mark.parametrize("pieces", [2, 3, 10])
def test_micro_batches_make_the_update_of_the_whole_batch(pieces):
    (losses, whole), (in_pieces, state) = updated(1), updated(pieces)
    assert in_pieces == pytest.approx(losses, rel=1e-5)
    start = create("test_convnext", 3, 0).state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=1e-6)
    assert any((whole[key] - start[key]).abs().max() > 1e-3 for key in whole)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_trains_nearly_the_same_network(precision):
    images = Images(X, LABEL)
    full, half = (
        train(images, None, 3, RECIPE, 0, device="cpu", compute=Compute(p)) for p in (None, precision)
    )
    difference = (predict(full.network, images) - predict(half.network, images)).abs().max()
    assert 0 < difference < 0.05
    assert all(p.dtype == torch.float32 for p in half.network.parameters())


def test_float16_has_a_scaled_loss_that_is_kept():
    fit = Fit(RECIPE, torch.ones(3), 0, ALONE, 3, 3, Compute("fp16"))
    fit.network.train()
    fit.update(Batch(X, LABEL))
    assert fit.scaler.get_scale() > 1
    state = fit.state()
    state["scaler"]["scale"] = 8.0
    fit.restore(state)
    assert fit.scaler.get_scale() == 8


def test_batch_norm_is_shared_between_gpus_with_its_activation_and_refused_on_cpus():
    with pytest.raises(UserError, match="'slim' has batch norm, which several processes share on GPUs only"):
        _synchronised(small(3), Ranks(0, 2, torch.device("cpu")), "slim")
    network = create("test_efficientnet", 3)
    acts = [m.act for m in network.modules() if isinstance(m, BatchNormAct2d)]
    shared = _synchronised(network, Ranks(0, 2, torch.device("cuda", 0)), "test_efficientnet")
    assert acts
    found = [m for m in shared.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert [m.act for m in found] == acts
    # Evaluated as before, without other processes.
    x = torch.randn(2, 3, 32, 32)
    expected = create("test_efficientnet", 3).eval()(x)[0]
    torch.testing.assert_close(shared.eval()(x)[0], expected)
    assert _synchronised(network, ALONE, "any") is network
