"""CPU training of PortraitNet, several times faster than with Paddle's own kernels.

`accelerate(model)` replaces only the `forward` of the model's blocks. The definition in `models/`,
the parameters and the checkpoints stay the same. Activations between PortraitNet's blocks are
(N, H, W, C), those of PortraitNetLite stay (N, C, H, W) (`planes.h`); inputs and outputs of the
model keep their layout. An accelerated model is for training and
evaluation in Python. Use one without acceleration to count operations or to export. The arithmetic
is in the headers (start with `basics.h`), the interface to Paddle in `ops.cpp`.
"""

import ctypes
import functools
import math
import os
import pathlib
import types
from collections.abc import Callable, Sequence
from ctypes import c_size_t, c_void_p

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

import losses
from kernels.build import BuildError, load_operators
from models import D_block, InvertedResidual, PortraitNet
from models.lite import Conv, PixelHead, PortraitNetLite
from models.mobilenetv2 import ConvBN
from models.portraitnet import Upsample
from portraitnet.parallel import core_count

POINTWISE, DEPTHWISE, STEM = 0, 1, 2  # `Kind` in ops.cpp
ACTIVATIONS = {None: 0, F.relu: 1, F.hardswish: 2}  # `Activation` in planes.h
LIMITS = {None: (-math.inf, math.inf), F.relu: (0.0, math.inf), F.relu6: (0.0, 6.0)}

_operators = None


def keep_memory() -> bool:
    """Let the process keep freed memory, in large pages; call this before the first tensor.

    By default glibc maps memory for every large tensor, and the system clears each 4 KB page on its
    first use. After this call all memory comes from one heap that never shrinks. Half of the
    machine's memory is reserved in the heap as 2 MB pages, which need fewer address translations.
    Reserved memory is not used yet.

    Returns:
        Whether the C library and the system support these settings (Linux with glibc).
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = libc.mallopt, libc.malloc, libc.free, libc.madvise
    except (AttributeError, OSError, TypeError):
        return False
    # From malloc.h: no mmap for large blocks, never trim the heap. From mman.h: advise huge pages.
    mmap_max, trim_threshold, madvise_hugepage, page = (-4, 0), (-1, -1), 14, 2 * 2**20
    if not mallopt(*mmap_max) or not mallopt(*trim_threshold):
        return False
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // page * page
    malloc.argtypes, malloc.restype, free.argtypes = [c_size_t], c_void_p, [c_void_p]
    block = malloc(size)
    if block is None:
        return False
    start = -(-block // page) * page
    done = madvise(c_void_p(start), c_size_t(size - page), madvise_hugepage)
    free(block)
    return done == 0


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 (AVX512-BF16, on x86 with Linux)."""
    try:
        return "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def accelerate(model: PortraitNet, threads: int | None = None, half: bool = False) -> str:
    """Let a model use the fused kernels if the machine supports them.

    Args:
        model: PortraitNet with float32 parameters; changed in place.
        threads: threads of the kernels; None for every core that this process may use.
        half: whether raw activations inside the blocks are stored and multiplied as bfloat16. Sums,
            statistics, weights and their gradients stay float32. Needs `has_bfloat16()`.

    Returns:
        A sentence for the user: the kernels in use, and the reason if they are Paddle's.

    Raises:
        RuntimeError: `half` is not supported.
        TypeError: `model` is not a PortraitNet.
    """
    if not isinstance(model, PortraitNet):
        raise TypeError(
            f"accelerate() wants a PortraitNet, got {type(model).__name__}: "
            "pass the model before wrapping it"
        )
    obstacle = _obstacle(model, half)
    if obstacle and half:
        raise RuntimeError(
            f"Mixed precision is not available on this CPU, because {obstacle}; leave it out."
        )
    if obstacle:
        return f"Kernels: Paddle's own, because {obstacle}."
    threads = threads or core_count()
    _replace_forwards(model, half, threads)
    message = f"{threads} thread{'s' if threads > 1 else ''}{', bfloat16' if half else ''}"
    return f"Kernels: this project's fused C++ kernels, {message}."


