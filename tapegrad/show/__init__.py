"""Tapes, compiled steps and models as one HTML page each: `Tape.show`, `Compiled.show`, `Module.show`.

`tape` says as plain data what is to be seen of a tape (`compiled.picture` of a step); `page` puts the data into a
template (`page.html`, with its script and style), which fetches nothing and opens from disk; `cells` is what notebooks
show of values. Imports the core; `Tensor`, `Tape`, `Compiled`
and `Module` import it when they are shown.
"""

from .cells import cell_of_module, cell_of_step, cell_of_tape, cell_of_tensor
from .page import publish, render
from .tape import page_of_tape

__all__ = ["cell_of_module", "cell_of_step", "cell_of_tape", "cell_of_tensor", "page_of_tape", "publish", "render"]
