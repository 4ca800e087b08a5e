"""Links of an emulator's chain: denoisers, and the baselines that they have to beat."""
