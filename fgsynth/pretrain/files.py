"""Where the mini unCLIP lies, and what lies in its folder beside what diffusers reads."""

from pathlib import Path

FOLDER = Path("data/pretrained/mini-unclip")
CARD, SCORES = FOLDER.parent / "README.md", FOLDER.parent / "scores.json"
JUDGE, TRAINING = "judge.safetensors", "training.json"
