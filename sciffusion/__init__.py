"""Diffusion models for physics fields on gridded xarray data."""

__version__ = "0.1.0"
