"""Tables of vectors that are given, and dicts of parameters, beside torch's."""

import pytest
import torch

import tapegrad as tg

ROWS = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("layer", ["Embedding", "EmbeddingBag"])
@pytest.mark.parametrize("freeze", [True, False])
def test_a_table_is_given(layer, freeze):
    options = {"padding_idx": 1} if layer == "Embedding" else {"mode": "sum", "padding_idx": 1}
    index = torch.tensor([[0, 2], [1, 2]])
    ours = getattr(tg.nn, layer).from_pretrained(tg.tensor(ROWS), freeze, **options)
    theirs = getattr(torch.nn, layer).from_pretrained(ROWS, freeze, **options)
    assert torch.equal(ours(tg.tensor(index)).data, theirs(index).detach())
    assert ours.weight.requires_grad is theirs.weight.requires_grad is not freeze
    assert torch.equal(getattr(tg.nn, layer)(3, 2, _weight=ROWS).weight.data, ROWS)
    with pytest.raises(tg.ShapeError, match=rf"{layer}: _weight must have shape \[4, 2\]; got \[3, 2\]"):
        getattr(tg.nn, layer)(4, 2, _weight=ROWS)
    with pytest.raises(tg.ShapeError, match="from_pretrained: embeddings"):
        getattr(tg.nn, layer).from_pretrained(ROWS[0])


def test_a_dict_of_parameters_is_a_dict():
    sides = []
    for lib in (tg, torch):
        d = lib.nn.ParameterDict({"a": lib.ones(1)})
        assert d.setdefault("b", lib.zeros(2)) is d["b"]
        both, other = d | {"c": lib.ones(3)}, {"z": lib.ones(1), "a": lib.zeros(1)} | d
        same = d.copy()
        assert same["a"] is d["a"]
        assert same is not d
        key, value = same.popitem()
        d |= {"e": lib.ones(4)}
        sides.append([list(both), list(other), other["a"].tolist(), key, value.tolist(), list(same), list(d)])
        sides[-1] += [list(reversed(d)), list(d.fromkeys(["x"], lib.ones(1)))]
        assert "(b): Parameter containing: [" in repr(d)
    assert sides[0] == sides[1]
    with pytest.raises(KeyError):
        tg.nn.ParameterDict().popitem()
