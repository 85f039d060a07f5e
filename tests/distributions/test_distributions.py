"""tg.distributions: densities, moments, entropies, divergences and gradients are torch's; samples have the moments."""

import math

import pytest
import torch
import torch.distributions as theirs

import tapegrad as tg
import tapegrad.distributions as ours

G = torch.Generator().manual_seed(0)


def floats(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=G)


def positive(*shape):
    return floats(*shape).abs() + 0.3


def chances(*shape):
    return torch.rand(shape, dtype=torch.float64, generator=G) * 0.8 + 0.1


def matrix(*shape):
    x = floats(*shape)
    return x @ x.mT + torch.eye(shape[-1], dtype=torch.float64)


# name: (parameters, values at which the density is compared)
BITS, COUNTS = torch.tensor([0.0, 1, 1]).double(), torch.tensor([0.0, 2, 5]).double()
INDICES = torch.tensor([[0, 3, 1], [2, 2, 0]])

CASES = {
    "Normal": [({"loc": floats(3), "scale": positive(3)}, floats(2, 3))],
    "LogNormal": [({"loc": floats(3), "scale": positive(3)}, positive(2, 3))],
    "Laplace": [({"loc": floats(3), "scale": positive(3)}, floats(2, 3))],
    "Cauchy": [({"loc": floats(3), "scale": positive(3)}, floats(2, 3))],
    "Gumbel": [({"loc": floats(3), "scale": positive(3)}, floats(2, 3))],
    "HalfNormal": [({"scale": positive(3)}, positive(2, 3))],
    "Uniform": [({"low": -positive(3), "high": positive(3)}, torch.zeros(2, 3, dtype=torch.float64))],
    "Exponential": [({"rate": positive(3)}, positive(2, 3))],
    "Gamma": [({"concentration": positive(3), "rate": positive(3)}, positive(2, 3))],
    "Beta": [({"concentration1": positive(3), "concentration0": positive(3)}, chances(2, 3))],
    "StudentT": [({"df": positive(3) + 3, "loc": floats(3), "scale": positive(3)}, floats(2, 3))],
    "Bernoulli": [
        ({"probs": chances(3)}, BITS),
        ({"logits": floats(3)}, BITS),
    ],
    "Geometric": [
        ({"probs": chances(3)}, COUNTS),
        ({"logits": floats(3)}, COUNTS),
    ],
    "Binomial": [
        ({"total_count": torch.tensor(5.0).double(), "logits": floats(3)}, torch.tensor([0.0, 2, 5]).double())
    ],
    "Poisson": [({"rate": positive(3)}, torch.tensor([0.0, 1, 4]).double())],
    "Categorical": [
        ({"probs": positive(3, 4)}, INDICES[0]),
        ({"logits": floats(3, 4)}, INDICES),
    ],
    "OneHotCategorical": [({"logits": floats(3, 4)}, torch.eye(4, dtype=torch.float64)[:3])],
    "Dirichlet": [({"concentration": positive(2, 3)}, positive(2, 3).softmax(-1))],
    "MultivariateNormal": [
        ({"loc": floats(2, 3), "covariance_matrix": matrix(3, 3)}, floats(4, 2, 3)),
        ({"loc": floats(3), "precision_matrix": matrix(2, 3, 3)}, floats(2, 3)),
        ({"loc": floats(3), "scale_tril": torch.linalg.cholesky(matrix(3, 3))}, floats(2, 3)),
    ],
}
ROWS = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


def both(name, i):
    """The distribution on both sides, and its parameters, which require gradients."""
    parameters, value = CASES[name][i]
    a = {k: tg.tensor(v, requires_grad=True) for k, v in parameters.items()}
    b = {k: v.clone().requires_grad_() for k, v in parameters.items()}
    return getattr(ours, name)(**a), getattr(theirs, name)(**b), a, b, value


def agree(y, expected, a, b):
    torch.testing.assert_close(y.data, expected.detach(), rtol=1e-9, atol=1e-11)
    if expected.requires_grad:
        for p in b.values():
            p.grad = None
        for p in a.values():
            p.grad = None
        g = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y.backward(g)
        expected.backward(g)
        for name, p in a.items():
            if b[name].grad is None:
                assert p.grad is None or not p.grad.data.any(), name
            else:
                assert p.grad is not None, name
                torch.testing.assert_close(
                    p.grad.data, b[name].grad, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
                )


@pytest.mark.parametrize(("name", "i"), ROWS)
def test_densities_are_torchs(name, i):
    p, q, a, b, value = both(name, i)
    assert (p.batch_shape, p.event_shape, p.has_rsample) == (q.batch_shape, q.event_shape, q.has_rsample)
    agree(p.log_prob(tg.tensor(value)), q.log_prob(value), a, b)