def _obstacle(model, half):
    """The reason why a model cannot use the fused kernels, or None; builds and loads them."""
    global _operators
    place = paddle.framework._current_expected_place()
    if not place.is_cpu_place():
        return f"the device is {place} and the fused kernels are for a CPU"
    if any(p.dtype != paddle.float32 for p in model.parameters()):
        return "the fused kernels need float32 parameters"
    if half and not has_bfloat16():
        return "this processor has no AVX512-BF16"
    if half and isinstance(model, PortraitNetLite):
        return "the kernels of PortraitNetLite compute in float32"
    if _operators is None:
        try:
            _operators = load_operators()
        except BuildError as error:
            return str(error)
    return None


def move_average(
    means: Sequence[paddle.Tensor], values: Sequence[paddle.Tensor], weight: float
) -> None:
    """mean += weight * (value - mean) for every pair of tensors, in place.

    Args:
        means, values: float32 tensors; the shapes of each pair are equal.
        weight: 0..1.
    """
    if _operators is not None and means[0].place.is_cpu_place():
        _operators.average(means, values, weight)
        return
    # One tensor for all, because Paddle leaks 110 bytes for every number that it converts.
    weight = paddle.full([], weight)
    with paddle.no_grad():
        for mean, value in zip(means, values, strict=True):
            mean.lerp_(value, weight)


def portrait_loss(
    mask_logits: paddle.Tensor,
    edge_logits: paddle.Tensor | None,
    mask: paddle.Tensor,
    edge: paddle.Tensor | None,
    edge_weight: float,
    consistency_weight: float,
    temperature: float = 1.0,
    threads: int | None = None,
) -> dict[str, paddle.Tensor]:
    """`losses.portrait_loss`, as one fused operator if the kernels are loaded and support it.

    Of the fused operator's terms only `total` has a gradient.

    Args:
        mask_logits, edge_logits, mask, edge, edge_weight, consistency_weight, temperature: see
            `losses.portrait_loss`.
        threads: threads of the kernel; None for every core that this process may use.

    Returns, raises: see `losses.portrait_loss`.
    """
    n, *size = mask.shape
    fused = (
        _operators is not None
        and mask_logits.place.is_cpu_place()
        and mask_logits.shape in ([n, 2, *size], [2 * n, 2, *size])
        and size[-1] % 8 == 0
        and (not edge_weight or edge is not None and edge.shape == mask.shape)
        and (not edge_weight or edge_logits is not None and edge_logits.shape == mask_logits.shape)
        and (not consistency_weight or mask_logits.shape[0] > n)
        and temperature > 0
    )
    weights = edge_weight, consistency_weight, temperature
    threads = threads or core_count()
    if not fused:
        return losses.portrait_loss(mask_logits, edge_logits, mask, edge, *weights)
    logits = [mask_logits, edge_logits] if edge_weight else [mask_logits]
    labels = [label.astype("float32") for label in (mask, edge)[: len(logits)]]
    total, *terms = LossFunction.apply(*logits, labels=labels, weights=weights, threads=threads)
    return dict(zip(("mask", "edge", "consistency"), terms)) | {"total": total}


def _replace_forwards(model, half, threads):
    """Bind the functions below as `forward` of the blocks, in a way that deep copies keep."""

    def replace(layer, function, **settings):
        layer.forward = types.MethodType(functools.partial(function, **settings), layer)

    if isinstance(model, PortraitNetLite):
        for layer in model.sublayers():
            if isinstance(layer, Conv):
                replace(layer, _lite_conv_forward, threads=threads)
            elif isinstance(layer, PixelHead):
                replace(layer, _lite_head_forward, threads=threads)
        return
    replace(model, _network_forward, threads=threads)
    replace(model.encoder, _encoder_forward, half=half, threads=threads)
    for head in (model.mask_head, model.edge_head):
        replace(head, _head_forward, threads=threads)
    for layer in model.sublayers():
        if isinstance(layer, InvertedResidual):
            replace(layer, _inverted_residual_forward, half=half, threads=threads)
        elif isinstance(layer, D_block):
            replace(layer, _d_block_forward, half=half, threads=threads)
        elif isinstance(layer, Upsample):
            half_out = half and layer is model.up1
            replace(layer, _upsample_forward, half=half, half_out=half_out, threads=threads)


def _network_forward(self, batch, threads=1):
    return Heads.apply(self.features(batch), threads, self.mask_head.weight, self.edge_head.weight)


def _head_forward(self, x, threads=1):
    return Heads.apply(x, threads, self.weight)


