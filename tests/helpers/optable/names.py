"""The public ops, as API.md lists them."""

_NAMES = """
neg abs sign exp expm1 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan asin acos atan sinh cosh tanh
sigmoid erf floor ceil round clamp relu leaky_relu elu selu celu gelu silu mish softplus softsign logsigmoid hardtanh
relu6 add sub mul div pow maximum minimum fmod remainder atan2 where lerp addcmul addcdiv isnan isfinite
eq ne lt le gt ge
sum mean var std amax amin max min prod norm logsumexp cumsum cumprod argmax argmin all any
reshape view flatten unflatten transpose permute movedim squeeze unsqueeze expand broadcast_to repeat tile cat stack
split chunk unbind flip roll pad narrow select index_select gather scatter_add take_along_dim masked_fill tril triu
diagonal sort topk
matmul mm bmm mv dot outer addmm baddbmm linear einsum
conv1d conv2d conv_transpose2d unfold fold interpolate upsample_nearest2d max_pool2d avg_pool2d adaptive_avg_pool2d
batch_norm layer_norm group_norm dropout embedding softmax log_softmax one_hot scaled_dot_product_attention
mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss binary_cross_entropy
binary_cross_entropy_with_logits kl_div
"""

PUBLIC = _NAMES.split()
