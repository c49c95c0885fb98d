"""CLIP's two encoders, of images (`see`) and sentences (`read`): of a CLIP, or of an unCLIP's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms import v2
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from fgsynth.models.loading import WHOLE, check_files, loading, local_folder
from fgsynth.utils.errors import UserError

PROJECTION = "text_projection.safetensors"
"""Beside an unCLIP, whose own text encoder ends before CLIP's projection."""


class Clip(nn.Module):
    """Images and sentences in one space of d dimensions, as they are, of any length (Radford et al. 2021).

    side: pixels of the images it takes.
    """

    def __init__(self, model: str) -> None:
        """model: hub id or folder of a CLIP, or folder of an unCLIP with CLIP's text projection beside it.

        Raises UserError where they cannot be had.
        """
        super().__init__()
        local = local_folder(model)
        folder, model = local or Path(model), str(local or model)
        unclip = (folder / "model_index.json").is_file()
        if unclip and not (folder / PROJECTION).is_file():
            raise UserError(
                f"The unCLIP in {folder} has no {PROJECTION}, so its CLIP cannot compare text with images: "
                "give the hub id or folder of a CLIP."
            )
        within = ("image_encoder", "text_encoder", "tokenizer", "feature_extractor") if unclip else ("",) * 4
        if local:
            check_files(local)
        options: dict[str, Any] = {"local_files_only": local is not None}
        weights = options | {"use_safetensors": True, "dtype": torch.float32}
        advice = WHOLE if local else "connect to the hub once, or name a local folder"
        with loading("The CLIP", model, advice):
            self.vision = CLIPVisionModelWithProjection.from_pretrained(model, subfolder=within[0], **weights)
            kind: Any = CLIPTextModel if unclip else CLIPTextModelWithProjection
            text = kind.from_pretrained(model, subfolder=within[1], **weights)
            self.tokens = CLIPTokenizer.from_pretrained(model, subfolder=within[2], **options)
            processor = CLIPImageProcessor.from_pretrained(model, subfolder=within[3], **options)
        self.text = text if unclip else text.text_model
        projection = load_file(folder / PROJECTION)["weight"] if unclip else text.text_projection.weight
        self.projection = nn.Parameter(projection.detach().float())
        mean, std = (torch.tensor(getattr(processor, name)) for name in ("image_mean", "image_std"))
        # From [-1, 1], as the networks of this package take images, to CLIP's own range.
        self.prepare = v2.Normalize((2 * mean - 1).tolist(), (2 * std).tolist())
        self.side: int = self.vision.config.image_size  # type: ignore[assignment]

    @property
    def width(self) -> int:
        """Dimensions of the common space."""
        return len(self.projection)

    def see(self, x: Tensor) -> Tensor:
        """Embeddings (n, d) of images (n, 3, h, w) in [-1, 1]. Raises UserError for another size."""
        if x.shape[-2:] != (self.side, self.side):
            raise UserError(
                f"CLIP takes images of {self.side} x {self.side} pixels, these have {tuple(x.shape[-2:])}: "
                f"set the recipe's side to {self.side}."
            )
        embedding: Tensor = self.vision(self.prepare(x)).image_embeds
        return embedding

    def read(self, ids: Tensor) -> Tensor:
        """Embeddings (n, d) of sentences as token ids (n, length)."""
        pooled: Tensor = self.text(ids).pooler_output
        return pooled @ self.projection.T

    def ids(self, sentences: Sequence[str]) -> Tensor:
        """Token ids of sentences, (n, length). Raises UserError for one of more tokens than CLIP takes."""
        length = self.tokens.model_max_length
        for sentence, ids in zip(sentences, self.tokens(list(sentences)).input_ids, strict=True):
            if len(ids) > length:
                raise UserError(
                    f"The sentence '{sentence}' has {len(ids)} tokens, CLIP takes {length}: shorten it."
                )
        padded = self.tokens(list(sentences), padding="max_length", max_length=length, return_tensors="pt")
        found: Tensor = padded.input_ids
        return found