def _encoder_forward(self, batch, half=False, threads=1):
    """See MobileNetV2. A block whose output only the next block reads joins that block's chain."""
    x, features, layers = batch, [], [self.stem]
    if not batch.stop_gradient:  # the fused stem has no gradient of the batch; use Paddle's
        x, layers = type(self.stem).forward(self.stem, batch).transpose([0, 2, 3, 1]), []
    for i, stage in enumerate(self.stages):
        for block in stage:
            if block.has_shortcut:
                x, layers = block(chain(x, layers, half, threads)), []
            else:
                layers += [block.expand, block.depthwise, block.project]
        if i in self.skip_stages:
            x, layers = chain(x, layers, half, threads), []
            features.append(x)
    return features


def _inverted_residual_forward(self, x, half=False, threads=1):
    layers = [self.expand, self.depthwise, self.project]
    return chain(x, layers, half, threads, x if self.has_shortcut else None)


def _d_block_forward(self, x, half=False, threads=1):
    shortcut = x if self.shortcut is None else chain(x, [self.shortcut], half, threads)
    return chain(x, list(self.block), half, threads, shortcut, F.relu)


def _upsample_forward(self, x, half=False, half_out=False, threads=1):
    return UpsampleFunction.apply(x, self.weight, half, half_out, threads)


def _lite_conv_forward(self, x, threads=1):
    return _lite_convolution(self.conv, x, self.activation, threads)


def _lite_head_forward(self, x, threads=1):
    return F.pixel_shuffle(_lite_convolution(self.conv, x, None, threads), 2)


def _lite_convolution(conv, x, activation, threads):
    """See `models.lite.Conv`; `conv` is its convolution."""
    weight, apply = conv.weight, PlanesFunction.apply
    if conv._groups > 1:
        x = apply(x, weight, conv._stride[0], conv._padding[0], threads, name="planes")
    elif weight.shape[2] == 1 and weight.shape[1] % 8 == 0:
        x = apply(x, weight, threads, name="mix")
    else:  # the first layer
        x = F.conv2d(x, weight, None, conv._stride, conv._padding)
    return apply(x, conv.bias, ACTIVATIONS[activation], threads, name="bias")


def chain(
    x: paddle.Tensor,
    layers: Sequence[ConvBN],
    half: bool = False,
    threads: int = 1,
    residual: paddle.Tensor | None = None,
    activation: Callable | None = None,
) -> paddle.Tensor:
    """activation(layers(x) + residual).

    Args:
        x: (N, H, W, C) float32; (N, 3, H, W) if the first layer is the stem.
        layers: ConvBN layers; without layers the result is x.
        half: whether activations inside the chain are stored as bfloat16.
        threads: threads of the kernels.
        residual: tensor with the shape of the result, or None.
        activation: `F.relu6`, `F.relu`, or None for the last layer's own activation.

    Returns:
        (N, H', W', C') float32.
    """
    if not layers:
        return x
    parameters = [
        p for layer in layers for p in (layer.conv.weight, layer.bn.weight, layer.bn.bias)
    ]
    activation = activation or layers[-1].activation
    return Chain.apply(x, residual, layers, activation, half, threads, *parameters)


def select_wanted(*inputs: paddle.Tensor) -> Callable[..., tuple]:
    """A function of all gradients that replaces those of inputs without gradient by None.

    Paddle requires that of a PyLayer's `backward`.
    """
    wanted = [not tensor.stop_gradient for tensor in inputs]
    return lambda *gradients: tuple(g if want else None for want, g in zip(wanted, gradients))


