"""CTC beyond the tables: no labels, a blank as label, no alignment, compiled steps, threads, wrong arguments."""

import pytest
import torch
from layers import floats

import tapegrad as tg
from tapegrad import nn

F = nn.functional


def logits(*shape: int, seed: int = 0) -> tg.Tensor:
    return tg.tensor(floats(*shape, seed=seed), requires_grad=True)


def test_without_labels_every_step_is_blank():
    x = logits(4, 1, 3)
    F.ctc_loss(x.log_softmax(2), torch.zeros(1, 2, dtype=torch.int64), [4], [0], reduction="sum").backward()
    expected = x.data.softmax(2) - torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(x.grad.data, expected, rtol=1e-12, atol=1e-12)


def test_a_blank_among_the_labels_counts_as_one():
    """torch's gradient halves the last step there (2.13); finite differences do not."""
    x, target = logits(5, 1, 3), torch.tensor([[1, 0]])
    assert tg.gradcheck(lambda x: F.ctc_loss(x.log_softmax(2), target, [5], [2]), [x])


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_a_sequence_too_short_for_its_labels_has_torchs_loss_and_gradient(zero_infinity):
    target, lengths, sizes = torch.tensor([[1, 1, 2], [1, 2, 0]]), (3, 5), (3, 2)
    x = floats(5, 2, 4).log_softmax(2)
    ours, theirs = tg.tensor(x, requires_grad=True), x.clone().requires_grad_()
    for leaf, module in ((ours, F), (theirs, torch.nn.functional)):
        loss = module.ctc_loss(leaf, target, lengths, sizes, 0, "sum", zero_infinity)
        loss.backward()
        assert loss.isinf().item() is not zero_infinity
    torch.testing.assert_close(ours.grad.data, theirs.grad, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_a_compiled_step_reads_targets_and_lengths_anew():
    results = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = nn.Linear(3, 5)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, target, lengths, sizes, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.ctc_loss(model(x).log_softmax(2), target, lengths, sizes)
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step) if compiled else step
        losses = []
        for i in range(6):
            draw = torch.Generator().manual_seed(i)
            target = torch.randint(1, 5, (2, 3), generator=draw)
            lengths, sizes = (torch.randint(*span, (2,), generator=draw) for span in ((6, 9), (1, 4)))
            losses.append(run(floats(8, 2, 3, seed=i).float(), target, lengths, sizes).item())
        if compiled:
            assert run.programs
            with pytest.raises(tg.ShapeError, match=r"input_lengths\[1\] must lie between 0 and T = 8, is 9"):
                run(floats(8, 2, 3).float(), target, torch.tensor([8, 9]), sizes)
        results.append((losses, model.weight.data.clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_any_number_of_threads_gives_the_same_bits():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = tg.tensor(floats(60, 16, 20).float(), requires_grad=True)
            target = torch.arange(16 * 20).reshape(16, 20) % 19 + 1
            loss = F.ctc_loss(x.log_softmax(2), target, [60] * 16, [20] * 16)
            loss.backward()
            results.append((loss.data, x.grad.data))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_wrong_arguments_are_named():
    x, y = torch.zeros(5, 2, 4), torch.tensor([[1, 2], [3, 1]])
    for args, kwargs, error, message in (
        ((x, y, [5, 6], [2, 2]), {}, tg.ShapeError, r"input_lengths\[1\] must lie between 0 and T = 5, is 6"),
        ((x, y, [5, 5], [2, 3]), {}, tg.ShapeError, r"target_lengths\[1\] must lie between 0 and 2, is 3"),
        ((x, y[0], [5, 5], [2, 1]), {}, tg.ShapeError, r"target_lengths\[1\] must lie between 0 and 0, is 1"),
        ((x, y[0], [5, 5], [0, 1]), {}, tg.ShapeError, r"must add up to targets.shape\[0\] = 2; they are 1"),
        ((x, y + 1, [5, 5], [2, 2]), {}, tg.ShapeError, r"targets must be classes from 0 to 3, one is 4"),
        ((x, y, [5], [2, 2]), {}, tg.ShapeError, r"input_lengths must have N = 2 elements"),
        ((x, y[:1], [5, 5], [2, 2]), {}, tg.ShapeError, r"targets must have shape \[N, S\]"),
        ((x, y, [5, 5], [2, 2], 4), {}, tg.ShapeError, r"blank must be a class from 0 to 3, is 4"),
        ((x, y.double(), [5, 5], [2, 2]), {}, tg.DTypeError, "targets must be a tensor of integers"),
        ((x, y, [5.0, 5.0], [2, 2]), {}, tg.DTypeError, "input_lengths must hold integers"),
        ((x[0, 0], y, [5, 5], [2, 2]), {}, tg.ShapeError, r"log_probs must have shape \[T, N, C\] or \[T, C\]"),
        ((x, y, [5, 5], [2, 2]), {"reduction": "max"}, tg.ArgumentError, "reduction must be"),
    ):
        with pytest.raises(error, match=rf"ctc_loss: .*{message}"):
            F.ctc_loss(*args, **kwargs)
