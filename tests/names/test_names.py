"""The public names: what `tapegrad` offers, and nothing else. A new name is added here, in API.md and in the stub."""

import importlib

import tapegrad as tg
from tapegrad import nn, optim

MODULES = """
accelerator amp autograd backends callbacks compiler cuda data distributed distributions func hub jit linalg
multiprocessing nn optim plot profiler random sparse special testing utils
"""

TAPE = """
Entry Tape Tensor checkpoint compile detect_anomaly enable_grad export_c from_torch grad gradcheck gradgradcheck
is_grad_enabled load no_grad op run_together save set_grad_enabled to_torch autocast is_autocast_enabled vmap
"""

DTYPES = "bool double float float32 float64 int int8 int16 int32 int64 long uint8"

ERRORS = """
ArgumentError CompileError DTypeError GradcheckError MutationError NonFiniteError OpError ShapeError StateError
TapeError TapegradError OutOfMemoryError
"""

# torch's own things, and the switches of a process
SETTINGS = """
channels_last_3d get_deterministic_debug_mode layout memory_format set_deterministic_debug_mode
Size are_deterministic_algorithms_enabled bfloat16 channels_last complex128 complex64 contiguous_format device dtype e
finfo float16 get_default_device get_default_dtype get_float32_matmul_precision get_num_interop_threads
get_num_threads get_rng_state half iinfo inf inference_mode initial_seed is_inference_mode_enabled nan newaxis pi
preserve_format seed set_default_device set_default_dtype set_default_tensor_type set_float32_matmul_precision
set_flush_denormal set_num_interop_threads set_num_threads set_printoptions set_rng_state short strided
use_deterministic_algorithms version
"""

OPS = """
BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor Generator IntTensor LongTensor ShortTensor ValuesIndices
abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool2d_backward adaptive_max_pool1d
adaptive_max_pool2d add addcdiv addcmul addmm addmv addr affine_grid alias all allclose alpha_dropout amax amin
aminmax any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere
as_strided as_strided_scatter as_tensor
asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool2d_backward baddbmm
batch_norm bernoulli bilinear binary_cross_entropy binary_cross_entropy_with_logits bincount bitwise_and bitwise_not
bitwise_or bitwise_xor block_diag bmm broadcast_tensors broadcast_to bucketize can_cast cartesian_prod cat cdist
ceil celu channel_shuffle cholesky chunk clamp clip clone column_stack combinations concat concatenate
constant_pad_nd contiguous conv1d conv2d conv2d_input_grad conv2d_weight_grad conv3d conv_transpose1d
conv_transpose2d copysign cos cosh cosine_embedding_loss cosine_similarity count_nonzero cross cross_entropy ctc_loss
cummax
cummin cumprod cumsum default_generator deg2rad det diag diag_embed diagonal diagonal_backward diff digamma dist div
divide dot dropout dropout1d dropout2d dropout3d dstack eigh eigvalsh einsum elu embedding embedding_bag empty
empty_like eq equal erf erfc erfinv exp exp2 expand expm1 eye feature_alpha_dropout fix flatten flip fliplr flipud
floor floor_divide fmax fmin fmod fold frac from_numpy full full_like gather gaussian_nll_loss ge gelu ger getitem
getitem_backward glu greater greater_equal grid_sample group_norm gt gumbel_softmax hamming_window hann_window
hardshrink hardsigmoid hardswish hardtanh heaviside hinge_embedding_loss histc histogram hsplit hstack huber_loss
hypot index_add index_copy index_fill index_put index_select inner instance_norm interpolate inverse
is_floating_point is_tensor isclose isfinite isin isinf isnan isneginf isposinf isreal kl_div kron kthvalue l1_loss
layer_norm le leaky_relu lerp less less_equal lgamma linear linear_recurrence linspace local_response_norm log log10
log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit
logsigmoid logsumexp lp_pool1d lp_pool2d lt manual_seed margin_ranking_loss masked_fill masked_scatter masked_select
matmul matrix_exp matrix_power max max_pool1d max_pool2d max_pool2d_backward maximum mean median meshgrid min
minimum mish mm moveaxis movedim mse_loss mul multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss
multinomial multiply mv nan_to_num nanmean nanmedian nanquantile nansum narrow ne neg negative nll_loss nonzero norm
normal normalize not_equal numel one_hot ones ones_like outer pad pairwise_distance permute pinverse pixel_shuffle
pixel_unshuffle poisson_nll_loss polygamma pow prelu prod promote_types qr quantile rad2deg rand rand_like randint
randn randn_like randperm ravel reciprocal relu relu6 remainder repeat repeat_interleave reshape result_type
rms_norm roll rot90 round rrelu rsqrt scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted
select select_scatter selu sgn sigmoid sign signbit silu sin sinc sinh slice_scatter slogdet smooth_l1_loss
soft_margin_loss softmax softmin softplus softshrink softsign solve solve_triangular sort split sqrt square squeeze
stack std std_mean sub subtract sum svd svdvals swapaxes swapdims take take_along_dim tan tanh tanhshrink tensor
tensor_split tensordot threshold tile to_dtype topk trace transpose tril tril_indices triplet_margin_loss
triplet_margin_with_distance_loss triu triu_indices true_divide trunc unbind unflatten unfold unique
unique_consecutive unsqueeze upsample_conv2d upsample_nearest2d upsample_nearest2d_backward vander var var_mean vdot
view vsplit vstack where xlogy zeros zeros_like
addbmm adjoint asarray bartlett_window bitwise_left_shift bitwise_right_shift blackman_window broadcast_shapes
chain_matmul cholesky_inverse cholesky_solve clamp_max clamp_min conj corrcoef cov cumulative_trapezoid detach
diagflat diagonal_scatter dsplit empty_strided fill float_power frombuffer gcd get_device is_complex is_nonzero
is_signed kaiser_window lcm ldexp logspace lu lu_solve lu_unpack mode msort mvlgamma nextafter pdist positive
randint_like real renorm row_stack rsub scalar_tensor sparse_coo_tensor split_with_sizes spmm t trapezoid trapz
typename unravel_index unsafe_chunk unsafe_split
"""

# torch's rarer functions
FURTHER = """
adaptive_avg_pool3d adaptive_max_pool3d alias_copy angle as_strided_copy avg_pool3d conj_physical
conv_transpose3d detach_copy diagonal_copy empty_permuted expand_copy fractional_max_pool2d
fractional_max_pool3d frexp from_dlpack geqrf gradient histogramdd i0 igamma igammac index_reduce is_conj
is_distributed is_inference is_neg is_same_size linear_cross_entropy lp_pool3d max_pool3d max_unpool1d max_unpool2d
max_unpool3d narrow_copy nonzero_static orgqr ormqr pca_lowrank permute_copy put range resolve_conj resolve_neg
select_copy split_copy split_with_sizes_copy squeeze_copy sum_to_size svd_lowrank t_copy transpose_copy
triangular_solve unbind_copy unfold_copy unsafe_split_with_sizes unsqueeze_copy view_copy
"""

PUBLIC = " ".join((MODULES, TAPE, DTYPES, ERRORS, SETTINGS, OPS, FURTHER)).split()


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
