"""Rows of the functions that are composed of ops."""

# fmt: off
from __future__ import annotations

from .spec import K, Q, R, Row, S, Sample, V, ints

_ROWS: dict[str, list[Sample]] = {
    # gates, distances
    "softmin": [S(R(3, 4), 1), S(R(1), 0), S(R(0, 2), 1)],
    "threshold": [S(R(3, 4), 0.1, 2.0), S(R(), 0.0, 1.0), S(R(0), 0.0, 1.0), K(V([0.5, 0.1]), 0.1, 3.0)],
    "prelu": [S(R(4, 3), R(1)), S(R(4, 3, 2), R(3)), S(R(1), R(1)), S(R(0, 3), R(3))],
    "logit": [S(Q(3, 4)), S(Q()), S(Q(0)), S(Q(4), 0.3)],
    "normalize": [S(R(3, 4)), S(R(3, 4), 1.0, 0), S(R(1, 1), 2.0, 1, 10.0), S(R(0, 3))],
    "cosine_similarity": [S(R(3, 4), R(3, 4)), S(R(3, 4), R(4), -1), S(R(1, 1), R(1, 1)), S(R(0, 3), R(0, 3))],
    "pairwise_distance": [S(R(3, 4), R(3, 4)), S(R(3, 4), R(4), 1.0), S(R(1), R(1)), S(R(0, 3), R(0, 3))],
    "cdist": [
        S(R(3, 4), R(2, 4)), S(R(2, 3, 4), R(2, 4)), S(R(1, 1), R(1, 1)), S(R(0, 3), R(2, 3)), S(R(2, 3), R(2, 3), 1.0),
    ],
    # stacks and splits
    "ravel": [S(R(3, 4)), S(R()), S(R(0, 2))],
    "atleast_1d": [S(R()), S(R(3)), S(R(0))],
    "atleast_2d": [S(R()), S(R(3)), S(R(0)), S(R(2, 3))],
    "atleast_3d": [S(R()), S(R(3)), S(R(0)), S(R(2, 3))],
    "hstack": [S([R(2, 3), R(2, 1)]), S([R(2), R(3)]), S([R(), R()]), S([R(0), R(1)])],
    "vstack": [S([R(2, 3), R(3)]), S([R(2), R(2)]), S([R(), R()]), S([R(0, 1), R(1, 1)])],
    "dstack": [S([R(2, 3), R(2, 3)]), S([R(2), R(2)]), S([R(), R()]), S([R(0), R(0)])],
    "column_stack": [S([R(2, 3), R(2)]), S([R(2), R(2)]), S([R(), R()]), S([R(0), R(0)])],
    "tensor_split": [S(R(5, 2), 3), S(R(5), (1, 3)), S(R(2, 5), 2, 1), S(R(1), 1), S(R(0), 2), S(R(5), (-2,))],
    "hsplit": [S(R(2, 4), 2), S(R(4), (1,)), S(R(1), 1), S(R(0), 1)],
    "vsplit": [S(R(4, 2), 2), S(R(3, 1), (1,)), S(R(1, 1), 1), S(R(0, 2), 1)],
    "fliplr": [S(R(2, 3)), S(R(1, 1)), S(R(0, 2))],
    "flipud": [S(R(2, 3)), S(R(1)), S(R(0))],
    "rot90": [*(S(R(2, 3), k) for k in (-1, 0, 1, 2, 3, 5)), S(R(2, 3, 4), 1, (2, 0)), S(R(1, 1)), S(R(0, 2))],
    "repeat_interleave": [
        S(R(3), 2), S(R(2, 3), 2, 1), S(R(2, 3), ints([1, 2, 0]), 1), S(R(), 3), S(R(0), 2), S(R(2, 2), ints([2]), 0),
    ],
    "broadcast_tensors": [S(R(3, 1), R(2)), S(R(), R(1)), S(R(0, 1), R(2))],
    "diff": [ S(R(3), 0, 0, R(2)),
        S(R(5)), S(R(4, 3), 2), S(R(4, 3), 1, 0), S(R(3), prepend=R(2), append=R(1)), S(R(1)), S(R(0)), S(R(3), 5),
    ],
    # diagonals
    "diag_embed": [S(R(3)), S(R(2, 3), 1), S(R(2, 3), -2), S(R(2, 3), 0, 0, 2), S(R(1)), S(R(0))],
    "diag": [S(R(3)), S(R(3), 1), S(R(3, 4)), S(R(3, 4), -1), S(R(1)), S(R(0))],
    "trace": [S(R(3, 4)), S(R(1, 1)), S(R(0, 0))],
    "block_diag": [S(R(2, 3), R(1, 2)), S(R(), R(2)), S(R(1, 1)), S(R(0, 2), R(1, 1))],
    # products
    "inner": [S(R(3), R(3)), S(R(2, 3), R(4, 3)), S(R(), R(3)), S(R(1), R(1)), S(R(0), R(0))],
    "vdot": [S(R(3), R(3)), S(R(1), R(1)), S(R(0), R(0))],
    "tensordot": [S(R(2, 3, 4), R(3, 4, 2)), S(R(2, 3), R(3, 4), 1), S(R(2), R(3), 0), S(R(1), R(1), 1),
                  S(R(1, 3), R(2, 4), ([0], [0])), S(R(2, 3, 4), R(4, 2), ([2, 0], [0, 1])), S(R(0, 2), R(2, 3), 1)],
    "kron": [S(R(2, 3), R(4, 2)), S(R(2), R(3)), S(R(2, 2), R(3)), S(R(), R()), S(R(0), R(2))],
    "addmv": [
        S(R(2), R(2, 3), R(3)), S(R(2), R(2, 3), R(3), beta=0.5, alpha=2.0),
        S(R(1), R(1, 1), R(1)), S(R(0), R(0, 2), R(2)),
    ],
    "addr": [
        S(R(2, 3), R(2), R(3)), S(R(2, 3), R(2), R(3), beta=0.5, alpha=2.0),
        S(R(1, 1), R(1), R(1)), S(R(0, 2), R(0), R(2)),
    ],
    # windows
    "max_pool1d": [S(R(2, 3, 6), 2), S(R(2, 7), 3, 2, 1), S(R(1, 1, 1), 1), S(R(0, 2, 4), 2)],
    "avg_pool1d": [S(R(2, 3, 6), 2), S(R(2, 7), 3, 2, 1), S(R(1, 1, 1), 1), S(R(0, 2, 4), 2)],
    "adaptive_avg_pool1d": [S(R(2, 3, 6), 4), S(R(2, 7), 3), S(R(1, 1, 1), 1), S(R(0, 2, 4), 2)],
    "adaptive_max_pool1d": [S(R(2, 3, 6), 4), S(R(2, 7), 3), S(R(1, 1, 1), 1), S(R(0, 2, 4), 2)],
    "adaptive_max_pool2d": [S(R(2, 3, 6, 5), 4), S(R(2, 7, 3), (3, None)), S(R(1, 1, 1), 1), S(R(0, 2, 4, 4), 2)],
    "pixel_shuffle": [S(R(2, 8, 2, 3), 2), S(R(4, 1, 2), 2), S(R(1, 1, 1), 1), S(R(0, 1, 2, 2), 1)],
    "pixel_unshuffle": [S(R(2, 2, 4, 2), 2), S(R(1, 2, 4), 2), S(R(1, 1, 1), 1), S(R(0, 1, 2, 2), 1)],
    "conv_transpose1d": [
        S(R(2, 3, 4), R(3, 2, 3)), S(R(2, 4, 4), R(4, 2, 3), R(4), 2, 1, 1, 2, 2), S(R(1, 1, 1), R(1, 1, 1)),
        S(R(0, 2, 3), R(2, 1, 2)),
    ],
    "conv3d": [
        S(R(2, 2, 4, 3, 4), R(3, 2, 2, 2, 3), R(3)), S(R(2, 4, 4, 3, 4), R(4, 2, 2, 2, 2), None, 2, 1, (2, 1, 1), 2),
        S(R(1, 3, 3, 3), R(2, 1, 2, 1, 2), padding="same"),
        S(R(1, 1, 1, 1, 1), R(1, 1, 1, 1, 1)), S(R(0, 1, 2, 2, 2), R(1, 1, 2, 1, 1)),
    ],
    # normalisations
    "rms_norm": [
        S(R(2, 3, 4), (4,)), S(R(2, 3, 4), (3, 4), R(3, 4), 1e-3), S(R(1), (1,), None, 10.0), S(R(0, 2), (2,)),
    ],
    "local_response_norm": [S(R(2, 4, 3), 2), S(R(1, 3, 2, 2), 3, 0.1, 0.5, 2.0), S(R(1, 1, 1), 1), S(R(0, 2, 2), 2)],
}


rows = [
    *(Row(name, samples, exact=False, method=False) for name, samples in _ROWS.items()),
    Row("meshgrid", [S(R(2), R(3), indexing="xy"), S(R(2), R(3), R(2), indexing="ij"), S(R(), R(1), indexing="xy"),
                     S(R(0), R(2), indexing="ij")], method=False),
]
