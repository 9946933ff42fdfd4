// The kernels as Paddle operators: tensors in, tensors out. These operators have no gradient of
// their own, because the PyLayers of kernels/__init__.py call the backward passes.
#include "dense.h"
#include "depthwise.h"
#include "loss.h"
#include "paddle/extension.h"
#include "planes.h"
#include "pointwise.h"
#include "pool.h"

using paddle::Tensor;
using namespace portraitnet;

namespace {

enum Kind { POINTWISE = 0, DEPTHWISE = 1, STEM = 2 };
// The rows of a `norm` tensor (4, channels) that accompanies every raw tensor.
enum Row { SCALE = 0, SHIFT = 1, MEAN = 2, INVERSE_STD = 3, ROWS = 4 };

// Activations inside a chain of convolutions are float, or bfloat16 if the processor multiplies it.
// All other values are float.
#ifdef __AVX512BF16__
typedef BFloat16 Half;
#else
typedef float Half;
#endif

Tensor empty(const std::vector<int64_t>& shape, paddle::DataType type = paddle::DataType::FLOAT32) {
  int64_t size = phi::SizeOf(type);
  for (int64_t side : shape) size *= side;
  void* memory = size_t(size) < Pool::MIN_SIZE ? nullptr : Pool::the().take(size);
  if (!memory) return paddle::empty(shape, type, paddle::CPUPlace());
  return paddle::from_blob(memory, shape, type, paddle::DataLayout::NCHW, paddle::CPUPlace(),
                           [](void* block) { Pool::the().give(block); });
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data());
}
template <class T>
T* data(Tensor& tensor) {
  return static_cast<T*>(tensor.data());
}

bool is_half(const Tensor& tensor) { return tensor.dtype() == paddle::DataType::BFLOAT16; }

// Calls work(X(), Y()) with the types of a convolution's input and output.
template <class Work>
void with_types(bool x_half, bool y_half, Work work) {
  if (x_half)
    work(Half(), Half());
  else if (y_half)
    work(float(), Half());
  else
    work(float(), float());
}

Norm norm_of(const paddle::optional<Tensor>& tensor, float low, float high) {
  Norm norm;
  if (!tensor) return norm;
  const int64_t channels = tensor->shape()[1];
  const float* rows = tensor->data<float>();
  norm.scale = rows + SCALE * channels;
  norm.shift = rows + SHIFT * channels;
  norm.mean = rows + MEAN * channels;
  norm.low = low;
  norm.high = high;
  return norm;
}

// Mean and variance of each channel of y (count, channels).
struct Statistics {
  std::vector<double> mean, variance;
  template <class Y>
  Statistics(const Sums& sums, const Y* y, int64_t count)
      : mean(sums.channels), variance(sums.channels) {
    const int channels = sums.channels;
    sums.total(mean.data(), variance.data());
    for (int c = 0; c < channels; ++c) {
      mean[c] /= count;
      variance[c] = std::max(0.0, variance[c] / count - mean[c] * mean[c]);
    }
    // The few values of a small map may lie close together, far from 0. Then the squares, summed in
    // float, have lost their difference.
    if (count > FEW_VALUES) return;
    std::fill(variance.begin(), variance.end(), 0);
    for (int64_t i = 0; i < count * channels; ++i) {
      const double distance = value(y[i]) - mean[i % channels];
      variance[i % channels] += distance * distance / count;
    }
  }

 private:
  static constexpr int64_t FEW_VALUES = 64;
  static float value(float y) { return y; }
#ifdef __AVX512BF16__
  static float value(BFloat16 y) {
    const uint32_t bits = uint32_t(y.bits) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof(out));
    return out;
  }
#endif
};

