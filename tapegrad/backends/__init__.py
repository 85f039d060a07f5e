"""``tg.backends``: the flags that scripts set and the libraries they ask for. Flags are kept and change nothing; what
torch's products use on this machine (MKL, OpenMP, oneDNN) is torch's own answer.
"""

from torch.backends import mkl, mkldnn, openmp

from . import cuda, cudnn, mps

__all__ = ["cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
