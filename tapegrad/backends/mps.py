"""``tg.backends.mps``: Apple's devices, of which there is none."""


def is_available() -> bool:
    """False: tapegrad computes on the CPU."""
    return False


def is_built() -> bool:
    """False: tapegrad computes on the CPU."""
    return False
