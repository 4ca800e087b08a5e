"""What to say beside each figure, and what the terms mean."""

__all__ = ["CAPTIONS", "GLOSSARY"]

CAPTIONS = {
    "maps": "All panels of a variable share the colour scale of the truth, except the spread. "
    "Members should look like the truth, each a different one; the mean is smoother wherever they differ. "
    "The last two are averages over all cases: where the CRPS is large, and where the ensemble mean is too high or low "
    "(with few cases this is weather, not bias).",
    "by_case": "Lower is better. The ensemble should lie below every baseline at every case.",
    "by_region": "Every dot is a region. Below 1 the ensemble is better than that baseline there.",
    "rank_histogram": "Flat at 1 is right. A U: too little spread; a dome: too much; a slope: biased.",
    "spread_skill": "Each dot is a twelfth of the area. On the dashed line a stated spread is the error it promises; "
    "above it the ensemble is overconfident.",
    "scales": "Above: 1 is calibrated at that scale, below 1 overconfident. "
    "Below: 1 where the mean knows the truth, 0 where only the statistics are known.",
    "spectrum": "Members (solid blue) should lie on the truth; the mean (dotted) should fall below it where the "
    "ensemble is uncertain. Grey: within 10 % or two standard errors of the truth.",
    "masked": "Missing cells are set to the mean; at their edge large scales spill into small ones, for the truth and "
    "the members alike, so the fine end says less than on a whole domain.",
    "densities": "A curve that ends early has cut its extremes off.",
    "quantiles": "On zero: right. Falling on the right or rising on the left: the extremes are too weak.",
}

GLOSSARY = {
    "CRPS": "Continuous ranked probability score: the mean absolute error of a distribution, in the variable's units. "
    "The fair estimator does not reward or punish the number of members. Lower is better.",
    "ensemble/this": "CRPS of the ensemble over CRPS of the baseline in that row, on the same cells and cases; "
    "below 1 the ensemble is better.",
    "energy score": "The CRPS of whole fields: it also punishes wrong correlations in space. Lower is better.",
    "spread/skill": "sqrt((M+1)/M) times the root of the mean ensemble variance, over the RMSE of the ensemble mean. "
    "1 is calibrated, below 1 overconfident.",
    "spectral bins": "In how many half-octave bins of wavenumber, up to 0.8 of Nyquist, the members' power agrees with "
    "the truth's to 10 % or two standard errors of the truth.",
    "coarse rms": "Root mean square difference between the conservatively coarsened members and the coarse input, in "
    "standard deviations of the coarse input.",
    "weights": "Every mean is weighted by cell area. Cells where the truth or any compared system is missing are left "
    "out for all of them.",
}
