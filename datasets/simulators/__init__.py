"""Flows and random fields to train on, simulated: solvers in torch, and the problems that are made with them.

Solvers are pseudo-spectral on periodic domains, batched over trajectories, and run on a GPU where there is one.
"""

from sciffusion.datasets.simulators.problems import PROBLEMS, Problem
from sciffusion.datasets.simulators.write import write_problem

__all__ = ["PROBLEMS", "Problem", "write_problem"]