@pytest.mark.parametrize(("name", "i"), ROWS)
def test_what_is_known_in_closed_form_is_torchs(name, i):
    compared = 0
    for attribute in ("mean", "variance", "stddev", "mode", "entropy", "cdf", "icdf"):
        p, q, a, b, value = both(name, i)
        at = [] if attribute != "cdf" else [value]
        at = [torch.full_like(value, 0.3)] if attribute == "icdf" else at
        try:
            expected = getattr(q, attribute)
            expected = expected(*at) if callable(expected) else expected
            got = getattr(p, attribute)
            got = got(*[tg.tensor(v) for v in at]) if callable(got) else got
        except NotImplementedError:
            continue
        if not expected.isnan().any():
            agree(got, expected, a, b)
            compared += 1
    assert compared >= 2 or name in ("Cauchy", "Geometric", "Binomial", "Categorical", "Poisson")


@pytest.mark.parametrize(("name", "i"), ROWS)
def test_samples_have_the_moments(name, i):
    tg.manual_seed(1)
    p, q, _, _, _ = both(name, i)
    n = 20_000
    drawn = p.sample((n,))
    assert drawn.requires_grad is False
    assert drawn.shape == torch.Size((n,)) + q.batch_shape + q.event_shape
    assert q.log_prob(drawn.data).isfinite().all()
    if not q.mean.isnan().any():
        spread = (q.variance / n).sqrt()
        assert ((drawn.data.mean(0) - q.mean).abs() < 5 * spread + 1e-12).all()
        assert ((drawn.data.var(0) / q.variance - 1).abs() < 0.25).all()
    if p.has_rsample:
        assert p.rsample((2,)).requires_grad


@pytest.mark.parametrize("name", ["Gamma", "Beta", "Dirichlet", "StudentT"])
def test_gradients_pass_through_rejection_samples(name):
    """The derivative of E[x] (or of E[x**2], where the mean does not move) by the first parameter."""
    tg.manual_seed(2)
    p, q, a, b, _ = both(name, 0)
    power = 2 if name == "StudentT" else 1
    first = next(iter(a))
    drawn = p.rsample((40_000,)) ** power
    (got,) = tg.grad(drawn.mean(0).sum() if name != "Dirichlet" else drawn.mean(0)[..., 0].sum(), [a[first]])
    moment = q.variance + q.mean**2 if power == 2 else q.mean
    (expected,) = torch.autograd.grad(moment.sum() if name != "Dirichlet" else moment[..., 0].sum(), [b[first]])
    assert ((got.data - expected).abs() < 0.15 * expected.abs() + 0.05).all()


def test_a_gamma_sample_has_torchs_slope_and_no_second_derivative():
    from tapegrad.distributions.continuous import standard_gamma

    a, x = positive(5), positive(5)
    concentration = tg.tensor(a, requires_grad=True)
    sample = standard_gamma(concentration, x)
    assert torch.equal(sample.data, x)
    (slope,) = tg.grad(sample.sum(), [concentration], create_graph=True)
    assert torch.equal(slope.data, torch._standard_gamma_grad(a, x))
    with pytest.raises(tg.TapeError, match="no second derivative"):
        slope.sum().backward()


PAIRS = ["Normal", "LogNormal", "Laplace", "Exponential", "Gamma", "Beta", "Dirichlet", "Bernoulli", "Categorical",
         "OneHotCategorical", "Poisson", "MultivariateNormal"]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_divergences_are_torchs(name):
    p, q, a, b, _ = both(name, 0)
    shifted = {k: v * 1.3 if k not in ("probs",) else v * 0.9 for k, v in CASES[name][0][0].items()}
    agree(
        ours.kl_divergence(p, getattr(ours, name)(**shifted)),
        theirs.kl_divergence(q, getattr(theirs, name)(**shifted)),
        a,
        b,
    )


