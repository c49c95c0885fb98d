"""The mini CLIP: a text and a vision transformer trained by contrast, many positives per caption."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from fgsynth.pretrain.corpus import Corpus

WIDTH = 128
LENGTH = 16
"""Tokens of a prompt, the first and the last of which are marks."""


def tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer whose merges build every word of the captions, and no others."""
    letters = sorted(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[str] = []
    known = set(tokens)
    for word in sorted({word for caption in captions for word in caption.lower().split()}):
        symbols = [*word[:-1], word[-1] + "</w>"]
        while len(symbols) > 1:
            # From the end, so that each merge is of one known piece and one letter.
            left, right = symbols[-2:]
            symbols[-2:] = [left + right]
            if left + right not in known:
                known.add(left + right)
                tokens.append(left + right)
                merges.append(f"{left} {right}")
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate([*tokens, *marks])}
    # Its signature has text, its backend takes pairs.
    pairs: Any = [tuple(merge.split(" ")) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=LENGTH)


def clip(tokens: CLIPTokenizer) -> CLIPModel:
    """A small CLIPModel for 32 x 32 images in patches of 8."""
    end, start = tokens.eos_token_id, tokens.bos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        eos_token_id=end,
        bos_token_id=start,
        pad_token_id=end,
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=WIDTH,
    )
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    )


def processor() -> CLIPImageProcessor:
    """Images to the mini CLIP's input: 32 x 32, each channel from -1 to 1."""
    side = {"shortest_edge": 32}
    return CLIPImageProcessor(
        size=side, crop_size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def token_ids(tokens: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Padded token ids of captions, (n, LENGTH)."""
    batch = tokens(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return batch.input_ids


def contrastive_loss(model: CLIPModel, pixels: Tensor, ids: Tensor) -> Tensor:
    """Symmetric InfoNCE in which every image with the same caption is a positive (Khosla et al. 2020)."""
    image = normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    text = normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
    same = (ids[:, None] == ids[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def image_embeddings(model: CLIPModel, corpus: Corpus, batch: int = 1024) -> Tensor:
    """Projected embeddings of every image, (n, WIDTH), not normalised, as the pipeline uses them."""
    rows = torch.arange(len(corpus.images)).split(batch)
    device = next(model.parameters()).device
    return torch.cat(
        [model.get_image_features(pixel_values=corpus.batch(r).to(device)).pooler_output.cpu() for r in rows]
    )
