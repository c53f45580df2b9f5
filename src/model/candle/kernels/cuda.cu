// What cuda.rs launches. Compiled when a model first needs it (NVRTC), once for each type of tensor: with FLOAT16 or BFLOAT16
// defined, or with neither for float. Whatever the type, everything is computed and summed in float.
//
// Feature maps are [batch, height, width, channels]. Counts are ints (cuda.rs checks that they fit), offsets of rows size_t.
// No header is included: a machine that only runs models has none.

#if defined(FLOAT16)
struct Value {
  unsigned short bits;
};
__device__ float widen(Value value) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(value.bits));
  return x;
}
__device__ Value narrow(float x) {
  Value value;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(value.bits) : "f"(x));
  return value;
}
#elif defined(BFLOAT16)
struct Value {
  unsigned short bits;
};
__device__ float widen(Value value) { return __uint_as_float((unsigned)value.bits << 16); }
// To the nearest, ties to even; by hand, as the instruction is missing before compute capability 8.0.
__device__ Value narrow(float x) {
  unsigned bits = __float_as_uint(x);
  bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {(unsigned short)(is_nan ? 0x7fc0u : rounded)};
}
#else
typedef float Value;
__device__ float widen(Value value) { return value; }
__device__ Value narrow(float x) { return x; }
#endif

const int WARP = 32;
const unsigned ALL_LANES = 0xffffffffu;

__device__ float negative_infinity() { return __uint_as_float(0xff800000u); }

__device__ float warp_sum(float x) {
  for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
  return x;
}

__device__ float warp_max(float x) {
  for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
  return x;
}

// Over all threads of the block, which are whole warps; every thread gets the result.
__device__ float block_reduce(float x, bool is_sum) {
  __shared__ float of_warps[WARP];
  x = is_sum ? warp_sum(x) : warp_max(x);
  __syncthreads();
  if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = x;
  __syncthreads();
  x = of_warps[0];
  for (int warp = 1; warp < blockDim.x / WARP; warp++) x = is_sum ? x + of_warps[warp] : fmaxf(x, of_warps[warp]);
  return x;
}

// ---------------------------------------------------------------------------------------------------------------------
// Layers

// A warp for each row.
extern "C" __global__ void layer_norm(Value *out, const Value *x, const Value *weight, const Value *bias, int n_rows, int n,
                                      float eps) {
  int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= n_rows) return;
  x += (size_t)row * n;
  out += (size_t)row * n;
  float sum = 0, squares = 0;
  for (int i = lane; i < n; i += WARP) sum += widen(x[i]);
  float mean = warp_sum(sum) / n;
  for (int i = lane; i < n; i += WARP) {
    float distance = widen(x[i]) - mean;
    squares += distance * distance;
  }
  float scale = 1.0f / sqrtf(warp_sum(squares) / n + eps);
  for (int i = lane; i < n; i += WARP) out[i] = narrow((widen(x[i]) - mean) * scale * widen(weight[i]) + widen(bias[i]));
}

// What follows a product [rows, n]: activation(x + bias) + residual, each of which may be missing (null, or activation 0).
// `out` may be `x`.
extern "C" __global__ void finish_linear(Value *out, const Value *x, const Value *bias, const Value *residual, int n_values,
                                         int n, int activation) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n_values) return;
  float value = widen(x[i]);
  if (bias) value += widen(bias[i % n]);
  if (activation == 1) value = 0.5f * value * (1.0f + erff(value * 0.70710678f));
  if (activation == 2) value = value / (1.0f + expf(-1.702f * value));
  if (residual) value += widen(residual[i]);
  out[i] = narrow(value);
}

// x + depthwise(x), zero padding 1; w [9, channels].
extern "C" __global__ void depthwise_3x3_residual(Value *out, const Value *x, const Value *w, const Value *bias, int n_values,
                                                  int height, int width, int channels) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n_values) return;
  int channel = i % channels, column = i / channels % width, row = i / channels / width % height;
  float sum = widen(x[i]) + widen(bias[channel]);
  for (int dy = -1; dy <= 1; dy++) {
    if (row + dy < 0 || row + dy >= height) continue;
    for (int dx = -1; dx <= 1; dx++) {
      if (column + dx < 0 || column + dx >= width) continue;
      sum += widen(x[i + (dy * width + dx) * channels]) * widen(w[((dy + 1) * 3 + dx + 1) * channels + channel]);
    }
  }
  out[i] = narrow(sum);
}