// Mean and variance as scale and shift. In training they are those of the batch, and the running
// statistics are updated; otherwise they are the running statistics.
Tensor make_norm(const Statistics& batch, const Tensor& gamma, const Tensor& beta,
                 const Tensor& running_mean, const Tensor& running_variance, bool training,
                 float momentum, float epsilon) {
  const int channels = int(batch.mean.size());
  Tensor out = empty({ROWS, channels});
  float* rows = out.data<float>();
  // Paddle's own batch_norm also writes its running statistics in place.
  float* old_mean = const_cast<float*>(running_mean.data<float>());
  float* old_variance = const_cast<float*>(running_variance.data<float>());
  for (int c = 0; c < channels; ++c) {
    double mean = old_mean[c], variance = old_variance[c];
    if (training) {
      mean = batch.mean[c], variance = batch.variance[c];
      old_mean[c] = momentum * old_mean[c] + (1 - momentum) * float(mean);
      old_variance[c] = momentum * old_variance[c] + (1 - momentum) * float(variance);
    }
    const double inverse_std = 1 / std::sqrt(variance + epsilon);
    const double scale = gamma.data<float>()[c] * inverse_std;
    rows[SCALE * channels + c] = float(scale);
    rows[SHIFT * channels + c] = float(beta.data<float>()[c] - mean * scale);
    rows[MEAN * channels + c] = float(mean);
    rows[INVERSE_STD * channels + c] = float(inverse_std);
  }
  return out;
}

// The per-channel part of BatchNorm's backward pass; see `Gradient`. `sums` (2, C) float64 are
// those of dz and dz * (raw - mean).
Gradient make_gradient(const Tensor& norm, const Tensor& sums, int64_t count, bool training,
                       float* dgamma, float* dbeta) {
  const int channels = int(norm.shape()[1]);
  const float* rows = norm.data<float>();
  const double *one = sums.data<double>(), *two = one + channels;
  Gradient gradient{std::vector<float>(channels), std::vector<float>(channels),
                    std::vector<float>(channels)};
  for (int c = 0; c < channels; ++c) {
    const double scale = rows[SCALE * channels + c], mean = rows[MEAN * channels + c];
    const double inverse_std = rows[INVERSE_STD * channels + c];
    dbeta[c] = float(one[c]);
    dgamma[c] = float(two[c] * inverse_std);
    // The batch's statistics enter the gradient; running statistics are constants.
    const double slope = training ? -scale * inverse_std * inverse_std * two[c] / count : 0;
    gradient.a[c] = float(scale);
    gradient.b[c] = float(slope);
    gradient.c[c] = training ? float(-scale * one[c] / count - slope * mean) : 0.f;
  }
  return gradient;
}

Tensor sums_tensor(const Sums& sums) {
  Tensor out = empty({2, sums.channels}, paddle::DataType::FLOAT64);
  sums.total(out.data<double>(), out.data<double>() + sums.channels);
  return out;
}

Grid grid_of(const Tensor& x, int stride) {
  const auto shape = x.shape();
  return {shape[0], int(shape[1]), int(shape[2]), int(shape[3]), stride};
}

Stem stem_of(const Tensor& x, const Tensor& weight) {
  const auto shape = x.shape();
  return {shape[0], int(shape[2]), int(shape[3]), int(weight.shape()[0])};
}

}  // namespace

// Convolution with the statistics of its BatchNorm: raw output (bfloat16 if `half`) and its norm.
std::vector<Tensor> ConvForward(const Tensor& x, const paddle::optional<Tensor>& norm,
                                const Tensor& weight, const Tensor& gamma, const Tensor& beta,
                                const Tensor& running_mean, const Tensor& running_variance,
                                int kind, int stride, float low, float high, bool training,
                                float momentum, float epsilon, bool half, int threads) {
  const Norm in = norm_of(norm, low, high);
  const auto shape = x.shape();
  const int output_c = int(weight.shape()[0]);
  const float* w = data<float>(weight);
  const Grid grid = grid_of(x, stride);
  const Stem stem = stem_of(x, weight);
  std::vector<int64_t> y_shape{shape[0], shape[1], shape[2], output_c};
  if (kind == DEPTHWISE) y_shape = {shape[0], grid.out_height(), grid.out_width(), output_c};
  if (kind == STEM) y_shape = {shape[0], stem.out_height(), stem.out_width(), output_c};
  Tensor y = empty(y_shape, half ? paddle::DataType::BFLOAT16 : paddle::DataType::FLOAT32);
  Tensor out_norm;
  Sums sums(output_c);
  with_types(is_half(x), half, [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    if (kind == POINTWISE)
      pointwise_forward(data<X>(x), in, w, shape[0] * shape[1] * shape[2], int(shape[3]), output_c,
                        data<Y>(y), sums, threads);
    else if (kind == STEM)
      stem.forward(data<float>(x), w, data<Y>(y), sums, threads);
    else if (stride == 1)
      depthwise_forward<1>(data<X>(x), in, w, grid, data<Y>(y), sums, threads);
    else
      depthwise_forward<2>(data<X>(x), in, w, grid, data<Y>(y), sums, threads);
    out_norm = make_norm(Statistics(sums, data<Y>(y), y.numel() / output_c), gamma, beta,
                         running_mean, running_variance, training, momentum, epsilon);
  });
  return {y, out_norm};
}

