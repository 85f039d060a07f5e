"""The torch that a wheel asks for: the one its extension was compiled against, read while it is built.

A provider of dynamic metadata for scikit-build-core. In the isolated build that is the torch which pyproject.toml pins
under [build-system]; with `--no-build-isolation` it is the torch that is installed.
"""

from importlib.metadata import PackageNotFoundError, version


def dynamic_metadata(field, settings=None):
    """What the project needs to run."""
    if field != "dependencies":
        raise ValueError(f"built_for provides dependencies, not {field}")
    try:
        torch = version("torch").partition("+")[0]  # builds of one release for other devices share the interface
    except PackageNotFoundError:
        raise RuntimeError(
            "tapegrad: building without isolation needs torch, scikit-build-core and ninja installed"
        ) from None
    return [f"torch=={torch}", "safetensors>=0.8"]
