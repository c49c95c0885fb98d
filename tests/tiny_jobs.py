"""What tests have other processes do, which import it by name."""

import os

import torch

from fgsynth.utils.errors import UserError


def described(item):
    return item, os.getpid(), torch.get_num_threads(), os.environ.get("FGSYNTH_QUIET")


def refuses_the_second(item):
    if item == 1:
        raise UserError(f"Item {item} is wrong: leave it out.")
