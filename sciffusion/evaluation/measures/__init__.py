"""Measures of fields as plain functions: xarray in, xarray out, any extra dims kept."""

from sciffusion.evaluation.measures.dependence import lag_correlation, spatial_autocorrelation, variable_correlation
from sciffusion.evaluation.measures.distribution import (
    exceedance_ratio,
    kolmogorov_smirnov,
    log_density,
    quantile_pairs,
    wasserstein,
    wet_fraction,
)
from sciffusion.evaluation.measures.extremes import return_levels_gev, return_levels_gpd, tail_dependence
from sciffusion.evaluation.measures.flow import (
    divergence,
    helicity,
    longitudinal_increments,
    structure_function,
    vorticity,
)
from sciffusion.evaluation.measures.gaps import masked_spectrum, temporal_spectrum
from sciffusion.evaluation.measures.indices import climate_indices
from sciffusion.evaluation.measures.physics import (
    balance_residual,
    conditional_coverage,
    conservation_error,
    positivity,
    training_distance,
)
from sciffusion.evaluation.measures.spectra import (
    coherence,
    cross_spectrum,
    degree_spectrum,
    ensemble_spectra,
    power_spectrum,
    ralsd,
)

__all__ = [
    "balance_residual",
    "climate_indices",
    "coherence",
    "conditional_coverage",
    "conservation_error",
    "cross_spectrum",
    "degree_spectrum",
    "divergence",
    "ensemble_spectra",
    "exceedance_ratio",
    "helicity",
    "kolmogorov_smirnov",
    "lag_correlation",
    "log_density",
    "longitudinal_increments",
    "masked_spectrum",
    "positivity",
    "power_spectrum",
    "quantile_pairs",
    "ralsd",
    "return_levels_gev",
    "return_levels_gpd",
    "spatial_autocorrelation",
    "structure_function",
    "tail_dependence",
    "temporal_spectrum",
    "training_distance",
    "variable_correlation",
    "vorticity",
    "wasserstein",
    "wet_fraction",
]
