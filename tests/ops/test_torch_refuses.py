"""What torch refuses is refused, by name; each call is run with torch's library too."""

import pytest
import torch

import tapegrad as tg

X = torch.linspace(-1, 1, 12).reshape(4, 3)
PLANE = torch.arange(32.0).reshape(1, 2, 4, 4)
PROBABILITIES = X.softmax(1)
LABELS = torch.tensor([0, 2, 1, 0])

# name: (f(nn), what the message begins with); nn is torch.nn or tg.nn
REFUSED = {
    "integers for a condition": (
        lambda nn: (torch if nn is torch.nn else tg).where(LABELS, X[:, 0], X[:, 1]),
        "where: condition must be bool; got torch.int64",
    ),
    "BatchNorm1d(eps=-1) in training": (lambda nn: nn.BatchNorm1d(3, eps=-1)(X), "batch_norm: eps must be positive"),
    "BatchNorm1d(eps=0) in training": (lambda nn: nn.BatchNorm1d(3, eps=0.0)(X), "batch_norm: eps must be positive"),
    "BatchNorm2d(eps=-1) in training": (lambda nn: nn.BatchNorm2d(2, eps=-1.0)(PLANE), "batch_norm: eps must be pos"),
    "BatchNorm1d(eps=-1) evaluated": (lambda nn: nn.BatchNorm1d(3, eps=-1).eval()(X), "batch_norm: eps must be at"),
    "batch_norm without statistics": (
        lambda nn: nn.BatchNorm1d(3, eps=0.0, track_running_stats=False).eval()(X),
        "batch_norm: eps must be positive",
    ),
    "ignore_index with probabilities": (
        lambda nn: nn.functional.cross_entropy(X, PROBABILITIES, ignore_index=1),
        "cross_entropy: ignore_index goes with class indices",
    ),
    "CrossEntropyLoss(ignore_index=0) with probabilities": (
        lambda nn: nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)(X, PROBABILITIES),
        "cross_entropy: ignore_index goes with class indices",
    ),
    "a dilated window larger than the input": (
        lambda nn: nn.functional.max_pool2d(PLANE, 3, dilation=2),
        "max_pool2d: rows: a window of extent 5 does not fit into 4",
    ),
    "the same, rounded up": (
        lambda nn: nn.functional.max_pool2d(PLANE, (1, 2), 5, dilation=(1, 9), ceil_mode=True),
        "max_pool2d: columns: a window of extent 10 does not fit",
    ),
    "the same, of a sequence": (
        lambda nn: nn.functional.max_pool1d(PLANE[0], 3, dilation=2),
        "max_pool2d: columns: a window of extent 5 does not fit",
    ),
    "padding beyond half a window": (lambda nn: nn.functional.max_pool2d(PLANE, 2, padding=2), "max_pool2d: rows: pad"),
    "a bool for a window": (lambda nn: nn.functional.avg_pool2d(PLANE, True), "avg_pool2d: kernel_size must be an int"),
    "three sizes for a plane": (lambda nn: nn.functional.max_pool2d(PLANE, (1, 2, 3)), "max_pool2d: kernel_size must"),
    "three sizes of a result": (lambda nn: nn.AdaptiveAvgPool2d((1, 2, 3))(PLANE), "adaptive_avg_pool2d: output_size"),
    "one size of a result in a tuple": (lambda nn: nn.AdaptiveAvgPool2d((1,))(PLANE), "adaptive_avg_pool2d: output_s"),
    "a margin of 0": (lambda nn: nn.functional.triplet_margin_loss(X, X, X, margin=0.0), "triplet_margin_with_distan"),
    "an anchor of other dimensions": (lambda nn: nn.functional.triplet_margin_loss(X, X[0], X), "triplet_margin_with"),
    "integers for probabilities": (
        lambda nn: nn.functional.kl_div(X, (X > 0).long(), reduction="sum"),
        "kl_div: target must hold fl",
    ),
    "a pos_weight of another width": (
        lambda nn: nn.functional.binary_cross_entropy_with_logits(X, PROBABILITIES, pos_weight=torch.ones(7)),
        "mul: ",
    ),
    "an index beyond a renormed table": (
        lambda nn: nn.functional.embedding(torch.tensor([9]), X.clone(), max_norm=1.0),
        r"embedding: indices must lie in \[0, 4\)",
    ),
    "halves along no dimension": (lambda nn: nn.functional.glu(PLANE, 4), "glu: the input's extent along dim = 4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_refuses_is_refused_by_name(name):
    call, message = REFUSED[name]
    with pytest.raises((ValueError, RuntimeError, TypeError, IndexError)):
        call(torch.nn)
    with pytest.raises((tg.TapegradError, TypeError), match=f"^{message}"):
        call(tg.nn)


def test_a_window_that_reads_padding_only_is_refused():
    """torch answers -inf with an index outside the input, and its backward writes there."""
    for size, options in (
        ((1, 1), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2}),
        ((5, 1), {"kernel_size": 2, "stride": 5, "padding": 1, "dilation": (1, 2), "ceil_mode": True}),
        ((2, 2), {"kernel_size": 2, "padding": 1, "dilation": 3}),
    ):
        with pytest.raises(tg.ShapeError, match=r"max_pool2d: .*reads padding only"):
            tg.nn.functional.max_pool2d(torch.ones(1, 1, *size), **options)
    x = tg.tensor(torch.ones(1, 1, 3, 3), requires_grad=True)
    tg.nn.functional.max_pool2d(x, 2, 1, 1, 2).sum().backward()  # every window reads an element
    assert x.grad.sum() == 9


def test_a_negative_ignore_index_leaves_probabilities_alone():
    expected = torch.nn.functional.cross_entropy(X, PROBABILITIES, ignore_index=-1)
    assert torch.allclose(tg.nn.functional.cross_entropy(X, PROBABILITIES, ignore_index=-1).data, expected)


def test_a_window_given_as_a_tuple_of_one():
    for layer in ("MaxPool2d", "AvgPool2d"):
        made = [getattr(nn, layer)((2,), stride=(1,), padding=(1,)) for nn in (tg.nn, torch.nn)]
        assert torch.equal(made[0](PLANE).data, made[1](PLANE))


def test_a_target_that_is_neither_1_nor_minus_1_counts_twice():
    x, y = X.flatten(), torch.tensor([1.0, -1.0, 0.5] * 4)
    expected = torch.nn.functional.hinge_embedding_loss(x, y, reduction="none")
    assert torch.allclose(tg.nn.functional.hinge_embedding_loss(x, y, reduction="none").data, expected)