// The inputs of every output of a convolution beside each other, [batch * out_height * out_width, kernel * kernel * channels]: a
// product with the weights is then the convolution.
extern "C" __global__ void im2col(Value *out, const Value *x, int n_values, int height, int width, int channels, int out_height,
                                  int out_width, int kernel, int stride, int padding) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n_values) return;
  int channel = i % channels, dx = i / channels % kernel, dy = i / channels / kernel % kernel;
  int position = i / channels / kernel / kernel;
  int column = position % out_width * stride - padding + dx;
  int row = position / out_width % out_height * stride - padding + dy;
  int image = position / out_width / out_height;
  bool inside = row >= 0 && row < height && column >= 0 && column < width;
  out[i] = inside ? x[(((size_t)image * height + row) * width + column) * channels + channel] : narrow(0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Attention between tokens, for (sequence, head) in (blockIdx.z, blockIdx.y). The heads of a row lie beside each other.

// Where the rows of a sequence are: one after the other, or in a square window of a map (windows numbered row by row).
struct Successive {
  int n;
  __device__ size_t operator()(int sequence, int token) const { return (size_t)sequence * n + token; }
};
struct Window {
  int side, width;
  __device__ size_t operator()(int window, int token) const {
    int n_across = width / side;
    int row = window / n_across * side + token / side, column = window % n_across * side + token % side;
    return (size_t)row * width + column;
  }
};

// A thread for each query, which keeps its sums in registers while all keys pass through shared memory; the softmax is corrected
// whenever a larger score comes. D is head_dim or more. Query i sees `n_visible + i * step` keys.
template <int D, class Queries, class Keys>
__device__ void attend(Value *out, int out_stride, const Value *q, int q_stride, const Value *k, const Value *v, int kv_stride,
                       int head_dim, int n_queries, int n_visible, int step, Queries query_row, Keys key_row) {
  const int TILE = 32;
  __shared__ __align__(16) float keys[TILE][D];
  __shared__ __align__(16) float values[TILE][D];
  int sequence = blockIdx.z, head_start = blockIdx.y * head_dim;
  int query = blockIdx.x * blockDim.x + threadIdx.x;
  bool is_query = query < n_queries;
  float scale = 1.0f / sqrtf((float)head_dim);
  float mine[D], sum[D];
  size_t q_start = is_query ? query_row(sequence, query) * q_stride + head_start : 0;
#pragma unroll
  for (int c = 0; c < D; c++) {
    mine[c] = is_query && c < head_dim ? widen(q[q_start + c]) * scale : 0.0f;
    sum[c] = 0.0f;
  }
  float largest = negative_infinity(), total = 0.0f;
  int n_mine = is_query ? n_visible + query * step : 0;
  int last_of_block = min((int)((blockIdx.x + 1) * blockDim.x), n_queries) - 1;
  int n_of_block = n_visible + last_of_block * step;
  for (int first = 0; first < n_of_block; first += TILE) {
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * D; i += blockDim.x) {
      int key = first + i / D, c = i % D;
      bool is_inside = key < n_of_block && c < head_dim;
      size_t place = is_inside ? key_row(sequence, key) * kv_stride + head_start + c : 0;
      keys[i / D][c] = is_inside ? widen(k[place]) : 0.0f;
      values[i / D][c] = is_inside ? widen(v[place]) : 0.0f;
    }
    __syncthreads();
    int n = min(TILE, n_mine - first);
#pragma unroll 1  // not several keys at a time: long code takes the driver long to load
    for (int key = 0; key < n; key++) {
      float score = 0.0f;
#pragma unroll
      for (int c = 0; c < D; c++) score += mine[c] * keys[key][c];
      if (score > largest) {
        float shrink = expf(largest - score);
        largest = score;
        total *= shrink;
#pragma unroll
        for (int c = 0; c < D; c++) sum[c] *= shrink;
      }
      float weight = expf(score - largest);
      total += weight;
#pragma unroll
      for (int c = 0; c < D; c++) sum[c] += weight * values[key][c];
    }
  }
  if (!is_query) return;
  out += query_row(sequence, query) * out_stride + head_start;
#pragma unroll
  for (int c = 0; c < D; c++)
    if (c < head_dim) out[c] = narrow(sum[c] / total);
}

