"""The report: one self-contained HTML file that a colleague can read without having seen the code."""

from sciffusion.evaluation.report.export import save_figures
from sciffusion.evaluation.report.page import render

__all__ = ["render", "save_figures"]
