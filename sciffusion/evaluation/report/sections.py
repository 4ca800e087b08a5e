"""What the report consists of, as data: sections in the order in which a reader asks, and the figures of each."""

from sciffusion.evaluation.report import calibration, dependence, events, skill, spectral, values
from sciffusion.evaluation.report.section import Plot, Section

__all__ = ["SECTIONS"]

MEMBERS = "it needs an ensemble of two or more members"
EVENTS = "the events did not happen"

SKILL = (
    Plot(
        "crps_by_case",
        skill.by_case,
        "Lower is better. The ensemble should lie below every baseline at every case.",
        ("crps_by_case",),
    ),
    Plot(
        "errors_by_case",
        skill.errors_by_case,
        "Lower is better. A single guess, such as the regression mean, can match the ensemble here and still fail at "
        "everything below.",
        ("rmse_by_case", "mae_by_case"),
    ),
    Plot(
        "crps_by_region",
        skill.by_region,
        "Every mark is a region. Below 1 the ensemble is better than that baseline there.",
        ("crps_by_region",),
    ),
)
CALIBRATION = (
    Plot(
        "rank_histogram",
        calibration.rank_histogram,
        "Flat at 1 is right. A U: too little spread; a dome: too much; a slope: biased. Bars: 95 % intervals; p: the "
        "chance of so uneven a histogram were the truth one of the members.",
        ("rank_histogram", "spread_skill"),
        MEMBERS,
        each=True,
    ),
    Plot(
        "spread_skill",
        calibration.spread_skill,
        "Each mark is a twelfth of the area. On the dashed line a stated spread is the error it promises; above it the "
        "ensemble is overconfident.",
        ("spread_in_bin",),
        MEMBERS,
    ),
    Plot(
        "scales",
        calibration.scales,
        "Above: 1 is calibrated at that scale, below 1 overconfident. Below: 1 where the mean knows the truth, 0 where "
        "only the statistics are known.",
        ("spread_skill_by_scale",),
        MEMBERS,
        each=True,
    ),
    Plot(
        "coverage",
        calibration.coverage,
        "How often the truth lies beyond all members where it is low, usual and high. 1 is right; more on the right "
        "means that strong events are missed.",
        ("truth_below_members", "truth_above_members", "spread_skill"),
        MEMBERS,
        each=True,
    ),
    Plot(
        "reliability",
        events.reliability,
        "An event that the ensemble gives 30 % should happen in 30 % of such cases: marks on the dashed line. Flatter "
        "is overconfident. Bars: 95 % intervals.",
        ("observed_frequency", "roc_area"),
        EVENTS,
    ),
    Plot(
        "roc",
        events.roc,
        "Whether events are told apart from non-events at all: the more area under the curve the better, 0.5 is none.",
        ("hit_rate", "roc_area"),
        EVENTS,
    ),
)
SPECTRA = (
    Plot(
        "spectrum",
        spectral.spectra,
        "Members (solid) should lie on the truth; the mean (dotted) should fall below it where the ensemble is "
        "uncertain. Grey: within 10 % or two standard errors of the truth.",
        ("power_truth", "spectral_ratio"),
    ),
)
VALUES = (
    Plot(
        "densities",
        values.densities,
        "The members should follow the truth down to the rarest values. A curve that ends early has cut its extremes "
        "off. Grey: 95 % interval of the truth.",
        ("density_members",),
    ),
    Plot(
        "quantiles",
        values.quantiles,
        "On zero: right. Falling on the right or rising on the left: the extremes are too weak. Bars: 95 % intervals.",
        ("quantile_members",),
    ),
    Plot(
        "tails",
        values.tails,
        "On 1: extremes are as frequent as in the truth; above 1 too frequent. Bars: 95 % intervals, where the truth's "
        "extremes happened often enough for one.",
        ("exceedance_ratio", "threshold"),
        "the truth has no values beyond the thresholds",
    ),
    Plot(
        "return_levels",
        values.returns,
        "How extreme the domain's most extreme value gets once in so many cases, by a generalised extreme value "
        "distribution. Grey: 95 % interval of the truth.",
        ("return_level_truth", "return_level_members"),
        "it needs 20 or more cases",
    ),
)
DEPENDENCE = (
    Plot(
        "increments",
        dependence.increments,
        "Members should lie on the truth. Above: the mean square difference of two cells (structure function); too "
        "high at short distances is noise, too low is blur. Below: their correlation. Grey: 95 % interval of the "
        "truth.",
        ("structure_function_truth",),
    ),
    Plot(
        "intermittency",
        dependence.intermittency,
        "Above: 3 where increments are Gaussian, more where fronts and eddies make rare large jumps. Below: the chance "
        "that a cell is extreme if one so far away is. Grey: 95 % interval of the truth.",
        ("flatness_truth",),
    ),
    Plot(
        "variables",
        dependence.variables,
        "Above: correlation of two variables at the same place, in what the ensemble leaves open (departures from its "
        "mean). Below: the chance that one is extreme if the other is. Marks should lie on the truth's. Bars: 95 % "
        "intervals.",
        ("variables_correlation_members",),
        "it needs two or more variables, and two or more members",
    ),
)
POOLED = (
    Plot(
        "pooled_crps",
        skill.pooled,
        "The score of averages over ever larger blocks. An ensemble with the right spread in every cell but the wrong "
        "correlation between cells loses its lead as blocks grow.",
        ("pooled_crps",),
    ),
    Plot(
        "fractions_skill",
        events.fractions,
        "Whether the right share of a neighbourhood is extreme, for ever larger neighbourhoods. 1 is perfect. Bars: "
        "95 % intervals.",
        ("fractions_skill", "roc_area"),
        "the events did not happen",
    ),
)
CLIMATE = (
    Plot(
        "cell_return_levels",
        values.cell_returns,
        "How extreme a cell gets once in so many years, mean over cells, by a generalised extreme value distribution "
        "of yearly extremes in every cell. Grey: 95 % interval of the truth.",
        ("cell_return_level_truth", "cell_return_level_members"),
        "it needs ten or more whole years of daily data",
    ),
)
SECTIONS = (
    Section(
        "verdict", "Verdict", "What is right and wrong with the ensemble, in sentences that follow from the tests."
    ),
    Section(
        "scorecard", "Scorecard", "The main numbers of the ensemble and of what it has to beat, with 95 % intervals."
    ),
    Section("maps", "One case in pictures", "The truth, what the ensemble was given, and what it made of that."),
    Section(
        "skill", "Where and when it is good", "How large the errors are, case by case and region by region.", SKILL
    ),
    Section(
        "calibration",
        "Is the spread right?",
        "Whether the truth behaves like one more member: the ensemble errs as much as it says it does.",
        CALIBRATION,
    ),
    Section(
        "spectra",
        "Is the detail right at every scale?",
        "How much variation the fields have at each wavelength, which blurred or noisy members get wrong.",
        SPECTRA,
    ),
    Section(
        "distributions",
        "Are the values right, extremes included?",
        "How often each value occurs, whatever the place and the time.",
        VALUES,
        columns=(
            ("Wasserstein-1", "wasserstein"),
            ("Kolmogorov-Smirnov", "kolmogorov_smirnov"),
            ("lowest member", "lowest_members"),
            ("lowest truth", "lowest_truth"),
            ("highest member", "highest_members"),
            ("highest truth", "highest_truth"),
        ),
    ),
    Section(
        "climate",
        "Is the climate right?",
        "Yearly indices of daily data, and how rare extremes are in every cell.",
        CLIMATE,
    ),
    Section(
        "dependence",
        "Do places and variables hang together?",
        "How alike cells are that lie some distance apart, and how variables move together.",
        DEPENDENCE,
    ),
    Section(
        "pooled",
        "Is it still good after averaging?",
        "The score of area means, which depend on how neighbouring cells hang together.",
        POOLED,
    ),
    Section(
        "physics",
        "Does it respect what is known?",
        "Differences to the coarse input after coarsening, values that cannot be, and cells that should be missing.",
        columns=(
            ("coarse: rms / sd", "coarse_rms"),
            ("coarse: mean / sd", "coarse_bias"),
            ("coarse: largest / sd", "coarse_largest"),
            ("share of negative values", "negative_share_members"),
            ("share filled where the truth is missing", "filled_share"),
            ("share missing where the truth is not", "missing_share"),
        ),
        otherwise="agreement with the coarse input needs --coarse; negative values are sought if the truth has none",
    ),
    Section(
        "memorisation",
        "Is it new?",
        "Whether members are copies of each other, or of fields that the model was trained on.",
        columns=(
            ("members with a twin, per case", "twins"),
            ("chance of that", "twins_p"),
            ("distance to training data: members", "training_distance_members"),
            ("distance to training data: held-out truth", "training_distance_truth"),
            ("share of members close to the training data", "training_close"),
            ("chance of that ", "training_p"),
        ),
        otherwise="it needs two or more members; distances to the training data need --training",
    ),
    Section("method", "How this was computed", "What the words mean, and every setting that the numbers depend on."),
)
