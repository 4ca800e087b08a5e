"""Training an experiment with pytorch-lightning, resumable to the bit."""

from sciffusion.training.run import train

__all__ = ["train"]
