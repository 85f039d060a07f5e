"""``nn.utils.parametrizations``: weight and spectral normalisation by `parametrize`."""

from .weights import parametrized_spectral_norm as spectral_norm
from .weights import parametrized_weight_norm as weight_norm

__all__ = ["spectral_norm", "weight_norm"]