// From the gradient dz of the normalised output with its sums to the gradient dx of the normalised
// input with its sums. dz has y's type, dx has x's type.
std::vector<Tensor> ConvBackward(const Tensor& dz, const Tensor& dz_sums, const Tensor& y,
                                 const Tensor& y_norm, const Tensor& x,
                                 const paddle::optional<Tensor>& norm, const Tensor& weight,
                                 int kind, int stride, float low, float high, bool training,
                                 int threads) {
  const Norm in = norm_of(norm, low, high);
  const auto shape = x.shape();
  const int output_c = int(weight.shape()[0]);
  const float* w = data<float>(weight);
  Tensor dweight = empty(weight.shape()), dgamma = empty({output_c}), dbeta = empty({output_c});
  const Gradient gradient = make_gradient(y_norm, dz_sums, y.numel() / output_c, training,
                                          data<float>(dgamma), data<float>(dbeta));
  Sums sums(kind == STEM ? 1 : int(shape[3]));
  // The image needs no gradient.
  Tensor dx = empty(kind == STEM ? std::vector<int64_t>{1} : shape, x.dtype());
  float* dw = data<float>(dweight);
  with_types(is_half(x), is_half(y), [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    if (kind == POINTWISE)
      pointwise_backward(data<Y>(dz), data<Y>(y), gradient, data<X>(x), in, w,
                         shape[0] * shape[1] * shape[2], int(shape[3]), output_c, data<X>(dx), sums,
                         dw, threads);
    else if (kind == STEM)
      stem_of(x, weight).backward(data<Y>(dz), data<Y>(y), gradient, data<float>(x), dw, threads);
    else if (stride == 1)
      depthwise_backward<1>(data<Y>(dz), data<Y>(y), gradient, data<X>(x), in, w,
                            grid_of(x, stride), data<X>(dx), sums, dw, threads);
    else
      depthwise_backward<2>(data<Y>(dz), data<Y>(y), gradient, data<X>(x), in, w,
                            grid_of(x, stride), data<X>(dx), sums, dw, threads);
  });
  return {dx, sums_tensor(sums), dweight, dgamma, dbeta};
}

// The end of a chain: activation(normalised raw + residual).
std::vector<Tensor> FinishForward(const Tensor& raw, const Tensor& norm,
                                  const paddle::optional<Tensor>& residual, float low, float high,
                                  int threads) {
  Tensor out = empty(raw.shape());
  with_types(false, is_half(raw), [&](auto, auto type) {
    finish_forward(data<decltype(type)>(raw), norm_of(norm, low, high),
                   residual ? data<float>(*residual) : nullptr, raw.numel() / raw.shape()[3],
                   int(raw.shape()[3]), data<float>(out), threads);
  });
  return {out};
}

// Gradient of the sum before the activation, in raw's type and as float, with its sums for the last
// BatchNorm.
std::vector<Tensor> FinishBackward(const Tensor& dout, const paddle::optional<Tensor>& out,
                                   const Tensor& raw, const Tensor& norm, float low, float high,
                                   bool has_residual, int threads) {
  Tensor dz = empty(raw.shape(), raw.dtype());
  const bool both = has_residual && is_half(raw);
  Tensor dresidual = both ? empty(raw.shape()) : dz;
  Sums sums(int(raw.shape()[3]));
  with_types(false, is_half(raw), [&](auto, auto type) {
    using T = decltype(type);
    finish_backward(data<float>(dout), out ? data<float>(*out) : nullptr, data<T>(raw),
                    norm_of(norm, low, high), raw.numel() / raw.shape()[3], data<T>(dz),
                    both ? data<float>(dresidual) : nullptr, sums, threads);
  });
  return {dz, sums_tensor(sums), dresidual};
}