#define ATTENTIONS(D)                                                                                                       \
  extern "C" __global__ void attention_##D(Value *out, const Value *q, const Value *k, const Value *v, int channels,        \
                                           int head_dim, int n_queries, int n_keys, int n_visible, int step) {              \
    attend<D>(out, channels, q, channels, k, v, channels, head_dim, n_queries, n_visible, step, Successive{n_queries},      \
              Successive{n_keys});                                                                                          \
  }                                                                                                                         \
  extern "C" __global__ void window_attention_##D(Value *out, const Value *qkv, int channels, int head_dim, int side,       \
                                                  int width) {                                                              \
    Window rows = {side, width};                                                                                            \
    attend<D>(out, channels, qkv, 3 * channels, qkv + channels, qkv + 2 * channels, 3 * channels, head_dim, side * side,    \
              side * side, 0, rows, rows);                                                                                  \
  }
ATTENTIONS(32)
ATTENTIONS(64)
ATTENTIONS(128)

// The same for a few queries, as when decoding: a block for each query (blockIdx.x). Shared memory: n_keys + blockDim.x floats;
// blockDim.x is head_dim or more.
extern "C" __global__ void attention_few(Value *out, const Value *q, const Value *k, const Value *v, int channels, int head_dim,
                                         int n_queries, int n_keys, int n_visible, int step) {
  extern __shared__ float scores[];
  float *partial = scores + n_keys;
  int n = n_visible + blockIdx.x * step, head_start = blockIdx.y * head_dim;
  size_t row = (size_t)blockIdx.z * n_queries + blockIdx.x, first_key = (size_t)blockIdx.z * n_keys;
  q += row * channels + head_start;
  out += row * channels + head_start;
  k += first_key * channels + head_start;
  v += first_key * channels + head_start;

  float scale = 1.0f / sqrtf((float)head_dim);
  int lane = threadIdx.x % WARP;
  for (int key = threadIdx.x / WARP; key < n; key += blockDim.x / WARP) {
    float score = 0.0f;
    for (int c = lane; c < head_dim; c += WARP) score += widen(q[c]) * widen(k[(size_t)key * channels + c]);
    score = warp_sum(score);
    if (lane == 0) scores[key] = score * scale;
  }
  __syncthreads();
  float largest = negative_infinity(), total = 0.0f;
  for (int key = threadIdx.x; key < n; key += blockDim.x) largest = fmaxf(largest, scores[key]);
  largest = block_reduce(largest, false);
  for (int key = threadIdx.x; key < n; key += blockDim.x) {
    scores[key] = expf(scores[key] - largest);
    total += scores[key];
  }
  total = block_reduce(total, true);

  // Groups of head_dim threads share the keys.
  int group = threadIdx.x / head_dim, n_groups = blockDim.x / head_dim, c = threadIdx.x % head_dim;
  float sum = 0.0f;
  if (group < n_groups)
    for (int key = group; key < n; key += n_groups) sum += scores[key] * widen(v[(size_t)key * channels + c]);
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0) return;
  for (int other = 1; other < n_groups; other++) sum += partial[other * head_dim + c];
  out[c] = narrow(sum / total);
}

// ---------------------------------------------------------------------------------------------------------------------
// Attention between the channels of a group, for (image, group) in (blockIdx.z, blockIdx.y); qkv [batch, n_tokens, 3 channels].
// In three steps: scores of some tokens each, their sum and softmax, the product with the values.

// partial [chunks, batch, groups, d, d]; a block for each chunk of tokens. Shared memory: 2 * n_per_chunk * d floats.
extern "C" __global__ void channel_scores(float *partial, const Value *qkv, int n_tokens, int channels, int d, int n_per_chunk) {
  extern __shared__ float tokens[];
  float *q = tokens, *k = tokens + n_per_chunk * d;
  int first = blockIdx.x * n_per_chunk, n = min(n_per_chunk, n_tokens - first);
  qkv += ((size_t)blockIdx.z * n_tokens + first) * 3 * channels + blockIdx.y * d;
  for (int i = threadIdx.x; i < n * d; i += blockDim.x) {
    size_t place = (size_t)(i / d) * 3 * channels + i % d;
    q[i] = widen(qkv[place]);
    k[i] = widen(qkv[place + channels]);
  }
  __syncthreads();
  partial += (((size_t)blockIdx.x * gridDim.z + blockIdx.z) * gridDim.y + blockIdx.y) * d * d;
  for (int i = threadIdx.x; i < d * d; i += blockDim.x) {
    float sum = 0.0f;
    for (int token = 0; token < n; token++) sum += q[token * d + i / d] * k[token * d + i % d];
    partial[i] = sum;
  }
}

