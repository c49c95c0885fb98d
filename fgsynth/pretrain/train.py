"""The stage `pretrain`: train the mini unCLIP part by part; each resumes where it stopped."""

import platform
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPModel, CLIPTokenizer

from fgsynth.config import params
from fgsynth.config.params import Pretrain, Training
from fgsynth.miniworld.judge import heads, judge, targets
from fgsynth.miniworld.world import SUBJECTS, Draw
from fgsynth.models.networks import Classifier
from fgsynth.pretrain.clip import clip, contrastive_loss, image_embeddings, token_ids, tokenizer
from fgsynth.pretrain.corpus import Corpus, Siblings, draw_corpus, web
from fgsynth.pretrain.files import FOLDER
from fgsynth.pretrain.folder import Trained, save
from fgsynth.pretrain.loop import History, Loss, train
from fgsynth.pretrain.unet import DenoisingLoss, Encoded, denoiser
from fgsynth.pretrain.vae import autoencoder, latents, reconstruction_loss
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import write_text

WORK = Path("data/runs/pretrain")
EVEN = Draw(modes=(0.25,) * 4, drawings=0.3, drawn_classes=0.3, occluded=0.3, covered=0.5)
"""What the judge learns from: every appearance equally often."""


class Trainer:
    """The parts in order; `work` holds their checkpoints."""

    def __init__(self, recipe: Pretrain, work: Path, device: str = "cpu") -> None:
        self.recipe, self.work, self.device = recipe, work, torch.device(device)
        self.history: dict[str, History] = {}
        self._same_recipe()
        self.corpus: Corpus = web(recipe.images)

    def _same_recipe(self) -> None:
        file, recipe = self.work / "recipe.json", self.recipe.model_dump_json(indent=2) + "\n"
        if file.is_file() and file.read_text(encoding="utf-8") != recipe:
            raise UserError(
                f"{self.work} holds checkpoints of another recipe: restore `pretrain` in params.yaml or "
                "delete that folder."
            )
        write_text(file, recipe)

    def _train(self, name: str, network: torch.nn.Module, loss: Loss, size: int, plan: Training) -> None:
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.history[name] = train(network, loss, size, plan, self.work / f"{name}.pt")

    def _pixels(self, rows: Tensor) -> Tensor:
        return self.corpus.batch(rows).to(self.device)

    def readers(self) -> tuple[Classifier, Classifier]:
        """The judge, and the network whose features the autoencoder is trained with."""
        even = draw_corpus(self.recipe.judged * len(SUBJECTS), "judge", EVEN)
        judge = self._reader("judge", even, 0, self.recipe.judge)
        return judge, self._reader("features", self.corpus, 1, self.recipe.features)

    def _reader(self, name: str, corpus: Corpus, seed: int, plan: Training) -> Classifier:
        network, y = judge(seed), targets(corpus.factors).to(self.device)

        def loss(rows: Tensor, _: torch.Generator) -> Tensor:
            """The judge's, of a batch of corpus rows."""
            return reading_loss(network, corpus.batch(rows).to(self.device), y[rows])

        self._train(name, network, loss, len(y), plan)
        return network.requires_grad_(False)

    def autoencoder(self, features: Classifier) -> AutoencoderKL:
        """First by pixels, then with features as well; returns it scaled to unit variance."""
        torch.manual_seed(0)
        vae, n = autoencoder(), len(self.corpus.captions)

        def loss(network: Classifier | None, rows: Tensor, draw: torch.Generator) -> Tensor:
            """The reconstruction's, of a batch of corpus rows."""
            return reconstruction_loss(vae, self._pixels(rows), draw, network)

        self._train("vae", vae, partial(loss, None), n, self.recipe.vae)
        self._train("vae_sharp", vae, partial(loss, features), n, self.recipe.vae_sharp)
        return vae.requires_grad_(False)

    def clip(self) -> tuple[CLIPModel, CLIPTokenizer]:
        """The text and vision transformers, and their tokenizer."""
        tokens = tokenizer(self.corpus.captions)
        ids = token_ids(tokens, self.corpus.captions)
        torch.manual_seed(0)
        model = clip(tokens)

        def loss(rows: Tensor, _: torch.Generator) -> Tensor:
            """The contrast of a batch of corpus rows."""
            return contrastive_loss(model, self._pixels(rows), ids[rows].to(self.device))

        self._train("clip", model, loss, len(ids), self.recipe.clip)
        return model.requires_grad_(False), tokens

    def denoiser(self, data: Encoded) -> UNet2DConditionModel:
        """The text- and image-conditioned denoiser."""
        torch.manual_seed(0)
        unet, plan = denoiser(), self.recipe.denoiser
        self._train(
            "denoiser", unet, DenoisingLoss(unet, data, self.recipe.conditioning), len(data.caption), plan
        )
        return unet

    def encode(self, vae: AutoencoderKL, model: CLIPModel, tokens: CLIPTokenizer) -> Encoded:
        """The corpus through the frozen autoencoder and CLIP; sets the autoencoder's scaling factor."""
        z = latents(vae, self.corpus)
        vae.register_to_config(scaling_factor=round(1 / float(z.std()), 5))
        distinct = sorted({"", *self.corpus.captions})
        row = {caption: i for i, caption in enumerate(distinct)}
        with torch.no_grad():
            ids = token_ids(tokens, distinct).to(self.device)
            text = torch.cat([model.text_model(part).last_hidden_state.cpu() for part in ids.split(512)])
        return Encoded(
            z * vae.config.scaling_factor,
            image_embeddings(model, self.corpus),
            text,
            torch.tensor([row[caption] for caption in self.corpus.captions]),
            row[""],
            Siblings(self.corpus.factors),
        )


def reading_loss(network: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Sum of the factors' cross entropies; y (n, number of factors)."""
    losses = [cross_entropy(part, y[:, i]) for i, part in enumerate(heads(network(x)[0]).values())]
    return torch.stack(losses).sum()


def pretrain(root: Path, device: str | None = None) -> None:
    """Train every part of the mini unCLIP by the recipe in params.yaml and publish the folder whole.

    A stopped run goes on from its last checkpoints in data/runs/pretrain, which a finished one deletes.
    Raises UserError where these are of another recipe.
    """
    recipe = params.load(root / "params.yaml").pretrain
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(recipe, root / WORK, device)
    reader, features = trainer.readers()
    vae = trainer.autoencoder(features)
    clip, tokens = trainer.clip()
    data = trainer.encode(vae, clip, tokens)
    unet = trainer.denoiser(data)
    record = {
        "recipe": recipe.model_dump(),
        "parts": {name: asdict(history) for name, history in trainer.history.items()},
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    parts: list[torch.nn.Module] = [clip, vae, unet, reader]
    for part in parts:
        part.to("cpu")
    staging = root / WORK / "folder"
    shutil.rmtree(staging, ignore_errors=True)
    save(Trained(clip, tokens, vae, unet, data.images, reader, record), staging)
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    (root / FOLDER).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(staging, root / FOLDER)
    shutil.rmtree(root / WORK)