// Products are in bfloat16 if `half` or `half_out`; the output is bfloat16 if `half_out`.
std::vector<Tensor> UpsampleForward(const Tensor& x, const Tensor& weight, bool half, bool half_out,
                                    int threads) {
  const auto shape = x.shape();
  Tensor y = empty({shape[0], 2 * shape[1], 2 * shape[2], shape[3]},
                   half_out ? paddle::DataType::BFLOAT16 : paddle::DataType::FLOAT32);
  with_types(half_out, half, [&](auto y_type, auto type) {
    using Y = decltype(y_type);
    Upsample{shape[0], int(shape[1]), int(shape[2]), int(shape[3])}.forward<decltype(type)>(
        data<float>(x), data<float>(weight), data<Y>(y), threads);
  });
  return {y};
}

std::vector<Tensor> UpsampleBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                                     bool half, int threads) {
  const auto shape = x.shape();
  Tensor dx = empty(shape), dweight = empty(weight.shape());
  with_types(is_half(dy), half, [&](auto y_type, auto type) {
    using Y = decltype(y_type);
    Upsample{shape[0], int(shape[1]), int(shape[2]), int(shape[3])}.backward<decltype(type)>(
        data<Y>(dy), data<float>(x), data<float>(weight), data<float>(dx), data<float>(dweight),
        threads);
  });
  return {dx, dweight};
}

Planes planes_of(const Tensor& x, const Tensor& weight, int stride, int before) {
  const auto shape = x.shape();
  return {shape[0] * shape[1], int(shape[1]), int(shape[2]), int(shape[3]),
          int(weight.shape()[2]), stride, before};
}

std::vector<Tensor> PlanesForward(const Tensor& x, const Tensor& weight, int stride, int before,
                                  int threads) {
  const Planes planes = planes_of(x, weight, stride, before);
  Tensor y = empty({x.shape()[0], planes.channels, planes.out_height(), planes.out_width()});
  planes.forward(data<float>(x), data<float>(weight), data<float>(y), threads);
  return {y};
}

std::vector<Tensor> PlanesBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                                   int stride, int before, int threads) {
  Tensor dx = empty(x.shape()), dweight = empty(weight.shape());
  planes_of(x, weight, stride, before)
      .backward(data<float>(dy), data<float>(x), data<float>(weight), data<float>(dx),
                data<float>(dweight), threads);
  return {dx, dweight};
}

Mix mix_of(const Tensor& x, const Tensor& weight) {
  const auto shape = x.shape();
  return {shape[0], int(shape[1]), int(weight.shape()[0]), int(shape[2] * shape[3])};
}

std::vector<Tensor> MixForward(const Tensor& x, const Tensor& weight, int threads) {
  Tensor y = empty({x.shape()[0], weight.shape()[0], x.shape()[2], x.shape()[3]});
  mix_of(x, weight).forward(data<float>(x), data<float>(weight), data<float>(y), threads);
  return {y};
}

std::vector<Tensor> MixBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                                int threads) {
  Tensor dx = empty(x.shape()), dweight = empty(weight.shape());
  mix_of(x, weight).backward(data<float>(dy), data<float>(x), data<float>(weight),
                             data<float>(dx), data<float>(dweight), threads);
  return {dx, dweight};
}

BiasActivation bias_of(const Tensor& x, int activation) {
  const auto shape = x.shape();
  return {shape[0] * shape[1], int(shape[1]), shape[2] * shape[3], Activation(activation)};
}

std::vector<Tensor> BiasForward(const Tensor& x, const Tensor& bias, int activation, int threads) {
  Tensor y = empty(x.shape());
  bias_of(x, activation).forward(data<float>(x), data<float>(bias), data<float>(y), threads);
  return {y};
}