def test_divergences_of_uniforms_and_independents():
    wide, narrow = ours.Uniform(-1.0, 3.0), ours.Uniform(0.0, 1.0)
    assert ours.kl_divergence(narrow, wide).item() == pytest.approx(math.log(4))
    assert ours.kl_divergence(wide, narrow).item() == math.inf
    loc, scale = floats(2, 3), positive(2, 3)
    mine = [ours.Independent(ours.Normal(loc * k, scale), 1) for k in (1, 2)]
    other = [theirs.Independent(theirs.Normal(loc * k, scale), 1) for k in (1, 2)]
    torch.testing.assert_close(ours.kl_divergence(*mine).data, theirs.kl_divergence(*other))
    torch.testing.assert_close(mine[0].log_prob(loc).data, other[0].log_prob(loc))
    torch.testing.assert_close(mine[0].entropy().data, other[0].entropy())
    with pytest.raises(NotImplementedError, match="Normal and Uniform"):
        ours.kl_divergence(ours.Normal(0.0, 1.0), wide)


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "exp", "affine", "composed"])
def test_transformed_distributions_are_torchs(kind):
    def make(lib):
        t = lib.transforms
        chosen = {
            "tanh": [t.TanhTransform()],
            "sigmoid": [t.SigmoidTransform()],
            "exp": [t.ExpTransform()],
            "affine": [t.AffineTransform(0.5, -2.0)],
            "composed": [
                t.ComposeTransform([t.AffineTransform(0.1, 0.5), t.TanhTransform()]),
                t.AffineTransform(1.0, 3.0),
            ],
        }
        return chosen[kind]

    loc, scale = floats(3), positive(3)
    a = {"loc": tg.tensor(loc, requires_grad=True), "scale": tg.tensor(scale, requires_grad=True)}
    b = {"loc": loc.clone().requires_grad_(), "scale": scale.clone().requires_grad_()}
    p = ours.TransformedDistribution(ours.Normal(**a), make(ours))
    q = theirs.TransformedDistribution(theirs.Normal(**b), make(theirs))
    y = q.sample((4,))
    agree(p.log_prob(tg.tensor(y)), q.log_prob(y), a, b)
    tg.manual_seed(3)
    assert torch.isfinite(q.log_prob(p.sample((5,)).data)).all()
    assert p.rsample().requires_grad


def test_a_policy_squashed_by_tanh_keeps_its_sample():
    """With cache_size=1 the inverse of a sample is the very number it came from, also where tanh is 1 to rounding."""
    base = ours.Normal(tg.tensor([12.0], requires_grad=True), tg.tensor([0.1]))
    p = ours.TransformedDistribution(base, [ours.TanhTransform(cache_size=1)])
    assert p.log_prob(p.rsample()).isfinite().all()


def test_mixtures_are_torchs():
    w, loc, scale, x = positive(2, 4), floats(2, 4), positive(2, 4), floats(3, 2)
    p = ours.MixtureSameFamily(ours.Categorical(w), ours.Normal(loc, scale))
    q = theirs.MixtureSameFamily(theirs.Categorical(w), theirs.Normal(loc, scale))
    for attribute in ("mean", "variance"):
        torch.testing.assert_close(getattr(p, attribute).data, getattr(q, attribute))
    torch.testing.assert_close(p.log_prob(x).data, q.log_prob(x))
    torch.testing.assert_close(p.cdf(x).data, q.cdf(x))
    tg.manual_seed(4)
    drawn = p.sample((20_000,)).data
    assert ((drawn.mean(0) - q.mean).abs() < 5 * (q.variance / 20_000).sqrt()).all()
    vectors = ours.MixtureSameFamily(
        ours.Categorical(w), ours.Independent(ours.Normal(floats(2, 4, 3), positive(2, 4, 3)), 1)
    )
    assert vectors.sample((5,)).shape == (5, 2, 3)
    assert vectors.log_prob(vectors.sample()).shape == (2,)


