"""How networks are run, torch only: devices, precision, memory, compilation, CUDA graphs."""