std::vector<Tensor> BiasBackward(const Tensor& dy, const Tensor& x, const Tensor& bias,
                                 int activation, int threads) {
  Tensor dx = empty(x.shape()), dbias = empty(bias.shape());
  bias_of(x, activation).backward(data<float>(dy), data<float>(x), data<float>(bias),
                                  data<float>(dx), data<float>(dbias), threads);
  return {dx, dbias};
}

std::vector<Tensor> HeadsForward(const Tensor& x, const Tensor& weight,
                                 const std::vector<int>& counts, int threads) {
  const auto shape = x.shape();
  std::vector<Tensor> out;
  std::vector<float*> logits;
  for (int count : counts) {
    out.push_back(empty({shape[0], count, shape[1], shape[2]}));
    logits.push_back(out.back().data<float>());
  }
  with_types(is_half(x), false, [&](auto type, auto) {
    Heads{shape[0], int(shape[1]), int(shape[2]), int(shape[3]), counts}.forward(
        data<decltype(type)>(x), data<float>(weight), logits, threads);
  });
  if (out.size() == 1) out.push_back(empty({1}));
  return out;
}

std::vector<Tensor> HeadsBackward(const Tensor& first, const paddle::optional<Tensor>& second,
                                  const Tensor& x, const Tensor& weight, int threads) {
  const auto shape = x.shape();
  std::vector<const float*> dlogits{first.data<float>()};
  std::vector<int> counts{int(first.shape()[1])};
  if (second) {
    dlogits.push_back(second->data<float>());
    counts.push_back(int(second->shape()[1]));
  }
  Tensor dx = empty(shape, x.dtype()), dweight = empty(weight.shape());
  with_types(is_half(x), false, [&](auto type, auto) {
    using T = decltype(type);
    Heads{shape[0], int(shape[1]), int(shape[2]), int(shape[3]), counts}.backward(
        dlogits, data<T>(x), data<float>(weight), data<T>(dx), data<float>(dweight), threads);
  });
  return {dx, dweight};
}

// The terms of the loss, (4,): mask, edge, consistency, total; and the total's gradients.
std::vector<Tensor> LossForward(const Tensor& mask_logits, const Tensor& mask,
                                const paddle::optional<Tensor>& edge_logits,
                                const paddle::optional<Tensor>& edge, float edge_weight,
                                float consistency_weight, float temperature, int threads) {
  const auto shape = mask_logits.shape();
  const int64_t photos = mask.shape()[0];
  const Loss loss{photos, int(shape[0] / photos), int(shape[2]), int(shape[3]), edge_weight,
                  consistency_weight, temperature};
  Tensor terms = empty({Loss::TERMS}), dmask = empty(shape);
  Tensor dedge = edge ? empty(shape) : empty({1});
  loss.run(data<float>(mask_logits), edge ? data<float>(*edge_logits) : nullptr, data<float>(mask),
           edge ? data<float>(*edge) : nullptr, data<float>(terms), data<float>(dmask),
           data<float>(dedge), threads);
  return {terms, dmask, dedge};
}

// Updates each of `means` in place: mean += weight * (value - mean).
std::vector<Tensor> Average(const std::vector<Tensor>& means, const std::vector<Tensor>& values,
                            float weight) {
  for (size_t i = 0; i < means.size(); ++i) {
    float* mean = const_cast<float*>(means[i].data<float>());
    const float* value = values[i].data<float>();
    const int64_t size = means[i].numel();
    for (int64_t k = 0; k < size; ++k) mean[k] += weight * (value[k] - mean[k]);
  }
  return {empty({1})};
}

PD_BUILD_OP(portraitnet_average)
    .Inputs({paddle::Vec("means"), paddle::Vec("values")})
    .Outputs({"nothing"})
    .Attrs({"weight: float"})
    .SetKernelFn(PD_KERNEL(Average));

PD_BUILD_OP(portraitnet_loss)
    .Inputs({"mask_logits", "mask", paddle::Optional("edge_logits"), paddle::Optional("edge")})
    .Outputs({"terms", "dmask", "dedge"})
    .Attrs({"edge_weight: float", "consistency_weight: float", "temperature: float",
            "threads: int"})
    .SetKernelFn(PD_KERNEL(LossForward));

