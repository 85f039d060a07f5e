"""The public names: what `tapegrad` offers, and nothing else. A new name is added here, in API.md and in the stub."""

import importlib

import tapegrad as tg
from tapegrad import nn, optim

MODULES = "data func nn optim plot"

TAPE = """
Entry Tape Tensor checkpoint compile detect_anomaly enable_grad from_torch grad gradcheck gradgradcheck
is_grad_enabled load no_grad op save set_grad_enabled to_torch
"""

DTYPES = "bool double float float32 float64 int16 int32 int64 int8 long uint8"

ERRORS = """
ArgumentError CompileError DTypeError GradcheckError MutationError NonFiniteError OpError ShapeError StateError
TapeError TapegradError
"""

OPS = """
Generator ValuesIndices abs acos adaptive_avg_pool2d adaptive_avg_pool2d_backward add addcdiv addcmul addmm alias all
amax amin any arange argmax argmin argsort as_tensor asin atan atan2 avg_pool2d avg_pool2d_backward baddbmm batch_norm
binary_cross_entropy binary_cross_entropy_with_logits bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_to
cat ceil celu chunk clamp clone constant_pad_nd contiguous conv1d conv2d conv2d_input_grad conv2d_weight_grad
conv_transpose2d cos cosh cross_entropy cumprod cumsum default_generator diagonal diagonal_backward div dot dropout
einsum elu embedding empty empty_like eq erf exp expand expm1 eye flatten flip floor floor_divide fmod fold from_numpy
full full_like gather ge gelu getitem getitem_backward group_norm gt hardtanh huber_loss index_add index_select
interpolate isfinite isinf isnan kl_div l1_loss layer_norm le leaky_relu lerp linear linear_recurrence linspace log
log10 log1p log2 log_softmax logical_and logical_not logical_or logical_xor logsigmoid logsumexp lt manual_seed
masked_fill matmul max max_pool2d max_pool2d_backward maximum mean min minimum mish mm movedim mse_loss mul mv narrow
ne neg nll_loss norm one_hot ones ones_like outer pad permute pow prod rand rand_like randint randn randn_like
randperm reciprocal relu relu6 remainder repeat reshape roll round rsqrt scaled_dot_product_attention scatter_add
select selu sigmoid sign silu sin sinh smooth_l1_loss softmax softplus softsign sort split sqrt square squeeze stack
std sub sum take_along_dim tan tanh tensor tile to_dtype topk transpose tril triu trunc unbind unflatten unfold
unsqueeze upsample_conv2d upsample_nearest2d upsample_nearest2d_backward var view where zeros zeros_like
"""


PUBLIC = " ".join((MODULES, TAPE, DTYPES, ERRORS, OPS)).split()


def test_the_package_shows_its_public_names_only():
    shown = [name for name in dir(tg) if not name.startswith("__")]
    assert sorted(shown) == sorted(PUBLIC)
    assert sorted(tg.__all__) == sorted(PUBLIC)
    assert all(hasattr(tg, name) for name in PUBLIC)


def test_a_star_import_gives_them():
    scope: dict[str, object] = {}
    exec("from tapegrad import *", scope)
    assert set(PUBLIC) == set(scope) - {"__builtins__"}


def test_modules_can_be_imported_by_name():
    for name in MODULES.split():
        assert importlib.import_module(f"tapegrad.{name}") is getattr(tg, name)


def test_public_modules_show_what_they_offer():
    for module in (tg.data, tg.func, tg.plot, nn, optim, nn.functional):
        assert all(hasattr(module, name) for name in module.__all__), module.__name__
