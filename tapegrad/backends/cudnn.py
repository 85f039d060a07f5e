"""``tg.backends.cudnn``: cuDNN is not there; its flags can be set and change nothing (every op is deterministic)."""

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False: there is no cuDNN."""
    return False


def version() -> None:
    """None: there is no cuDNN."""
