"""A long tape costs Python's garbage collector nothing, and no cycle through it is missed."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

import tapegrad as tg


@pytest.fixture(autouse=True)
def quiet():
    """No collection but those a test asks for, and those of little but its own objects."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def leaf(*values):
    return tg.tensor(values or (1.0, 2.0), requires_grad=True)


def chain(y, n):
    for _ in range(n):
        y = tg.tanh(y * 1.0001 + 0.1) * y
    return y


# --- out of sight ------------------------------------------------------------------------------------------------


def test_the_collector_sees_no_more_objects_of_a_longer_tape():
    x = leaf()
    y = chain(x, 3)
    before = len(gc.get_objects())
    y = chain(y, 500)
    assert len(gc.get_objects()) - before <= 10
    y.sum().backward()
    assert x.grad is not None


def test_what_others_hold_of_a_tape_is_seen_again_when_the_tape_goes():
    raw = torch.ones(2)
    x, w = tg.Tensor(raw), leaf()
    kept = x.data
    (x * w).sum().backward()  # saves x, and releases it
    assert gc.is_tracked(kept)
    y = x * w
    assert not gc.is_tracked(kept)
    del y
    assert gc.is_tracked(kept)
    assert gc.is_tracked(w.data)


def test_a_full_collection_leaves_a_tape_as_it_was():
    x = leaf(0.3, -0.2)
    expected = tg.grad(chain(x, 50).sum(), x)[0].data
    y = chain(x, 25)
    for generation in (0, 1, 2, 2):
        gc.collect(generation)
    before = len(gc.get_objects())
    y = chain(y, 25)
    assert len(gc.get_objects()) - before <= 10
    assert torch.equal(tg.grad(y.sum(), x)[0].data, expected)


def test_deep_tapes_are_freed_without_recursion_and_without_the_collector():
    x = leaf()
    y = chain(x, 40_000)
    last = weakref.ref(y)
    held = weakref.ref(y.data)
    del y
    assert last() is None
    assert held() is None


# --- no cycle is missed ------------------------------------------------------------------------------------------

# each ties a value of a tape to itself and returns what nobody holds afterwards


def hook_holds_its_own_value():
    y = leaf() * 2
    y.register_hook(lambda g: [y].clear())
    return y


def hook_holds_a_value_that_exists_already():
    y = leaf() * 2
    z = chain(y, 5)
    y.register_hook(lambda g: [z].clear())
    return z


def hook_comes_to_hold_a_later_value():
    y, later = leaf() * 2, []
    y.register_hook(lambda g: [later].clear())
    later.append(chain(y, 5))
    return later[0]


def hook_of_a_leaf_holds_a_later_value():
    x, later = leaf(), []
    x.register_hook(lambda g: [later].clear())
    later.append(chain(x, 5))
    return later[0]


def hook_of_one_output_of_several():
    first, second = tg.split(leaf(), 1)
    second.register_hook(lambda g: [z].clear())
    z = chain(first, 3) + second
    return z


def gradient_that_can_be_differentiated():
    x = leaf()
    (x**3).sum().backward(create_graph=True)
    return x.grad


def gradient_assigned():
    x = leaf()
    x.grad = x * 2
    return x.grad


class Holder:
    """A parameter of a user's op."""

    value = None


@tg.op(x=lambda g, x: g)
def keeping(x, holder: Holder):
    return x * 1


def parameter_holds_the_output():
    holder = Holder()
    holder.value = chain(keeping(leaf() * 2, holder), 5)
    return holder.value


def recomputation_holds_its_output():
    holder = Holder()

    def f(x):
        return x * 2 if holder else x

    holder.value = tg.checkpoint(f, leaf())
    return holder.value


def held_tape():
    with tg.Tape() as tape:
        y = leaf() * 2
    y.register_hook(lambda g: [tape, y].clear())
    return y


YOUNG = [
    hook_holds_its_own_value,
    hook_holds_a_value_that_exists_already,
    hook_comes_to_hold_a_later_value,
    hook_of_a_leaf_holds_a_later_value,
    hook_of_one_output_of_several,
    gradient_that_can_be_differentiated,
    gradient_assigned,
    parameter_holds_the_output,
    recomputation_holds_its_output,
    held_tape,
]


@pytest.mark.parametrize("tie", YOUNG, ids=lambda f: f.__name__)
def test_a_cycle_through_a_tape_goes_with_the_youngest_generation(tie):
    value = weakref.ref(tie())
    assert value() is not None
    gc.collect(0)
    assert value() is None


def attribute_of_a_raw_tensor():
    y = chain(leaf(), 2)
    y.data.owner = chain(y, 2)
    return y.data.owner


def list_among_the_parameters():
    dims = [0]
    y = (leaf() * 2).sum(dims)
    dims.append(chain(y, 2))
    return dims[1]


@pytest.mark.parametrize("tie", [attribute_of_a_raw_tensor, list_among_the_parameters], ids=lambda f: f.__name__)
def test_any_other_cycle_goes_with_a_full_collection(tie):
    value = weakref.ref(tie())
    assert value() is not None
    gc.collect()
    assert value() is None


def test_what_is_still_held_survives_every_collection():
    """Of each kind of tie, with the value held: it still differentiates, and goes once nobody holds it."""
    for tie in YOUNG:
        value = tie()
        for generation in (0, 2, 1, 2):
            gc.collect(generation)
        if value.requires_grad:
            value.sum().backward()
        watched = weakref.ref(value)
        del value
        gc.collect()
        assert watched() is None, tie.__name__


def test_collections_while_threads_record_and_differentiate():
    x = leaf(0.3, -0.2)
    expected = tg.grad(chain(x, 30).sum(), x)[0].data
    found, done = [], threading.Event()

    def work():
        for _ in range(10):
            y = chain(x, 30)
            y.register_hook(lambda g: None)
            found.append(tg.grad(y.sum(), x)[0].data)

    def collect():
        while not done.wait(0.01):
            gc.collect()

    threads = [threading.Thread(target=work) for _ in range(3)]
    collector = threading.Thread(target=collect)
    for thread in (*threads, collector):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    collector.join()
    assert len(found) == 30
    assert all(torch.equal(g, expected) for g in found)
