"""Pretrained models from a folder or the hub: what is wrong with one is said in one sentence."""

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import home, read_json

WHOLE = "mend this folder, or fetch the model again, whole"
POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that Git LFS has not fetched."""
PLAIN = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors")
"""Names of weights that are read; others are variants, such as model.fp16.safetensors."""


def local_folder(model: str | Path) -> Path | None:
    """The folder that a model's name means, None for a hub id; UserError for a file, and for no folder."""
    path = home(model)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path} is a file: give the folder of a model, or a hub id.")
    if isinstance(model, Path) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        raise UserError(f"There is no folder {path}: give that of a model, or a hub id.")
    return None


def check_files(folder: Path, unread: Collection[str] = ()) -> None:
    """Look for what a folder of networks lacks, or holds in a form that is not read; loads none.

    unread: names of parts that are not loaded. Raises UserError for pointers of Git LFS, configurations that
    are no JSON objects, pickles, variants alone, and a network without weights.
    """
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(POINTER):
            raise UserError(
                f"{file} is a pointer of Git LFS in place of the file itself: run 'git lfs pull' in {folder}."
            )
        if file.name == "model_index.json" or file.name.endswith("config.json"):
            read_json(file, WHOLE)
    for part in sorted(path.parent for path in folder.rglob("config.json")):
        if part.name not in unread and not any(PLAIN.fullmatch(path.name) for path in part.iterdir()):
            raise UserError(_no_weights(part))


def _no_weights(part: Path) -> str:
    if any(part.glob("*.bin")):
        return (
            f"{part} holds its weights as a pickle, which can run code when it is read: save the model with "
            "safe_serialization=True."
        )
    if variants := sorted(path.name for path in part.glob("*.safetensors")):
        return (
            f"{part} holds no weights but the variant {variants[0]}: fetch the plain weights too, or save "
            "the model without `variant`."
        )
    return f"{part} has a config.json and no weights: {WHOLE}."


@contextmanager
def loading(what: str, model: str | Path, advice: str) -> Iterator[None]:
    """Turn what libraries raise for a model that cannot be loaded into a UserError with this advice.

    Weights that the files lack are an error too: the libraries warn and take random ones. What is loaded from
    a folder takes a second and shows no bars.
    """
    try:
        with quiet(Path(model).is_dir()), _no_random_weights():
            yield
    except UserError:
        raise
    # What a failed download or a damaged file raises depends on the library that tried.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".: ")
        raise UserError(f"{what} '{model}' cannot be loaded ({reason}): {advice}.") from error


class _Listener(logging.Handler):
    """Whether a library has told of weights that it draws at random."""

    told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Look for the words that diffusers and transformers share."""
        self.told |= "newly initialized" in record.getMessage()


@contextmanager
def _no_random_weights() -> Iterator[None]:
    listener, loggers = _Listener(), [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(listener)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
    if listener.told:
        raise ValueError("its files lack some of its weights")


@contextmanager
def quiet(local: bool = True) -> Iterator[None]:
    """Switch the progress bars of loading off within the block; of a download, minutes long, they stay."""
    parts = (diffusers_logging, transformers_logging) if local else ()
    loud = [part for part in parts if part.is_progress_bar_enabled()]
    for part in loud:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in loud:
            part.enable_progress_bar()
