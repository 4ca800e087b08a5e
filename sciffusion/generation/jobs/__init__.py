"""Batch jobs: readable scripts for SLURM and PBS that survive preemption and time limits."""

from sciffusion.generation.jobs.job import Job
from sciffusion.generation.jobs.script import SCHEDULERS, render, submit

__all__ = ["SCHEDULERS", "Job", "render", "submit"]
