"""Named inputs of a model: xarray in, `Context` out. Imported as ``sciffusion.conditioners``."""