def test_bad_arguments_are_named():
    for make, message in [
        (lambda: ours.Normal(0.0, -1.0), "Normal: parameter scale must lie in GreaterThan"),
        (lambda: ours.Uniform(1.0, 0.0), "Uniform: high - low"),
        (lambda: ours.Bernoulli(1.5), "Bernoulli: parameter probs"),
        (lambda: ours.Bernoulli(), "exactly one of probs and logits"),
        (lambda: ours.Categorical(torch.tensor([-1.0, 2.0])), "Categorical: parameter probs"),
        (lambda: ours.Categorical(torch.tensor(1.0)), "at least 1 dimension"),
        (lambda: ours.Exponential(1.0).log_prob(-1.0), "Exponential: value must lie"),
        (lambda: ours.Categorical(torch.ones(3)).log_prob(torch.tensor(3)), "IntegerInterval"),
        (lambda: ours.Normal(torch.zeros(3), 1.0).log_prob(torch.zeros(2)), "does not broadcast"),
        (
            lambda: ours.MultivariateNormal(torch.zeros(2), -torch.eye(2)),
            "must lie in PositiveDefinite",
        ),
        (lambda: ours.Independent(ours.Normal(0.0, 1.0), 1), "reinterpreted_batch_ndims"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    assert ours.Normal(0.0, -1.0, validate_args=False).scale.item() == -1.0
    with pytest.raises(NotImplementedError, match="rsample"):
        ours.Bernoulli(0.5).rsample()


def test_scripts_import_from_torchs_modules():
    from tapegrad.distributions.categorical import Categorical
    from tapegrad.distributions.normal import Normal

    from tapegrad.distributions.kl import kl_divergence

    assert Categorical is ours.Categorical
    assert Normal is ours.Normal
    assert kl_divergence is ours.kl_divergence


def test_a_policy_gradient_step_compiles_bit_for_bit():
    def run(wrap):
        tg.manual_seed(5)
        policy = tg.nn.Linear(3, 4)
        optimizer = tg.optim.Adam(policy.parameters(), lr=0.1)

        @wrap
        def step(states):
            optimizer.zero_grad()
            dist = ours.Categorical(logits=policy(states))
            actions = dist.sample()
            loss = -(dist.log_prob(actions) * (actions == 2)).mean() - 0.01 * dist.entropy().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        states = torch.ones(16, 3)
        return [step(states).item() for _ in range(6)], policy.weight.tolist()

    assert run(tg.compile) == run(lambda f: f)


@pytest.mark.parametrize("name", ["RelaxedOneHotCategorical", "RelaxedBernoulli"])
@pytest.mark.parametrize("given", ["probs", "logits"])
def test_relaxed_distributions_are_torchs(name, given):
    values = chances(2, 3) if given == "probs" else floats(2, 3)
    x = floats(4, 2, 3).softmax(-1) if name == "RelaxedOneHotCategorical" else chances(4, 2, 3)
    sides = []
    for lib, wrap in ((ours, tg.tensor), (theirs, torch.clone)):
        parameter, temperature = wrap(values).requires_grad_(), wrap(torch.tensor(0.7).double()).requires_grad_()
        made = getattr(lib, name)(temperature, **{given: parameter})
        density = made.log_prob(wrap(x))
        density.sum().backward()
        sides.append([density.detach(), parameter.grad, temperature.grad])
        assert (made.batch_shape, made.event_shape) == ((2,), (3,)) if "Hot" in name else ((2, 3), ())
    for a, b in zip(*sides, strict=True):
        torch.testing.assert_close(a.data, b, rtol=1e-10, atol=1e-12)


def test_relaxed_samples_have_the_moments_of_torchs():
    tg.manual_seed(0)
    torch.manual_seed(0)
    p = chances(3)
    for name in ("RelaxedOneHotCategorical", "RelaxedBernoulli"):
        samples = getattr(ours, name)(0.5, probs=tg.tensor(p, requires_grad=True)).rsample((20_000,))
        expected = getattr(theirs, name)(torch.tensor(0.5).double(), probs=p).sample((20_000,))
        assert samples.requires_grad
        assert (samples.data.detach().mean(0) - expected.mean(0)).abs().max() < 0.015  # four standard deviations
        assert (samples.data.detach().std(0) - expected.std(0)).abs().max() < 0.015


def test_the_straight_through_estimate():
    p, w = chances(2, 3), floats(2, 3)
    p = p / p.sum(-1, keepdim=True)
    mine, other = tg.tensor(p, requires_grad=True), p.clone().requires_grad_()
    sample = ours.OneHotCategoricalStraightThrough(probs=mine).rsample()
    assert torch.allclose(sample.data.detach().sort(-1).values, torch.tensor([0.0, 0.0, 1.0]).double())
    (sample * tg.tensor(w)).sum().backward()
    (theirs.OneHotCategoricalStraightThrough(probs=other).rsample() * w).sum().backward()
    torch.testing.assert_close(mine.grad.data, other.grad)


def test_a_distribution_that_a_script_writes():
    for lib, ops in ((ours, tg), (theirs, torch)):

        class Triangle(lib.Distribution):
            arg_constraints = {"low": lib.constraints.real, "high": lib.constraints.real}  # noqa: RUF012
            support = lib.constraints.real
            has_rsample = True

            def __init__(self, low, high, validate_args=None, lib=lib):
                self.low, self.high = lib.utils.broadcast_all(low, high)
                super().__init__(self.low.shape, validate_args=validate_args)

            @lib.utils.lazy_property
            def width(self):
                return self.high - self.low

            def rsample(self, sample_shape=()):
                shape = self._extended_shape(sample_shape)
                assert tuple(self._batch_shape + self._event_shape) == (2,)
                self._validate_sample(self.high)
                return self.low + self.width * ops.ones(shape)  # noqa: B023

        made = Triangle(0.0, ops.tensor([1.0, 3.0]))
        assert made.sample((2,)).tolist() == [[1.0, 3.0], [1.0, 3.0]]
        assert made.batch_shape == (2,)
    logits = floats(2, 3)
    for binary in (False, True):
        p = theirs.utils.logits_to_probs(logits, binary)
        assert torch.allclose(ours.utils.logits_to_probs(tg.tensor(logits), binary).data, p)
        expected = theirs.utils.probs_to_logits(p, binary)
        assert torch.allclose(ours.utils.probs_to_logits(tg.tensor(p), binary).data, expected)
