"""What the terms of the report mean."""

__all__ = ["GLOSSARY", "MAPS", "MASKED"]

MAPS = (
    "All panels of a variable share the colour scale of the truth, except the spread. "
    "Members should look like the truth, each a different one; the mean is smoother wherever they differ. "
    "The last two are averages over all cases: where the CRPS is large, and where the ensemble mean is too high or low "
    "(with few cases this is weather, not bias)."
)
MASKED = (
    "Missing cells are set to the mean; at their edge large scales spill into small ones, for the truth and "
    "the members alike, so the fine end says less than on a whole domain."
)
GLOSSARY = {
    "CRPS": "Continuous ranked probability score: the mean absolute error of a distribution, in the variable's units. "
    "The fair estimator does not reward or punish the number of members. Lower is better.",
    "NAME/this": "CRPS of the (first) ensemble over CRPS of the system in that row, on the same cells and cases; "
    "below 1 the ensemble is better, beyond chance where the interval lies below 1.",
    "energy score": "The CRPS of whole fields: it also punishes wrong correlations in space. Lower is better.",
    "spread/skill": "sqrt((M+1)/M) times the root of the mean ensemble variance, over the RMSE of the ensemble mean. "
    "1 is calibrated, below 1 overconfident.",
    "spectral bins": "In how many half-octave bins of wavenumber, up to 0.8 of Nyquist, the members' power agrees with "
    "the truth's to 10 % or two standard errors of the truth. Bins beyond the truncation of a spectral model, where "
    "power falls by a factor of 1000 or more at once, are left out if the members have no power there either.",
    "coarse rms": "Root mean square difference between the conservatively coarsened members and the coarse input, in "
    "standard deviations of the coarse input.",
    "weights": "Every mean is weighted by cell area. Cells where the truth or any compared system is missing are left "
    "out for all of them.",
}
