"""Ensembles with one fault each, drawn per seed at or above a stated minimum, and the name that the verdict gives it.

A forgery gets the members (member, case, y, x), the truth, the problem and a generator, and returns members.
"""

import numpy as np
from scipy import ndimage

from sciffusion.evaluation import evaluate


def narrow(members, truth, problem, generator):
    """Spread x 0.9 or less."""
    mean = members.mean(axis=0)
    return mean + generator.uniform(0.7, 0.9) * (members - mean)


def biased(members, truth, problem, generator):
    """A bias of 0.1 sd of the field or more, up or down."""
    return members + generator.choice([-1, 1]) * generator.uniform(0.1, 0.3) * problem.draws.std()


def blurred(members, truth, problem, generator):
    """A Gaussian blur of one pixel or more."""
    wraps = ["wrap" if dim in problem.periodic else "nearest" for dim in problem.dims]
    width = generator.uniform(1.0, 2.0)
    return ndimage.gaussian_filter(members, (0, 0, width, width), mode=["nearest", "nearest", *wraps])


def scrambled(members, truth, problem, generator):
    """Right marginals, no spatial correlation: every cell takes the members in its own order."""
    return generator.permuted(members, axis=0)


def prior(members, truth, problem, generator):
    """Members of the prior: each is of a case drawn at random, whatever the condition, and none is drawn twice."""
    draws, cases = problem.draws.shape[:2]
    pick = [generator.choice(draws * cases, len(members), replace=False) for _ in range(cases)]
    drawn, case = np.divmod(np.stack(pick, axis=1), cases)
    return problem.draws[drawn, case]


def shuffled(members, truth, problem, generator):
    """A quarter of the cases or more carry the members of another."""
    cases = members.shape[1]
    count = round(cases * generator.uniform(0.25, 1.0))
    moved = generator.choice(cases, count, replace=False)
    order = np.arange(cases)
    order[moved] = np.roll(moved, 1)
    return members[:, order]


def duplicated(members, truth, problem, generator):
    """Two members or more are copies of others."""
    count = generator.integers(1, len(members) // 2 + 1)
    pick = generator.permutation(len(members))
    copied = members.copy()
    copied[pick[:count]] = members[pick[count : 2 * count]]
    return copied


def cut(members, truth, problem, generator):
    """Nothing beyond the 99 % quantile of the truth, or a lower one."""
    level = generator.uniform(0.95, 0.99)
    return np.minimum(members, np.quantile(problem.draws, level).astype(members.dtype))


def seamed(members, truth, problem, generator):
    """Tiles of 8 to 16 cells, each off by its own 0.4 sd of the ensemble's spread or more."""
    size, (n, m) = int(generator.choice([8, 12, 16])), members.shape[2:]
    tiles = generator.normal(size=(*members.shape[:2], -(-n // size), -(-m // size)))
    offset = np.repeat(np.repeat(tiles, size, axis=2), size, axis=3)[..., :n, :m]
    return members + generator.uniform(0.4, 0.8) * members.std(axis=0).mean() * offset


def memorised(members, truth, problem, generator):
    """Half of the members or more are the training fields nearest to them, with 10 % of noise."""
    count = generator.integers(len(members) // 2, len(members) + 1)
    flat = problem.training.reshape(len(problem.training), -1)
    forged = members.copy()
    for place in np.ndindex(count, members.shape[1]):
        nearest = ((flat - members[place].reshape(-1)) ** 2).sum(axis=1).argmin()
        forged[place] = problem.training[nearest]
    noise = 0.1 * problem.draws.std() * generator.normal(size=forged[:count].shape)
    forged[:count] += noise.astype(forged.dtype)
    return forged


FORGERIES = {
    "spread x 0.9": (narrow, {"under-dispersive"}),
    "bias 0.1 sd": (biased, {"bias"}),
    "one-pixel blur": (blurred, {"blur"}),
    "no spatial correlation": (scrambled, {"no spatial correlation"}),
    "ignores the condition": (prior, {"ignores its condition"}),
    "shuffled times": (shuffled, {"shuffled cases"}),
    "duplicated members": (duplicated, {"duplicated members"}),
    "cut tail": (cut, {"tail cut", "tail too light"}),
    "seams": (seamed, {"seams"}),
    "memorised": (memorised, {"memorised"}),
}


def judge(problem, seed, forge=None):
    """Names of the faults found in a forged ensemble, or in a perfect one."""
    generator = np.random.default_rng(seed)
    members, truth = problem.cast(generator)
    if forge is not None:
        members = forge(members, truth, problem, generator)
    return set(evaluation(problem, members, truth).faults["a"])


def evaluation(problem, members, truth):
    return evaluate(
        problem.dataset(members.astype("f4"), "member", "time"),
        problem.dataset(truth, "time"),
        training=problem.dataset(problem.training, "sample"),
        periodic=problem.periodic,
        brief=True,
    )
