import pytest
import torch

from fgsynth.models.networks import create, last_layer
from fgsynth.train.objectives.branches import Branches
from fgsynth.utils.errors import UserError

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fuse", ["mean", "sum"])
def test_branches_train_apart_and_are_fused_when_evaluated(fuse):
    network = Branches(create("slim", 5), 3, 0, fuse)
    # Without batch statistics both ways see the same.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    each, embedding = network(X)
    assert each.shape == (4, 3, 5)
    fused, same = network.eval()(X)
    torch.testing.assert_close(fused, getattr(each, fuse)(1))
    torch.testing.assert_close(embedding, same)


def test_the_first_branch_is_the_network_and_the_seed_decides_the_others():
    plain = create("slim", 5).eval()
    expected = plain(X)[0]
    network = Branches(create("slim", 5), 2, 0, "mean").eval()
    found = network(X)[0]
    first = network.network.get_classifier()(network(X)[1])
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(found, (first + network.layers[0](network(X)[1])) / 2)
    again, other = (Branches(create("slim", 5), 2, seed, "mean").eval()(X)[0] for seed in (0, 1))
    assert torch.equal(found, again)
    assert not torch.equal(found, other)


def test_a_branch_moves_its_own_stage_and_what_all_share():
    network = Branches(create("slim", 5), 3, 0, "mean").train()
    network(X)[0][:, 1].sum().backward()
    moved = [sum(bool(p.grad.any()) for p in stage.parameters()) for stage in network.stages]
    assert moved[1] > 0
    assert moved[0] == moved[2] == 0
    assert network.network.conv1.weight.grad is not None


def test_other_networks_are_refused_and_second_stages_of_branches_too():
    with pytest.raises(UserError, match="VisionTransformer has no last stage to have 3 times"):
        Branches(create("test_vit", 3), 3, 0, "mean")
    with pytest.raises(UserError, match="The network has 3 last layers, not one"):
        last_layer(Branches(create("slim", 5), 3, 0, "mean"))
