"""Leaving Python: a module or a compiled step as plain C. Imports the compiled tape, networks and files.

A program (compiled/program.py) is a list of instructions on memory; the table (table.py) says of each how it is written
in C. From the call to the files:

    export, capture, names            what is asked; the program, and what people call its memory
    memory, values                    where every value lies in C; views of arrays
    table, writer, library, own       instruction -> C; loop nests; helper functions, those of <math.h> included
    elementwise, products, convolutions, reductions, norms, pools, indexing, losses, ctc, recurrent, optimizers, random
                                      the emitters
    program, source                   every instruction written; the two files
"""

from .export import Exported, export_c

__all__ = ["Exported", "export_c"]
