"""Sentences: what the numbers say about an ensemble, how sure that is, and plainly so when it is no good.

A rule looks at the scores of one variable and hands back findings: a departure, whether it is large enough to matter,
and the chance of it under a perfect ensemble. All findings of an evaluation together are corrected for their number
(Holm 1979), and a fault is named when it is notable and less than ``LEVEL`` likely by chance.
"""

from sciffusion.evaluation.verdict.chance import corrected_quantile
from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.judge import LEVEL, RULES, faults, findings, statements, verdicts
from sciffusion.evaluation.verdict.spectrum import spectral_tolerance
from sciffusion.evaluation.verdict.spread import WHOLE
from sciffusion.evaluation.verdict.words import interval_words, number

__all__ = [
    "LEVEL",
    "RULES",
    "WHOLE",
    "Finding",
    "Statement",
    "corrected_quantile",
    "faults",
    "findings",
    "interval_words",
    "number",
    "spectral_tolerance",
    "statements",
    "verdicts",
]
