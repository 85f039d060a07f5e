"""``tg.hub``: torch's downloads of state dicts. Models of repositories are torch modules, which are refused."""

from __future__ import annotations

from typing import Any

from torch.hub import download_url_to_file, get_dir, set_dir
from torch.hub import load_state_dict_from_url as _load_state_dict_from_url

from .core import StateError, Tensor

__all__ = ["download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url", "load_url", "set_dir"]


def load_state_dict_from_url(url: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """torch's: download a file of tensors, once, and read it, without unpickling anything else.

    Arguments as of ``torch.hub.load_state_dict_from_url``; returns `Tensor` for every tensor.
    """
    state = _load_state_dict_from_url(url, *args, **{**kwargs, "weights_only": True})
    return {key: Tensor(value) if hasattr(value, "detach") else value for key, value in state.items()}


load_url = load_state_dict_from_url


def load(repo_or_dir: Any, model: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Raises StateError: what a repository makes is a torch module."""
    raise StateError(f"hub.load: {model!r} would be a torch module; load it with torch.hub, then tg.from_torch(module)")


def list(github: Any, *args: Any, **kwargs: Any) -> Any:
    """Raises StateError."""
    raise StateError("hub.list: models of repositories are torch modules; use torch.hub")


def help(github: Any, *args: Any, **kwargs: Any) -> Any:
    """Raises StateError."""
    raise StateError("hub.help: models of repositories are torch modules; use torch.hub")