PD_BUILD_OP(portraitnet_conv_forward)
    .Inputs({"x", paddle::Optional("norm"), "weight", "gamma", "beta", "running_mean",
             "running_variance"})
    .Outputs({"y", "y_norm"})
    .Attrs({"kind: int", "stride: int", "low: float", "high: float", "training: bool",
            "momentum: float", "epsilon: float", "half: bool", "threads: int"})
    .SetKernelFn(PD_KERNEL(ConvForward));

PD_BUILD_OP(portraitnet_conv_backward)
    .Inputs({"dz", "dz_sums", "y", "y_norm", "x", paddle::Optional("norm"), "weight"})
    .Outputs({"dx", "dx_sums", "dweight", "dgamma", "dbeta"})
    .Attrs({"kind: int", "stride: int", "low: float", "high: float", "training: bool",
            "threads: int"})
    .SetKernelFn(PD_KERNEL(ConvBackward));

PD_BUILD_OP(portraitnet_finish_forward)
    .Inputs({"raw", "norm", paddle::Optional("residual")})
    .Outputs({"out"})
    .Attrs({"low: float", "high: float", "threads: int"})
    .SetKernelFn(PD_KERNEL(FinishForward));

PD_BUILD_OP(portraitnet_finish_backward)
    .Inputs({"dout", paddle::Optional("out"), "raw", "norm"})
    .Outputs({"dz", "dz_sums", "dresidual"})
    .Attrs({"low: float", "high: float", "has_residual: bool", "threads: int"})
    .SetKernelFn(PD_KERNEL(FinishBackward));

PD_BUILD_OP(portraitnet_upsample_forward)
    .Inputs({"x", "weight"})
    .Outputs({"y"})
    .Attrs({"half: bool", "half_out: bool", "threads: int"})
    .SetKernelFn(PD_KERNEL(UpsampleForward));

PD_BUILD_OP(portraitnet_upsample_backward)
    .Inputs({"dy", "x", "weight"})
    .Outputs({"dx", "dweight"})
    .Attrs({"half: bool", "threads: int"})
    .SetKernelFn(PD_KERNEL(UpsampleBackward));

PD_BUILD_OP(portraitnet_planes_forward)
    .Inputs({"x", "weight"})
    .Outputs({"y"})
    .Attrs({"stride: int", "before: int", "threads: int"})
    .SetKernelFn(PD_KERNEL(PlanesForward));

PD_BUILD_OP(portraitnet_planes_backward)
    .Inputs({"dy", "x", "weight"})
    .Outputs({"dx", "dweight"})
    .Attrs({"stride: int", "before: int", "threads: int"})
    .SetKernelFn(PD_KERNEL(PlanesBackward));

PD_BUILD_OP(portraitnet_mix_forward)
    .Inputs({"x", "weight"})
    .Outputs({"y"})
    .Attrs({"threads: int"})
    .SetKernelFn(PD_KERNEL(MixForward));

PD_BUILD_OP(portraitnet_mix_backward)
    .Inputs({"dy", "x", "weight"})
    .Outputs({"dx", "dweight"})
    .Attrs({"threads: int"})
    .SetKernelFn(PD_KERNEL(MixBackward));

PD_BUILD_OP(portraitnet_bias_forward)
    .Inputs({"x", "bias"})
    .Outputs({"y"})
    .Attrs({"activation: int", "threads: int"})
    .SetKernelFn(PD_KERNEL(BiasForward));

PD_BUILD_OP(portraitnet_bias_backward)
    .Inputs({"dy", "x", "bias"})
    .Outputs({"dx", "dbias"})
    .Attrs({"activation: int", "threads: int"})
    .SetKernelFn(PD_KERNEL(BiasBackward));

PD_BUILD_OP(portraitnet_heads_forward)
    .Inputs({"x", "weight"})
    .Outputs({"first", "second"})
    .Attrs({"counts: std::vector<int>", "threads: int"})
    .SetKernelFn(PD_KERNEL(HeadsForward));

PD_BUILD_OP(portraitnet_heads_backward)
    .Inputs({"first", paddle::Optional("second"), "x", "weight"})
    .Outputs({"dx", "dweight"})
    .Attrs({"threads: int"})
    .SetKernelFn(PD_KERNEL(HeadsBackward));
