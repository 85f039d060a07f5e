"""Rows of the losses."""

# fmt: off
from __future__ import annotations

from typing import Any

import torch.nn.functional as F

import tapegrad as tg

from .spec import K0, K1, K, P, Q, R, Row, S, Sample, V, data, ints, uniform

NAN, INF = float("nan"), float("inf")
REDUCTIONS = ("mean", "sum", "none")
LogP = uniform(-3.0, -0.1)


def losses(left: Any, right: Any, *more: Sample, **kwargs: Any) -> list[Sample]:
    """Every reduction; a target of which no gradient is asked; 0-dim and empty tensors."""
    samples = [S(left(2, 3), right(2, 3), reduction=reduction, **kwargs) for reduction in REDUCTIONS]
    return [
        *samples, S(left(4), data(right(4)), **kwargs), S(left(), right(), **kwargs),
        S(left(0, 2), right(0, 2), reduction="sum", **kwargs), K(left(0), right(0), **kwargs), *more,
    ]


kinks = V([0.0, 1.0, -1.0, 2.0, 0.5])
zeros = data(V([0.0, 0.0, 0.0, 0.0, 0.0]))
labels = ints([2, 0, 1, 2])
dense = ints([[[0, 1], [2, 0]], [[1, 1], [2, 2]]])
huge = V([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, -1e4], [0.0, 1.0, 2.0]])


def classes(draw: Any) -> list[Sample]:
    """Class indices: reductions, weights, ignored targets, one sample, images, empty."""
    weight = data(P(3))
    return [
        *(S(draw(4, 3), labels, reduction=reduction) for reduction in REDUCTIONS),
        *(S(draw(4, 3), labels, weight, reduction=reduction) for reduction in REDUCTIONS),
        *(S(draw(4, 3), labels, weight, ignore_index=2, reduction=reduction) for reduction in REDUCTIONS),
        S(draw(4, 3), ints([2, -100, 1, -100])), K1(draw(2, 3), ints([-100, -100])), S(draw(3), ints(1)),
        S(draw(3), ints(1), weight, reduction="none"),
        S(draw(2, 3, 2, 2), dense), S(draw(2, 3, 2, 2), dense, weight, reduction="none"),
        S(draw(2, 3, 2, 2), dense, ignore_index=1, reduction="sum"), S(draw(0, 3), ints([]), reduction="sum"),
        K1(draw(0, 3), ints([])),
    ]


Probabilities = uniform(0.05, 0.6)
_CROSS_ENTROPY = [
    *classes(R), *(S(R(4, 3), labels, label_smoothing=0.2, reduction=reduction) for reduction in REDUCTIONS),
    *(
        S(
            R(4, 3), labels, data(P(3)), ignore_index=1, reduction=reduction, label_smoothing=0.1,
        ) for reduction in REDUCTIONS
    ),
    *(S(R(4, 3), Probabilities(4, 3), reduction=reduction) for reduction in REDUCTIONS),
    S(R(4, 3), Probabilities(4, 3), data(P(3)), label_smoothing=0.1), S(R(3), Probabilities(3)),
    S(R(2, 3, 2), Probabilities(2, 3, 2), data(P(3))),
    K(huge, labels), K(huge, labels, reduction="none"), K(huge, data(V([[0.2, 0.3, 0.5]] * 4))),
    S(R(2, 3, 2, 2), dense, label_smoothing=0.3), S(R(3), ints(1), label_smoothing=0.5),
    S(R(4, 3), data(Probabilities(4, 3)), reduction="sum"),
]

_LOGITS = [
    *losses(R, Q), *(S(R(2, 3), Q(2, 3), data(P(3)), reduction=reduction) for reduction in REDUCTIONS),
    S(R(2, 3), Q(2, 3), pos_weight=data(P(3))),
    S(R(2, 3), Q(2, 3), data(P(2, 1)), reduction="sum", pos_weight=data(P(3))),
    K(V([1e4, -1e4, 0.0, 1e4]), data(V([0.0, 1.0, 0.5, 1.0]))),
    K(V([1e4, -1e4, 0.0]), data(V([0.0, 1.0, 1.0])), pos_weight=data(V([2.0])), reduction="none"),
]
_BCE = [
    *losses(Q, Q), *(S(Q(2, 3), Q(2, 3), data(P(3)), reduction=reduction) for reduction in REDUCTIONS),
    S(Q(2, 3), data(Q(2, 3)), data(P(2, 3))),
    K1(V([0.0, 1.0, 0.0, 1.0]), data(V([0.0, 1.0, 1.0, 0.0])), reduction="none"),
    K1(V([0.0, 1.0]), data(V([1.0, 0.0]))),
]

_labels, _row = ints([[1, 2, 2], [3, 1, 0]]), ints([1, 2, 2, 3])
_CTC = [
    S(R(6, 2, 4), _labels, ints([6, 4]), ints([3, 2])), S(R(6, 2, 4), _row, (6, 5), (3, 1), reduction="none"),
    S(R(5, 2, 4), ints([[1, 2], [2, 0]]), (5, 3), (0, 1), 3, "sum"), S(R(6, 4), ints([1, 2, 2]), ints(6), ints(3)),
    S(R(6, 2, 4), _labels, ints([3, 6]), ints([3, 2]), zero_infinity=True), S(R(1, 1, 1), ints([]), (1,), (0,)),
    S(R(6, 2, 4), _row, (0, 6), (3, 1), 0, "sum", True), K0(R(6, 2, 4), _labels, ints([3, 6]), ints([3, 2])),
    K0(R(6, 2, 4), _row, (0, 0), (3, 1), 0, "none"),
]

rows = [
    Row("mse_loss", losses(R, R, K(kinks, zeros)), family="loss", exact=False),
    Row("l1_loss", losses(R, R, K(kinks, zeros)), family="loss", exact=False),
    Row(
        "smooth_l1_loss",
        [
            *losses(R, R, K(kinks, zeros)), *losses(R, R, beta=0.5), K(kinks, zeros, beta=0.5),
            K(kinks, zeros, beta=0.0), K(kinks, zeros, reduction="none", beta=2.0),
        ],
        family="loss", exact=False,
    ),
    Row(
        "huber_loss",
        [
            *losses(R, R, K(kinks, zeros)), *losses(R, R, delta=0.5), K(kinks, zeros, delta=0.5),
            K(kinks, zeros, "none", 2.0),
        ],
        family="loss", exact=False, ops=("huber",),
    ),
    Row("nll_loss", classes(LogP), exact=False, reference=F.nll_loss),
    Row("cross_entropy", _CROSS_ENTROPY, exact=False),
    Row(
        "ctc_loss", _CTC, reference=lambda x, *a, **k: F.ctc_loss(x.log_softmax(-1), *a, **k), exact=False,
        call=lambda x, *a, **k: tg.ctc_loss(tg.log_softmax(x, -1), *a, **k), method=False,
    ),
    Row("binary_cross_entropy", _BCE, exact=False, ops=("bce",)),
    Row("binary_cross_entropy_with_logits", _LOGITS, exact=False),
    Row("kl_div", [
        *losses(LogP, Q), *losses(LogP, LogP, log_target=True), S(LogP(2, 3), Q(2, 3), reduction="batchmean"),
        S(LogP(2, 3), LogP(2, 3), reduction="batchmean", log_target=True),
        K(LogP(3), data(V([0.0, 0.5, 0.5]))), K(LogP(3), data(V([0.0, 0.5, 0.5])), reduction="none"),
    ], reference=F.kl_div, exact=False, ops=("xlogy",)),
]
