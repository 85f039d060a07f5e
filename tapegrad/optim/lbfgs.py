"""L-BFGS with a strong Wolfe line search; torch's trajectory, bit for bit.

g is the gradient and d the direction, both as one flat vector of all parameters; t is the step along d.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from ..core import ArgumentError, StateError, Tensor, enable_grad, raw
from ..nn.checks import one_of, require
from .hooks import loading, saving, stepping
from .kernels import number
from .optimizer import Optimizer

C1, C2 = 1e-4, 0.9  # the Wolfe conditions' constants: enough decrease, enough curvature
_CURVATURE = 1e-10  # y.s of a pair that is kept
_TOLERANCE = 1e-9  # the largest change of a parameter within a bracket that is not looked into any more
_GROWTH = 10  # of a step for which no bracket is found yet


class _Point(NamedTuple):
    """A point of the line: its step, the loss, the gradient, and the slope along d."""

    t: Any
    f: float
    g: torch.Tensor
    slope: torch.Tensor


def _minimum(a: _Point, b: _Point, bounds: tuple[Any, Any] | None = None) -> Any:
    """The step at the minimum of the cubic through two points, within the bounds; their middle where it has none."""
    least, most = bounds or ((a.t, b.t) if a.t <= b.t else (b.t, a.t))
    d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (least + most) / 2.0
    d2 = square.sqrt()
    if a.t <= b.t:
        t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    else:
        t = a.t - (a.t - b.t) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2 * d2))
    return min(max(t, least), most)


def _strong_wolfe(
    look: Callable[[Any], _Point], t: Any, start: _Point, length: torch.Tensor, most: int
) -> tuple[_Point, int]:
    """A step that satisfies the strong Wolfe conditions, and how often `look` was called to find it.

    Source: Nocedal and Wright, Numerical optimization (2006), algorithms 3.5 and 3.6.
    """
    before, now = start, look(t)
    looks, done, bracket = 1, False, [start]
    for turn in range(most):
        if now.f > start.f + C1 * now.t * start.slope or (turn > 1 and now.f >= before.f):
            bracket = [before, now]
        elif abs(now.slope) <= -C2 * start.slope:
            bracket, done = [now], True
        elif now.slope >= 0:
            bracket = [before, now]
        else:
            bounds = now.t + 0.01 * (now.t - before.t), now.t * _GROWTH
            before, now = now, look(_minimum(before, now, bounds))
            looks += 1
            continue
        break
    else:
        turn, bracket = most, [start._replace(t=0), now]

    stuck = False  # the last step was close to an end of the bracket
    low, high = (0, 1) if bracket[0].f <= bracket[-1].f else (1, 0)
    while not done and turn < most:
        if abs(bracket[1].t - bracket[0].t) * length < _TOLERANCE:
            break
        t = _minimum(bracket[0], bracket[1])
        first, last = min(bracket[0].t, bracket[1].t), max(bracket[0].t, bracket[1].t)
        margin = 0.1 * (last - first)
        if min(last - t, t - first) < margin:
            if stuck or t >= last or t <= first:
                t = last - margin if abs(t - last) < abs(t - first) else first + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        now = look(t)
        looks += 1
        turn += 1
        if now.f > start.f + C1 * now.t * start.slope or now.f >= bracket[low].f:
            bracket[high] = now
            low, high = (0, 1) if bracket[0].f <= bracket[1].f else (1, 0)
        else:
            if abs(now.slope) <= -C2 * start.slope:
                done = True
            elif now.slope * (bracket[high].t - bracket[low].t) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = now
    return bracket[low], looks


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` changes of parameters and gradients.

    ``step(closure)`` calls the closure several times; it clears the gradients, computes the loss, calls ``backward``
    and returns the loss. It may be a compiled step. There is one group of parameters.

    Parameters
    ----------
    params : tensors to update
    lr : step length (default 1)
    max_iter : iterations of one call of ``step`` (default 20)
    max_eval : calls of the closure in one call of ``step`` (default 1.25 ``max_iter``)
    tolerance_grad : done when no element of the gradient exceeds it (default 1e-7)
    tolerance_change : done when neither loss nor parameters change by more (default 1e-9)
    history_size : changes that are kept (default 100), each twice the parameters' size
    line_search_fn : None (default: steps of length ``lr``) or "strong_wolfe"

    Source: Liu and Nocedal, On the limited memory BFGS method for large scale optimization (1989).
    """

    walked = ("param_groups",)  # what a compiled closure may depend on: `step` changes its numbers at every call

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused for a second group: the direction is one of all parameters together."""
        if self.param_groups:
            raise ArgumentError("LBFGS: params must be one group; it has no options per parameter")
        super().add_param_group(param_group)

    def _check(self, group: Mapping[str, Any]) -> None:
        require(number(group["lr"]) >= 0, "LBFGS", "lr", "not be negative", group["lr"])
        one_of(group["line_search_fn"], (None, "strong_wolfe"), "LBFGS", "line_search_fn")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ()

    @property
    def _params(self) -> list[Tensor]:
        params: list[Tensor] = self.param_groups[0]["params"]
        return params

    def _gradient(self) -> torch.Tensor:
        grads = [(p.data, p.grad) for p in self._params]
        return torch.cat([(torch.zeros_like(p) if g is None else g.data).reshape(-1) for p, g in grads])

    def _move(self, t: Any, d: torch.Tensor) -> None:
        """``p <- p + t d``."""
        begin = 0
        for p in self._params:
            p.data.add_(d[begin : begin + p.numel()].view(p.shape), alpha=t)
            begin += p.numel()

    def _search(
        self, closure: Callable[[], Any], t: Any, d: torch.Tensor, here: _Point, most: int
    ) -> tuple[_Point, int]:
        """A line search from here; the parameters are afterwards where they were."""
        where = [p.data.clone() for p in self._params]

        def look(t: Any) -> _Point:
            self._move(t, d)
            loss = float(closure())
            g = self._gradient()
            for p, value in zip(self._params, where, strict=True):
                p.data.copy_(value)
            return _Point(t, loss, g, g.dot(d))

        return _strong_wolfe(look, t, here, d.abs().max(), most)

    @stepping
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to ``max_iter`` iterations; returns the loss at the start, as the closure gave it."""
        if closure is None:
            raise ArgumentError("LBFGS: step needs a closure that computes the loss and its gradients; got None")
        with enable_grad():
            return self._iterate(closure)

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        lr, max_iter, max_eval = number(group["lr"]), group["max_iter"], group["max_eval"]
        tolerance = group["tolerance_change"]
        state: dict[str, Any] = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        first = closure()
        loss, g = float(first), self._gradient()
        evaluations = 1
        state["func_evals"] += 1
        if g.abs().max() <= group["tolerance_grad"]:
            return first
        for i in range(1, max_iter + 1):
            state["n_iter"] += 1
            d = self._direction(state, g, group["history_size"])
            state["d"], state["prev_flat_grad"], state["prev_loss"] = d, g.clone(), loss
            t: Any = lr
            if state["n_iter"] == 1 and not g.abs().sum() <= 1:
                t = 1.0 / g.abs().sum() * lr
            state["t"] = t
            slope = g.dot(d)
            if slope > -tolerance:
                break
            before, calls = loss, 0
            if group["line_search_fn"] is not None:
                here = _Point(0, loss, g, slope)
                (t, loss, g, _), calls = self._search(closure, t, d, here, max_eval - evaluations)
                state["t"] = t
                self._move(t, d)
            else:
                self._move(t, d)
                if i != max_iter:  # the next step's closure would compute the same
                    loss, g, calls = float(closure()), self._gradient(), 1
            evaluations += calls
            state["func_evals"] += calls
            if i == max_iter or evaluations >= max_eval or g.abs().max() <= group["tolerance_grad"]:
                break
            if d.mul(t).abs().max() <= tolerance or abs(loss - before) < tolerance:
                break
        self._calls.count()
        return first

    def _direction(self, state: dict[str, Any], g: torch.Tensor, history: int) -> torch.Tensor:
        """The two-loop recursion: -H g with the inverse Hessian H of the changes kept so far."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return g.neg()
        ys, ss, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = g.sub(state["prev_flat_grad"]), state["d"].mul(state["t"])
        curvature = y.dot(s)
        if curvature > _CURVATURE:
            for kept, new in ((ys, y), (ss, s), (ro, 1.0 / curvature)):
                if len(kept) == history:
                    kept.pop(0)
                kept.append(new)
            state["H_diag"] = curvature / y.dot(y)
        count = len(ys)
        al = state.setdefault("al", [None] * history)
        q = g.neg()
        for i in range(count - 1, -1, -1):
            al[i] = ss[i].dot(q) * ro[i]
            q.add_(ys[i], alpha=-al[i])
        r = torch.mul(q, state["H_diag"])
        for i in range(count):
            r.add_(ss[i], alpha=al[i] - ys[i].dot(r) * ro[i])
        return r

    @saving
    def state_dict(self) -> dict[str, Any]:
        """torch's layout: the one state, of vectors of all parameters, stands at the first parameter."""
        group = {key: value for key, value in self.param_groups[0].items() if key != "params"}
        state = self.state[self._params[0]]
        return {
            "state": {0: dict(state)} if state else {},
            "param_groups": [{**group, "params": list(range(len(self._params)))}],
        }

    @loading
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyper-parameters and state from a `state_dict` of ours or of torch's LBFGS."""
        try:
            (group,), states = state_dict["param_groups"], dict(state_dict["state"])
            count = len(group["params"])
        except (TypeError, KeyError, ValueError) as error:
            raise StateError(f"LBFGS: not its state dict: {type(error).__name__}: {error}") from error
        if count != len(self._params):
            raise StateError(f"LBFGS: the state dict is of {count} parameters; expected {len(self._params)}")
        size = sum(p.numel() for p in self._params)
        saved: dict[str, Any] = states.get(0, {})
        d = saved.get("d")
        if d is not None and d.numel() != size:
            raise StateError(f"LBFGS: the state is of {d.numel()} elements; the parameters have {size}")
        new = {**self.param_groups[0], **copy.deepcopy({k: v for k, v in group.items() if k != "params"})}
        self._check(new)
        self.param_groups[0].update(new)
        dtype = self._params[0].dtype
        self.state[self._params[0]] = {key: _copied(value, dtype) for key, value in saved.items()}


def _copied(value: Any, dtype: torch.dtype) -> Any:
    """A copy of a state's tensor, number, or list of them."""
    if isinstance(value, list):
        return [_copied(v, dtype) for v in value]
    if isinstance(value, Tensor | torch.Tensor):
        return raw(value, "LBFGS", "state").to(dtype, copy=True)
    return value
