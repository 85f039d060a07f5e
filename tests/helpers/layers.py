"""Every layer with arguments and inputs, to be held against torch's of the same name."""

import itertools
from typing import Any

import torch

from tapegrad import nn


def floats(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive(*shape: int) -> torch.Tensor:
    return floats(*shape).abs() + 0.1


def integers(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


SPOKEN = floats(7, 2, 5, seed=3).log_softmax(2)  # steps, sequences, classes

# (layer, positional arguments, keyword arguments, inputs)
LAYERS = [
    ("Linear", (3, 4), {}, [floats(5, 3)]),
    ("Linear", (3, 4, False), {}, [floats(2, 5, 3)]),
    ("Linear", (3, 1), {}, [floats(3)]),
    ("Conv1d", (4, 6, 3), {}, [floats(2, 4, 9)]),
    ("Conv1d", (4, 6, 3, 2, 1), {"dilation": 2, "groups": 2}, [floats(2, 4, 11)]),
    ("Conv1d", (4, 6, 4), {"padding": "same", "bias": False}, [floats(2, 4, 9)]),
    ("Conv1d", (2, 2, 3), {"padding": 1, "padding_mode": "circular"}, [floats(2, 2, 5)]),
    ("Conv2d", (3, 4, 3), {}, [floats(2, 3, 7, 6)]),
    ("Conv2d", (3, 4, 3), {}, [floats(3, 7, 6)]),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, False), {}, [floats(2, 4, 7, 6)]),
    ("Conv2d", (2, 3, (2, 3)), {"padding": "same"}, [floats(2, 2, 5, 6)]),
    ("Conv2d", (2, 3, 3), {"padding": "valid"}, [floats(2, 2, 5, 6)]),
    ("Conv2d", (2, 3, 3), {"padding": 2, "padding_mode": "reflect"}, [floats(2, 2, 5, 6)]),
    ("Conv2d", (2, 3, (2, 3)), {"padding": "same", "padding_mode": "replicate"}, [floats(2, 2, 5, 6)]),
    ("Conv2d", (2, 3, 3), {"padding": (2, 1), "padding_mode": "circular"}, [floats(2, 2, 5, 6)]),
    ("ConvTranspose2d", (4, 6, 3), {}, [floats(2, 4, 5, 4)]),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2), {"bias": False}, [floats(2, 4, 5, 4)]),
    ("ConvTranspose2d", (2, 3, (3, 2), (2, 3)), {"dilation": (1, 2), "padding": (1, 0)}, [floats(2, 2, 3, 4)]),
    ("Upsample", (), {"scale_factor": 2}, [floats(2, 3, 3, 4)]),
    ("Upsample", (), {"scale_factor": (2.0, 1.5)}, [floats(2, 3, 3, 4)]),
    ("Upsample", ((5, 7),), {}, [floats(2, 3, 3, 4)]),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, [floats(2, 3, 3, 4)]),
    ("Upsample", (), {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True}, [floats(2, 3, 5, 4)]),
    ("Flatten", (), {}, [floats(2, 3, 4)]),
    ("Flatten", (0, 1), {}, [floats(2, 3, 4)]),
    ("Unflatten", (1, (2, 3)), {}, [floats(4, 6)]),
    ("Unflatten", (-1, (3, -1)), {}, [floats(4, 6)]),
    ("Identity", (54,), {"unused": 0.1}, [floats(2, 3)]),
    ("Dropout", (0,), {}, [floats(3, 4)]),
    ("Dropout", (1.0,), {"inplace": True}, [floats(3, 4)]),
    ("MaxPool2d", (2,), {}, [floats(2, 3, 6, 5)]),
    ("MaxPool2d", (3, 2, 1), {"dilation": 1, "ceil_mode": True}, [floats(2, 3, 7, 8)]),
    ("MaxPool2d", ((3, 2), (2, 1)), {"dilation": (1, 2)}, [floats(2, 3, 7, 8)]),
    ("AvgPool2d", (2,), {}, [floats(2, 3, 6, 5)]),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, [floats(2, 3, 7, 8)]),
    ("AvgPool2d", ((3, 2),), {"divisor_override": 5}, [floats(2, 3, 7, 8)]),
    ("AdaptiveAvgPool2d", (1,), {}, [floats(2, 3, 6, 5)]),
    ("AdaptiveAvgPool2d", ((3, None),), {}, [floats(2, 3, 7, 5)]),
    ("BatchNorm1d", (3,), {}, [floats(5, 3)]),
    ("BatchNorm1d", (3, 1e-3, 0.3), {"bias": False}, [floats(5, 3, 4)]),
    ("BatchNorm1d", (3,), {"momentum": None}, [floats(5, 3, 4)]),
    ("BatchNorm2d", (3,), {}, [floats(4, 3, 5, 2)]),
    ("BatchNorm2d", (3,), {"affine": False}, [floats(4, 3, 5, 2)]),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, [floats(4, 3, 5, 2)]),
    ("LayerNorm", (4,), {}, [floats(5, 3, 4)]),
    ("LayerNorm", ((3, 4), 1e-3), {"bias": False}, [floats(5, 3, 4)]),
    ("LayerNorm", ([4],), {"elementwise_affine": False}, [floats(5, 3, 4)]),
    ("GroupNorm", (2, 6), {}, [floats(4, 6, 5)]),
    ("GroupNorm", (3, 6, 1e-3), {"affine": False}, [floats(4, 6, 5, 2)]),
    ("GroupNorm", (1, 6), {"bias": False}, [floats(4, 6)]),
    ("Embedding", (7, 3), {}, [integers(7, 2, 5)]),
    ("Embedding", (7, 3, -5), {}, [integers(7, 2, 5)]),
    ("Embedding", (7, 3, 2), {"scale_grad_by_freq": True}, [integers(4, 2, 5)]),
    ("Embedding", (7, 3), {"max_norm": 0.7, "norm_type": 1.0}, [integers(7, 2, 5)]),
    ("MultiheadAttention", (6, 2), {}, [floats(4, 3, 6), floats(5, 3, 6, seed=1), floats(5, 3, 6, seed=2)]),
    ("MultiheadAttention", (6, 3), {"bias": False}, [floats(4, 6), floats(5, 6, seed=1), floats(5, 6, seed=2)]),
    (
        "MultiheadAttention",
        (6, 2),
        {"batch_first": True, "kdim": 4, "vdim": 5, "add_bias_kv": True, "add_zero_attn": True},
        [floats(3, 4, 6), floats(3, 5, 4, seed=1), floats(3, 5, 5, seed=2)],
    ),
    ("ReLU", (), {}, [floats(4, 3)]),
    ("ReLU", (True,), {}, [floats(4, 3)]),
    ("ReLU6", (), {}, [floats(4, 3) * 5]),
    ("LeakyReLU", (), {}, [floats(4, 3)]),
    ("LeakyReLU", (0.2, True), {}, [floats(4, 3)]),
    ("ELU", (0.5,), {}, [floats(4, 3)]),
    ("SELU", (), {}, [floats(4, 3)]),
    ("CELU", (0.5,), {"inplace": True}, [floats(4, 3)]),
    ("GELU", (), {}, [floats(4, 3)]),
    ("GELU", ("tanh",), {}, [floats(4, 3)]),
    ("SiLU", (), {}, [floats(4, 3)]),
    ("Mish", (), {}, [floats(4, 3)]),
    ("Softplus", (), {}, [floats(4, 3)]),
    ("Softplus", (2.0, 1.5), {}, [floats(4, 3)]),
    ("Softsign", (), {}, [floats(4, 3)]),
    ("LogSigmoid", (), {}, [floats(4, 3)]),
    ("Hardtanh", (), {}, [floats(4, 3)]),
    ("Hardtanh", (-0.5, 0.25), {"inplace": True}, [floats(4, 3)]),
    ("Tanh", (), {}, [floats(4, 3)]),
    ("Sigmoid", (), {}, [floats(4, 3)]),
    ("Softmax", (1,), {}, [floats(4, 3)]),
    ("Softmax", (), {"dim": 0}, [floats(4, 3)]),
    ("LogSoftmax", (-1,), {}, [floats(4, 3)]),
    ("MSELoss", (), {}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("MSELoss", (), {"reduction": "sum"}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("L1Loss", (), {"reduction": "none"}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("SmoothL1Loss", (), {"beta": 0.7}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("HuberLoss", ("sum", 0.7), {}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("CrossEntropyLoss", (), {}, [floats(4, 3), integers(3, 4)]),
    ("CrossEntropyLoss", (positive(3),), {"label_smoothing": 0.2}, [floats(4, 3), integers(3, 4)]),
    ("CrossEntropyLoss", (), {"ignore_index": 1, "reduction": "sum"}, [floats(4, 3, 2), integers(3, 4, 2)]),
    ("CrossEntropyLoss", (), {}, [floats(4, 3), floats(4, 3, seed=1).softmax(1)]),
    ("NLLLoss", (positive(3),), {"ignore_index": 1}, [floats(4, 3), integers(3, 4)]),
    ("BCELoss", (positive(3),), {}, [floats(4, 3).sigmoid(), floats(4, 3, seed=1).sigmoid()]),
    ("BCEWithLogitsLoss", (positive(3),), {"pos_weight": positive(3)}, [floats(4, 3), floats(4, 3, seed=1).sigmoid()]),
    ("KLDivLoss", (), {"reduction": "sum"}, [floats(4, 3), floats(4, 3, seed=1).softmax(1)]),
    ("KLDivLoss", (), {"reduction": "batchmean"}, [floats(4, 3), floats(4, 3, seed=1).softmax(1)]),
    ("KLDivLoss", (), {"log_target": True}, [floats(4, 3), floats(4, 3, seed=1)]),
]

SCORES = floats(4, 5)
SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
LABELS = torch.tensor([[3, 0, -1, 1, -1], [0, -1, -1, -1, -1], [4, 3, 2, 1, 0], [-1, 2, 3, 4, 0]])

LAYERS += [
    ("Conv3d", (2, 3, 2), {}, [floats(2, 2, 4, 3, 4)]),
    ("Conv3d", (4, 2, (2, 1, 2), 2, 1, 1, 2, False), {}, [floats(4, 4, 3, 4)]),
    ("Conv3d", (2, 3, (2, 3, 2)), {"padding": "same"}, [floats(2, 2, 4, 3, 4)]),
    ("ConvTranspose1d", (4, 6, 3, 2, 1, 1, 2), {}, [floats(2, 4, 5)]),
    ("ConvTranspose1d", (2, 3, 3), {"dilation": 2, "bias": False}, [floats(2, 4)]),
    ("GLU", (), {}, [floats(3, 6)]),
    ("GLU", (0,), {}, [floats(4, 3)]),
    ("Hardshrink", (), {}, [floats(4, 3)]),
    ("Hardshrink", (0.2,), {}, [floats(4, 3)]),
    ("Hardsigmoid", (), {}, [floats(4, 3).sign() * 4]),  # torch's slope in between is 1/6 rounded to float32
    ("Hardswish", (), {}, [floats(4, 3) * 4]),
    ("PReLU", (), {}, [floats(4, 3)]),
    ("PReLU", (3, 0.1), {}, [floats(4, 3, 2)]),
    ("RReLU", (0.2, 0.2), {}, [floats(4, 3)]),
    ("Softmin", (1,), {}, [floats(4, 3)]),
    ("Softmax2d", (), {}, [floats(2, 3, 2, 4)]),
    ("Softshrink", (), {}, [floats(4, 3)]),
    ("Softshrink", (0.2,), {}, [floats(4, 3)]),
    ("Tanhshrink", (), {}, [floats(4, 3)]),
    ("Threshold", (0.1, 20), {}, [floats(4, 3)]),
    ("AlphaDropout", (0.0,), {}, [floats(4, 3)]),
    ("FeatureAlphaDropout", (0.0,), {}, [floats(4, 3, 2)]),
    ("Dropout1d", (0.0,), {}, [floats(4, 3, 2)]),
    ("Dropout2d", (1.0,), {"inplace": True}, [floats(4, 3, 2, 2)]),
    ("Dropout3d", (0.0,), {}, [floats(4, 3, 2, 2, 2)]),
    ("BatchNorm3d", (3,), {}, [floats(2, 3, 2, 3, 2)]),
    ("InstanceNorm1d", (3,), {}, [floats(4, 3, 5)]),
    ("InstanceNorm1d", (3,), {"affine": True, "track_running_stats": True}, [floats(4, 3, 5)]),
    ("InstanceNorm2d", (3, 1e-3, 0.3, True), {}, [floats(4, 3, 5, 2)]),
    ("InstanceNorm2d", (3,), {"affine": True, "bias": False}, [floats(3, 5, 2)]),
    ("InstanceNorm3d", (2,), {"track_running_stats": True}, [floats(3, 2, 2, 3, 2)]),
    ("RMSNorm", (4,), {}, [floats(5, 3, 4)]),
    ("RMSNorm", ((3, 4), 1e-3), {"elementwise_affine": False}, [floats(5, 3, 4)]),
    ("LocalResponseNorm", (2,), {}, [floats(2, 5, 3, 3)]),
    ("LocalResponseNorm", (3, 0.1, 0.5, 2.0), {}, [floats(2, 5, 3)]),
    ("MaxPool1d", (2,), {}, [floats(2, 3, 7)]),
    ("MaxPool1d", (3, 2, 1), {"ceil_mode": True}, [floats(3, 8)]),
    ("AvgPool1d", (2,), {}, [floats(2, 3, 7)]),
    ("AvgPool1d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, [floats(2, 3, 8)]),
    ("AdaptiveAvgPool1d", (3,), {}, [floats(2, 3, 7)]),
    ("AdaptiveMaxPool1d", (3,), {}, [floats(2, 3, 7)]),
    ("AdaptiveMaxPool2d", ((3, None),), {}, [floats(2, 3, 7, 5)]),
    ("AdaptiveMaxPool2d", (2,), {}, [floats(3, 7, 5)]),
    ("LPPool1d", (2, 3), {}, [floats(2, 3, 7)]),
    ("LPPool2d", (2, (3, 2)), {"stride": 1, "ceil_mode": False}, [positive(2, 3, 7, 6)]),
    ("PixelShuffle", (2,), {}, [floats(2, 8, 3, 2)]),
    ("PixelUnshuffle", (2,), {}, [floats(2, 3, 4, 6)]),
    ("ChannelShuffle", (2,), {}, [floats(2, 6, 3, 2)]),
    ("Unfold", ((2, 3),), {"padding": 1, "stride": 2}, [floats(2, 3, 5, 6)]),
    ("Fold", ((4, 5), (2, 2)), {}, [floats(2, 12, 12)]),
    ("Bilinear", (3, 4, 5), {}, [floats(2, 3), floats(2, 4, seed=1)]),
    ("Bilinear", (3, 4, 5, False), {}, [floats(2, 6, 3), floats(2, 6, 4, seed=1)]),
    ("CosineSimilarity", (), {}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("CosineSimilarity", (0, 1e-3), {}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("PairwiseDistance", (), {}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("PairwiseDistance", (1.0, 1e-3, True), {}, [floats(4, 3), floats(4, 3, seed=1)]),
    ("MarginRankingLoss", (0.3,), {}, [floats(4), floats(4, seed=1), SIGNS]),
    ("CosineEmbeddingLoss", (0.1,), {}, [floats(4, 3), floats(4, 3, seed=1), SIGNS]),
    ("HingeEmbeddingLoss", (0.5,), {}, [floats(4), SIGNS]),
    ("SoftMarginLoss", (), {}, [floats(4), SIGNS.long()]),
    ("MultiLabelSoftMarginLoss", (positive(5),), {}, [SCORES, integers(2, 4, 5).double()]),
    ("MultiLabelMarginLoss", (), {}, [SCORES, LABELS]),
    ("MultiMarginLoss", (), {}, [SCORES, integers(5, 4)]),
    ("MultiMarginLoss", (2, 0.5, positive(5)), {"reduction": "sum"}, [SCORES, integers(5, 4)]),
    ("PoissonNLLLoss", (), {"full": True}, [floats(4, 3), positive(4, 3) * 3]),
    ("PoissonNLLLoss", (False,), {}, [positive(4, 3), positive(4, 3) * 3]),
    ("CTCLoss", (), {}, [SPOKEN, integers(4, 2, 3) + 1, torch.tensor([7, 5]), torch.tensor([3, 2])]),
    ("CTCLoss", (4, "sum", True), {}, [SPOKEN, integers(4, 5), torch.tensor([7, 1]), torch.tensor([3, 2])]),
    ("CTCLoss", (), {"reduction": "none"}, [SPOKEN[:, 0], integers(4, 3) + 1, torch.tensor(7), torch.tensor(3)]),
    ("GaussianNLLLoss", (), {"full": True}, [floats(4, 3), floats(4, 3, seed=1), positive(4, 3)]),
    ("GaussianNLLLoss", (), {"reduction": "none"}, [floats(4, 3), floats(4, 3, seed=1), positive(4, 1)]),
    ("TripletMarginLoss", (), {"swap": True}, [floats(4, 3), floats(4, 3, seed=1), floats(4, 3, seed=2)]),
    ("TripletMarginLoss", (0.5, 1.0), {}, [floats(4, 3), floats(4, 3, seed=1), floats(4, 3, seed=2)]),
    ("TripletMarginWithDistanceLoss", (), {"margin": 2.0}, [floats(4, 3), floats(4, 3, seed=1), floats(4, 3, seed=2)]),
]
VOLUME = floats(2, 3, 5, 4, 6)
LAYERS += [
    ("MaxPool3d", (2,), {}, [VOLUME]),
    ("MaxPool3d", ((3, 2, 2), 2, 1), {"ceil_mode": True, "return_indices": True}, [VOLUME[0]]),
    ("AvgPool3d", (2,), {}, [VOLUME]),
    ("AvgPool3d", (3, (2, 1, 2), 1), {"ceil_mode": True, "count_include_pad": False}, [VOLUME]),
    ("AdaptiveAvgPool3d", ((2, None, 3),), {}, [VOLUME]),
    ("AdaptiveMaxPool3d", (2,), {}, [VOLUME[1]]),
    ("AdaptiveMaxPool3d", (2, True), {}, [VOLUME]),
    ("LPPool3d", (2, 2), {"stride": 1}, [VOLUME.abs()]),
    ("FractionalMaxPool2d", (2, 3), {"_random_samples": positive(3, 2, 2) / 4}, [floats(3, 2, 7, 6)]),
    (
        "FractionalMaxPool3d",
        ((2, 1, 2),),
        {"output_ratio": (0.5, 0.6, 0.7), "return_indices": True, "_random_samples": positive(2, 3, 3) / 4},
        [VOLUME],
    ),
    ("MaxUnpool1d", (2,), {}, [floats(2, 3, 2), torch.tensor([0, 3]).expand(2, 3, 2)]),
    ("MaxUnpool2d", ((2, 1), 2), {}, [floats(3, 2, 2), torch.tensor([[0, 4], [6, 1]]).expand(3, 2, 2)]),
    ("MaxUnpool3d", (3, 2, 1), {}, [floats(1, 1, 2, 1, 1), torch.tensor([0, 2]).reshape(1, 1, 2, 1, 1)]),
    ("ConvTranspose3d", (4, 6, 3, 2, 1, 1, 2), {}, [floats(2, 4, 3, 2, 2)]),
    ("ConvTranspose3d", (2, 3, (1, 3, 2)), {"dilation": 2, "bias": False}, [floats(2, 3, 2, 3)]),
]
SEQUENCE, MEMORY = floats(4, 3, 6), floats(5, 3, 6, seed=1)
STILL = {"dropout": 0.0}
LAYERS += [
    ("EmbeddingBag", (7, 3), {}, [integers(7, 2, 5)]),
    ("EmbeddingBag", (7, 3), {"mode": "sum", "padding_idx": -5}, [integers(7, 9), torch.tensor([0, 4, 4])]),
    ("EmbeddingBag", (7, 3, 0.7, 1.0), {"mode": "max"}, [integers(7, 2, 5)]),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, [floats(2, 3, 3, 4)]),
    ("UpsamplingBilinear2d", ((5, 7),), {}, [floats(2, 3, 3, 4)]),
    ("TransformerEncoderLayer", (6, 2, 5, 0.0), {}, [SEQUENCE]),
    (
        "TransformerEncoderLayer",
        (6, 3, 5),
        {"activation": "gelu", "batch_first": True, "norm_first": True, "layer_norm_eps": 1e-3, **STILL},
        [SEQUENCE, floats(3, 3).tril(), floats(4, 3) * torch.tensor([0.0, 1.0, 1.0])],
    ),
    ("TransformerEncoderLayer", (6, 2, 5, 0.0, torch.tanh), {"bias": False}, [floats(4, 6)]),
    ("TransformerDecoderLayer", (6, 2, 5, 0.0), {}, [SEQUENCE, MEMORY]),
    ("TransformerDecoderLayer", (6, 3, 5), {"norm_first": True, "bias": False, **STILL}, [SEQUENCE, MEMORY]),
    ("Transformer", (6, 2, 1, 2, 5), {**STILL, "activation": "gelu"}, [MEMORY, SEQUENCE]),
    ("Transformer", (6, 2, 1, 1, 5), {**STILL, "batch_first": True, "norm_first": True}, [SEQUENCE, SEQUENCE]),
]
_STATES = floats(4, 2, 3, seed=5)  # two layers in two directions
LAYERS += [
    ("RNN", (3, 4), {}, [floats(5, 2, 3)]),
    ("RNN", (3, 4, 2, "relu", False, True), {"bidirectional": True}, [floats(2, 5, 3), floats(4, 2, 4, seed=1)]),
    ("GRU", (3, 4), {}, [floats(5, 3)]),
    ("GRU", (3, 3, 2, True, True), {"bidirectional": True}, [floats(2, 5, 3), _STATES]),
    ("GRU", (3, 4), {"bias": False}, [floats(5, 2, 3), floats(1, 2, 4, seed=1)]),
    ("LSTM", (3, 4), {}, [floats(5, 2, 3)]),
    ("LSTM", (3, 4), {"num_layers": 3, "bias": False, "batch_first": True}, [floats(2, 5, 3)]),
    ("LSTM", (3, 4, 2), {"bidirectional": True, "proj_size": 2}, [floats(5, 3)]),
    ("RNNCell", (3, 4), {}, [floats(2, 3)]),
    ("RNNCell", (3, 4, False, "relu"), {}, [floats(2, 3), floats(2, 4)]),
    ("GRUCell", (3, 4), {}, [floats(2, 3), floats(2, 4)]),
    ("GRUCell", (3, 4, False), {}, [floats(3)]),
    ("LSTMCell", (3, 4), {}, [floats(2, 3)]),
    ("LSTMCell", (3, 4, False), {}, [floats(3)]),
]
for _kind, _n in itertools.product(("Circular", "Constant", "Reflection", "Replication", "Zero"), (1, 2, 3)):
    _image = floats(2, 3, *(5, 4, 6)[:_n])
    _value = (0.5,) if _kind == "Constant" else ()
    LAYERS += [
        (f"{_kind}Pad{_n}d", (2, *_value), {}, [_image]),
        (f"{_kind}Pad{_n}d", (tuple(range(2 * _n))[::-1] if _n == 1 else (1, 2) * _n, *_value), {}, [_image]),
    ]
IDS = [f"{row[0]}-{i}" for i, row in enumerate(LAYERS)]


def tensors(output: Any) -> list[Any]:
    """The tensors of an output: itself, or those of a tuple, which may hold tuples (an LSTM's state)."""
    return [t for part in output for t in tensors(part)] if isinstance(output, tuple) else [output]


def first(output: Any) -> Any:
    return tensors(output)[0]


def both(name: str, args: tuple, kwargs: dict) -> tuple[nn.Module, torch.nn.Module]:
    """The layer and torch's, in float64, from the same values."""
    ours, theirs = getattr(nn, name)(*args, **kwargs).double(), getattr(torch.nn, name)(*args, **kwargs).double()
    theirs.load_state_dict({key: value.data.clone() for key, value in ours.state_dict().items()})
    return ours, theirs