class Chain(PyLayer):
    """A sequence of ConvBN layers.

    For the backward pass the context keeps the raw outputs of the convolutions, their (4, C) norms
    and, after an activation, the result. Normalised and activated values are computed again. The
    only backward pass drops each tensor directly after its use. Otherwise Paddle would free the
    context only after the whole pass, which would raise the peak memory.
    """

    @staticmethod
    def forward(ctx, x, residual, layers, activation, half, threads, *parameters):
        ctx.wanted = select_wanted(x, *((residual,) if residual is not None else ()), *parameters)
        ctx.steps, raw, norm, limits = [], x, None, LIMITS[None]
        for layer, weight, gamma, beta in zip(
            layers, parameters[::3], parameters[1::3], parameters[2::3]
        ):
            bn, conv = layer.bn, layer.conv
            kind = DEPTHWISE if conv._groups > 1 else POINTWISE if weight.shape[2] == 1 else STEM
            training = bn.training and not bn._use_global_stats
            y, y_norm = _operators.conv_forward(
                raw, norm, weight, gamma, beta, bn._mean, bn._variance,
                kind, conv._stride[0], *limits, training, bn._momentum, bn._epsilon, half, threads,
            )  # fmt: skip
            ctx.steps.append(
                (y, y_norm, raw, norm, weight, kind, conv._stride[0], *limits, training, threads)
            )
            raw, norm, limits = y, y_norm, LIMITS[layer.activation]
        ctx.limits, ctx.has_residual = LIMITS[activation], residual is not None
        ctx.threads = threads
        out = _operators.finish_forward(raw, norm, residual, *ctx.limits, threads)[0]
        # Detached, because the result would otherwise refer to its own context for ever.
        ctx.out = out.detach() if activation else None
        return out

    @staticmethod
    def backward(ctx, dout):
        y, y_norm = ctx.steps[-1][:2]
        dz, sums, dresidual = _operators.finish_backward(
            dout, ctx.out, y, y_norm, *ctx.limits, ctx.has_residual, ctx.threads
        )
        del ctx.out, y
        gradients = []
        while ctx.steps:
            dz, sums, *layer_gradients = _operators.conv_backward(dz, sums, *ctx.steps.pop())
            gradients = layer_gradients + gradients
        return ctx.wanted(dz, *((dresidual,) if ctx.has_residual else ()), *gradients)


class UpsampleFunction(PyLayer):
    """The 4x4 stride-2 transposed convolution: (N, H, W, C) -> (N, 2H, 2W, C)."""

    @staticmethod
    def forward(ctx, x, weight, half, half_out, threads):
        ctx.saved, ctx.wanted = (x, weight, half, threads), select_wanted(x, weight)
        return _operators.upsample_forward(x, weight, half, half_out, threads)[0]

    @staticmethod
    def backward(ctx, dy):
        saved, ctx.saved = ctx.saved, None
        return ctx.wanted(*_operators.upsample_backward(dy, *saved))


class PlanesFunction(PyLayer):
    """An operator of planes.h on (N, C, H, W) with one parameter: planes, mix or bias."""

    @staticmethod
    def forward(ctx, x, parameter, *settings, name):
        ctx.name, ctx.saved = name, (x, parameter, *settings)
        ctx.wanted = select_wanted(x, parameter)
        return getattr(_operators, f"{name}_forward")(*ctx.saved)[0]

    @staticmethod
    def backward(ctx, dy):
        saved, ctx.saved = ctx.saved, None
        return ctx.wanted(*getattr(_operators, f"{ctx.name}_backward")(dy, *saved))


class Heads(PyLayer):
    """One or two 3x3 heads: (N, H, W, C) -> logits (N, n, H, W) each."""

    @staticmethod
    def forward(ctx, x, threads, *weights):
        ctx.counts, ctx.wanted = [weight.shape[0] for weight in weights], select_wanted(x, *weights)
        ctx.saved, ctx.threads = (x, paddle.concat(weights)), threads
        logits = _operators.heads_forward(*ctx.saved, ctx.counts, threads)
        return tuple(logits) if len(weights) == 2 else logits[0]

    @staticmethod
    def backward(ctx, *dlogits):
        first, second = (*dlogits, None)[:2]
        saved, ctx.saved = ctx.saved, None
        dx, dweight = _operators.heads_backward(first, second, *saved, ctx.threads)
        return ctx.wanted(dx, *paddle.split(dweight, ctx.counts))


class LossFunction(PyLayer):
    """One or two logits (N or 2N, 2, H, W) -> total, mask, edge, consistency; see `losses`."""

    @staticmethod
    def forward(ctx, mask_logits, edge_logits=None, *, labels, weights, threads):
        mask, edge = (*labels, None)[:2]
        terms, dmask, dedge = _operators.loss(
            mask_logits, mask, edge_logits, edge, *map(float, weights), threads
        )
        ctx.gradients = [dmask, dedge][: len(labels)]
        *parts, total = paddle.unbind(terms)
        ctx.mark_non_differentiable(*parts)
        return total, *parts

    @staticmethod
    def backward(ctx, dtotal, *_):
        gradients, ctx.gradients = ctx.gradients, None
        scale = dtotal.item()
        return tuple(gradients if scale == 1 else [scale * each for each in gradients])
