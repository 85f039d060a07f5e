"""Hooks of optimizers: functions of the user's around a step, and around what goes into a state dict and comes back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..core import ArgumentError, RemovableHandle

Hook = Callable[..., Any]
KINDS = ("step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post")


class Hooked:
    """What an optimizer has of hooks; ``_hooks`` lists them by kind."""

    _hooks: dict[str, dict[int, Hook]]

    def _of(self, kind: str) -> list[Hook]:
        return list(self._hooks[kind].values())

    def _register(self, kind: str, hook: Hook, first: bool = False) -> RemovableHandle:
        hooks = self._hooks[kind]
        others = dict(hooks) if first else {}
        if first:
            hooks.clear()
        handle = RemovableHandle(hooks, hook)
        hooks.update(others)
        return handle

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; what it returns (if not None) replaces them."""
        return self._register("step_pre", hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return self._register("step_post", hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before each `state_dict`; ``prepend``: before the hooks there are."""
        return self._register("state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` on each state dict; what it returns (if not None) replaces it."""
        return self._register("state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before each load; what it returns (if not None) is loaded instead."""
        return self._register("load_state_dict_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after each load."""
        return self._register("load_state_dict_post", hook, prepend)


def stepping(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer's ``step`` with its hooks around it."""

    @functools.wraps(step)
    def with_hooks(self: Hooked, *args: Any, **kwargs: Any) -> Any:
        for before in self._of("step_pre"):
            changed = before(self, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise ArgumentError(
                        f"{type(self).__name__}: a step pre hook must return None or (args, kwargs); got {changed!r}"
                    )
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        for after in self._of("step_post"):
            after(self, args, kwargs)
        return result

    return with_hooks


def saving(state_dict: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """An optimizer's ``state_dict`` with its hooks around it."""

    @functools.wraps(state_dict)
    def with_hooks(self: Hooked) -> dict[str, Any]:
        for before in self._of("state_dict_pre"):
            before(self)
        made = state_dict(self)
        for after in self._of("state_dict_post"):
            changed = after(self, made)
            made = made if changed is None else changed
        return made

    return with_hooks


def loading(load_state_dict: Callable[..., None]) -> Callable[..., None]:
    """An optimizer's ``load_state_dict`` with its hooks around it."""

    @functools.wraps(load_state_dict)
    def with_hooks(self: Hooked, state_dict: Mapping[str, Any]) -> None:
        given = dict(state_dict) if isinstance(state_dict, Mapping) else state_dict  # hooks change a copy
        for before in self._of("load_state_dict_pre"):
            changed = before(self, given)
            given = given if changed is None else changed
        load_state_dict(self, given)
        for after in self._of("load_state_dict_post"):
            after(self)

    return with_hooks