// weights [batch, groups, d, d]; a warp for each of its rows.
extern "C" __global__ void channel_softmax(float *weights, const float *partial, int n_chunks, int n_rows, int d, float scale) {
  int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (row >= n_rows) return;
  weights += (size_t)row * d;
  float largest = negative_infinity(), total = 0.0f;
  for (int i = lane; i < d; i += WARP) {
    float sum = 0.0f;
    for (int chunk = 0; chunk < n_chunks; chunk++) sum += partial[((size_t)chunk * n_rows + row) * d + i];
    weights[i] = sum * scale;
    largest = fmaxf(largest, weights[i]);
  }
  largest = warp_max(largest);
  for (int i = lane; i < d; i += WARP) {
    weights[i] = expf(weights[i] - largest);
    total += weights[i];
  }
  total = warp_sum(total);
  for (int i = lane; i < d; i += WARP) weights[i] /= total;
}

// A block for each chunk of tokens. Shared memory: d * d floats.
extern "C" __global__ void channel_apply(Value *out, const float *weights, const Value *qkv, int n_tokens, int channels, int d,
                                         int n_per_chunk) {
  extern __shared__ float transposed[];
  weights += ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * d * d;
  for (int i = threadIdx.x; i < d * d; i += blockDim.x) transposed[i % d * d + i / d] = weights[i];
  __syncthreads();
  int first = blockIdx.x * n_per_chunk, n = min(n_per_chunk, n_tokens - first);
  size_t row = (size_t)blockIdx.z * n_tokens + first;
  const Value *v = qkv + row * 3 * channels + 2 * channels + blockIdx.y * d;
  out += row * channels + blockIdx.y * d;
  for (int i = threadIdx.x; i < n * d; i += blockDim.x) {
    int token = i / d, channel = i % d;
    float sum = 0.0f;
    for (int other = 0; other < d; other++) sum += transposed[other * d + channel] * widen(v[(size_t)token * 3 * channels + other]);
    out[(size_t)token * channels + channel] = narrow(sum);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The next token of greedy decoding, in one block. Token ids are floats too: exact below 2^24.

// out: the token, its log-probability, the logits of `n_copied` tokens from `first_copied` on. The token is `forced` if that is not
// negative, otherwise the likeliest that is not banned, the first of equals; `fallback` if there is none.
extern "C" __global__ void next_token(float *out, const float *logits, const float *banned, int n_banned, int n, int forced,
                                      int fallback, int first_copied, int n_copied) {
  __shared__ float best_values[WARP];
  __shared__ int best_ids[WARP];
  float largest = negative_infinity(), total = 0.0f, best = negative_infinity();
  int best_id = fallback;
  for (int id = threadIdx.x; id < n; id += blockDim.x) {
    float logit = logits[id];
    largest = fmaxf(largest, logit);
    if (!(logit > best)) continue;
    bool is_banned = false;
    for (int i = 0; i < n_banned; i++) is_banned |= banned[i] == (float)id;
    if (!is_banned) {
      best = logit;
      best_id = id;
    }
  }
  largest = block_reduce(largest, false);
  // Not a number if any logit is none: fmaxf above passes over those.
  for (int id = threadIdx.x; id < n; id += blockDim.x) total += expf(logits[id] - largest);
  total = block_reduce(total, true);

  for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
    float value = __shfl_xor_sync(ALL_LANES, best, lanes);
    int id = __shfl_xor_sync(ALL_LANES, best_id, lanes);
    if (value > best || (value == best && id < best_id)) {
      best = value;
      best_id = id;
    }
  }
  if (threadIdx.x % WARP == 0) {
    best_values[threadIdx.x / WARP] = best;
    best_ids[threadIdx.x / WARP] = best_id;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < blockDim.x / WARP; warp++) {
      if (best_values[warp] > best || (best_values[warp] == best && best_ids[warp] < best_id)) {
        best = best_values[warp];
        best_id = best_ids[warp];
      }
    }
    int id = forced >= 0 ? forced : best_id;
    out[0] = (float)id;
    out[1] = logits[id] - largest - logf(total);
  }
  for (int i = threadIdx.x; i < n_copied; i += blockDim.x) out[2 + i] = logits[first_copied + i];
}
