"""Encoders and decoders against torch's, with masks; what attention does where nothing is to be seen."""

import numpy as np
import pytest
import torch
from layers import floats

import tapegrad as tg
from tapegrad import nn

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's advice on its own speed

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def same(ours, theirs):
    torch.testing.assert_close(ours.data, theirs.detach(), **TOLERANCE)


def stack(package, kind, norm_first):
    layer = getattr(package, f"Transformer{kind}Layer")(6, 2, 5, 0.0, "gelu", norm_first=norm_first)
    return getattr(package, f"Transformer{kind}")(layer, 2, package.LayerNorm(6)).double()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_stacks_are_torchs(kind, norm_first):
    ours, theirs = stack(nn, kind, norm_first), stack(torch.nn, kind, norm_first)
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    start = list(ours.state_dict().items())
    assert torch.equal(start[0][1].data, dict(start)["layers.1.self_attn.in_proj_weight"].data)  # copies, as in torch
    ours.load_state_dict(theirs.state_dict())
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=tg.float64)
    assert torch.equal(causal.data, torch.nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64))
    padding = torch.zeros(3, 4, dtype=torch.float64)
    padding[1, 3:] = -torch.inf
    inputs = [floats(4, 3, 6), floats(5, 3, 6, seed=1)][: 1 if kind == "Encoder" else 2]
    masks = {"mask": causal, "src_key_padding_mask": padding, "is_causal": True}
    if kind == "Decoder":
        masks = {
            "tgt_mask": causal,
            "tgt_key_padding_mask": padding,
            "tgt_is_causal": True,
            "memory_mask": floats(4, 5),
        }
    xs = [tg.tensor(x, requires_grad=True) for x in inputs]
    ts = [x.clone().requires_grad_() for x in inputs]
    y = ours(*xs, **masks)
    t = theirs(*ts, **{k: v.data if isinstance(v, tg.Tensor) else v for k, v in masks.items()})
    same(y, t)
    g = floats(*t.shape, seed=3)
    y.backward(g)
    t.backward(g)
    for x, reference in zip([*xs, *ours.parameters()], [*ts, *theirs.parameters()], strict=True):
        same(x.grad, reference.grad)


def test_a_transformer_takes_all_masks():
    ours, theirs = (p.Transformer(6, 2, 1, 1, 5, batch_first=True).double().eval() for p in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    src, tgt = floats(3, 5, 6), floats(3, 4, 6, seed=1)
    hidden = [torch.zeros(3, n, dtype=torch.bool) for n in (5, 4, 5)]
    for i, mask in enumerate(hidden):
        mask[i, 2:] = True
    causal = [torch.ones(n, m, dtype=torch.bool).triu(1) for n, m in ((5, 5), (4, 4), (4, 5))]
    same(ours(tg.tensor(src), tg.tensor(tgt), *causal, *hidden), theirs(src, tgt, *causal, *hidden))


def test_custom_parts_are_called_and_initial_values_are_torchs():
    tg.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 400)
    model = nn.Transformer(8, 2, 1, 1, 400, custom_encoder=nn.TransformerEncoder(layer, 1))
    weight = model.encoder.layers[0].linear1.weight.data
    assert weight.abs().max().item() == pytest.approx(np.sqrt(6 / 408), rel=0.01)  # xavier, not Linear's 1 / sqrt(8)


def test_dropout_is_drawn_in_training_only_and_steps_compile():
    tg.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 5, 0.5), 2)
    x = tg.tensor(floats(4, 3, 6).float())
    assert not torch.equal(model(x).data, model(x).data)
    mask = nn.Transformer.generate_square_subsequent_mask(4)

    def step(x):
        model.zero_grad()
        loss = (model(x, mask) ** 2 * x).sum()
        loss.backward()
        return loss

    compiled, losses, grads = tg.compile(step), [], []
    for f in (step, compiled, compiled, compiled, compiled):
        tg.manual_seed(1)
        losses.append(f(x).item())
        grads.append([p.grad.data.clone() for p in model.parameters()])
    assert losses == [losses[0]] * 5
    assert all(torch.equal(a, b) for other in grads for a, b in zip(grads[0], other, strict=True))
    model.eval()
    assert torch.equal(model(x).data, model(x).data)


def test_a_query_that_sees_nothing_gets_what_torch_gives():
    ours, theirs = (p.MultiheadAttention(6, 2).double() for p in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x, hidden = floats(4, 3, 6), torch.tensor([[False] * 4, [True] * 4, [False] * 4])
    for weights in (True, False):  # NaN, then zeros before the last projection
        y, t = ours(*[tg.tensor(x)] * 3, hidden, weights)[0], theirs(x, x, x, hidden, weights)[0]
        torch.testing.assert_close(y.data, t.detach(), equal_nan=True, **TOLERANCE)


@pytest.mark.parametrize("weights", [True, False])
def test_a_learned_mask_gets_its_gradient(weights):
    ours, theirs = (p.MultiheadAttention(6, 2).double() for p in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x, mask = floats(4, 3, 6), floats(6, 4, 4)
    a, b = tg.tensor(mask, requires_grad=True), mask.clone().requires_grad_()
    (ours(*[tg.tensor(x)] * 3, need_weights=weights, attn_mask=a)[0] ** 2).sum().backward()
    (theirs(x, x, x, need_weights=weights, attn_mask=b)[0] ** 2).sum().backward()
    same(a.grad, b.grad)


def test_wrong_arguments_are_named():
    with pytest.raises(tg.ArgumentError, match="TransformerEncoderLayer: activation must be one of 'relu', 'gelu'"):
        nn.TransformerEncoderLayer(6, 2, activation="tanh")
    with pytest.raises(tg.ShapeError, match="Transformer: src and tgt must have one batch size and 6 features"):
        nn.Transformer(6, 2, 1, 1, 5)(tg.zeros(4, 3, 6), tg.zeros(4, 2, 6))
