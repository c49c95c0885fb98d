"""The whole of the pretraining, with two updates of everything."""

import json

import pytest
import torch
from diffusers import StableUnCLIPImg2ImgPipeline
from dvc.utils.serialize import dump_yaml
from safetensors.torch import load_file

from fgsynth.config import blocks
from fgsynth.config.params import load
from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.miniworld.judge import read
from fgsynth.models.clip import Clip
from fgsynth.pretrain.files import FOLDER, JUDGE, TRAINING
from fgsynth.pretrain.train import WORK, Trainer, pretrain
from fgsynth.utils.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("pretrain")
    params = blocks.read(root / "params.yaml")
    recipe = params["pretrain"] | {"images": 129, "judged": 2}
    for name, plan in recipe.items():
        if isinstance(plan, dict) and "updates" in plan:
            recipe[name] = plan | {"updates": 2, "batch": 8}
    dump_yaml(folder / "params.yaml", params | {"pretrain": recipe})
    pretrain(folder, "cpu")
    return folder


def test_the_folder_is_a_diffusers_pipeline_in_half_precision(trained):
    files = [f for f in (trained / FOLDER).rglob("*") if f.is_file()]
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".ckpt")]
    assert sum(f.stat().st_size for f in files) < 20e6
    for file in (f for f in files if f.suffix == ".safetensors"):
        kinds = {p.dtype for name, p in load_file(file).items() if p.is_floating_point()}
        assert kinds == {torch.float16}, file
    pipe = StableUnCLIPImg2ImgPipeline.from_pretrained(trained / FOLDER)
    assert pipe.text_encoder.dtype == pipe.image_encoder.dtype == pipe.unet.dtype == torch.float32
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert Generator.load(trained / FOLDER).schedule.steps[-1][1] < 0


def test_what_the_card_needs_lies_beside_it(trained):
    record = json.loads((trained / FOLDER / TRAINING).read_text())
    assert set(record["parts"]) == {"judge", "features", "vae", "vae_sharp", "clip", "denoiser"}
    assert all(len(part["losses"]) == 1 and part["seconds"] > 0 for part in record["parts"].values())
    assert Clip(str(trained / FOLDER)).projection.shape == (128, 128)
    seen = read(judge.load(trained / FOLDER / JUDGE), torch.zeros(2, 3, 32, 32))
    assert list(seen.columns) == ["kind", "context", "mode", "style"]


def test_checkpoints_go_when_all_is_published(trained):
    assert not (trained / WORK).exists()


def test_checkpoints_of_another_recipe_are_refused(trained, tmp_path):
    recipe = load(trained / "params.yaml").pretrain
    Trainer(recipe, tmp_path)
    Trainer(recipe, tmp_path)
    with pytest.raises(UserError, match=r"holds checkpoints of another recipe: restore `pretrain`"):
        Trainer(recipe.model_copy(update={"images": 130}), tmp_path)
