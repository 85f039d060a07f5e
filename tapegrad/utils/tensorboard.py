"""``tg.utils.tensorboard``: torch's writer, for which the package ``tensorboard`` must be installed. Pass it numbers:
``loss.item()``, not ``loss``.
"""

from torch.utils.tensorboard import SummaryWriter

__all__ = ["SummaryWriter"]
