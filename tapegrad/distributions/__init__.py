"""``tg.distributions``: torch's distributions in ops of the tape: densities, samples, entropies, divergences.

Imports the core and the ops. Samples come from the package's generator, gradients pass through `rsample`.
"""

import sys

from . import constraints, continuous, discrete, multivariate, relaxed, transforms, utils
from .continuous import Beta, Cauchy, Exponential, Gamma, Gumbel, HalfNormal, Laplace, Normal, StudentT, Uniform
from .discrete import Bernoulli, Binomial, Categorical, Geometric, OneHotCategorical, Poisson
from .distribution import Distribution
from .kl import kl_divergence, register_kl
from .multivariate import Dirichlet, Independent, MixtureSameFamily, MultivariateNormal
from .relaxed import OneHotCategoricalStraightThrough, RelaxedBernoulli, RelaxedOneHotCategorical
from .transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    LogNormal,
    SigmoidTransform,
    TanhTransform,
    Transform,
    TransformedDistribution,
)

__all__ = [
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "ComposeTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "Gamma",
    "Geometric",
    "Gumbel",
    "HalfNormal",
    "Independent",
    "Laplace",
    "LogNormal",
    "MixtureSameFamily",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Poisson",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "SigmoidTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "constraints",
    "kl_divergence",
    "register_kl",
    "transforms",
    "utils",
]  # fmt: skip

# torch keeps every distribution in a module of its own, and scripts import from there.
_PLACES = {
    continuous: "beta cauchy exponential gamma gumbel half_normal laplace normal studentT uniform",
    discrete: "bernoulli binomial categorical geometric one_hot_categorical poisson",
    multivariate: "dirichlet independent mixture_same_family multivariate_normal",
    relaxed: "relaxed_bernoulli relaxed_categorical",
    transforms: "log_normal transformed_distribution",
}
for _module, _names in _PLACES.items():
    for _name in _names.split():
        sys.modules[f"{__name__}.{_name}"] = _module
