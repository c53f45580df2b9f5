// Runs the GPU kernels on the CPU, thread by thread, against plain loops: a check of their arithmetic, indices and barriers for
// machines without a GPU. It says nothing of speed, nor of what only hardware does (half precision instructions, memory order).
//
//   tests/cuda/kernels_on_cpu.sh
//
// Every CUDA thread is a fiber that runs until its next barrier. A barrier that not all threads reach, and a read or write outside
// of a tensor (with -fsanitize=address), end the program.

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

// ---------------------------------------------------------------------------------------------------------------------
// What cuda.cu needs of CUDA

#define __device__
#define __global__
#define __shared__ static  // blocks run one after the other
#define __align__(n)

struct Dim {
  unsigned x, y, z;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;
static float *dynamic_shared;

static float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
static unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}
using std::min;

enum State { RUNNING, AT_WARP, AT_BLOCK, DONE };
struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(256 << 10);
  State state = RUNNING;
  float shuffled;
};
static std::vector<std::unique_ptr<Fiber>> fibers;
static ucontext_t scheduler;
static std::function<void()> kernel;

static void wait_at(State barrier) {
  Fiber &fiber = *fibers[threadIdx.x];
  fiber.state = barrier;
  swapcontext(&fiber.context, &scheduler);
}
static void __syncthreads() { wait_at(AT_BLOCK); }
static float shuffle_bits(float x, int lanes) {
  fibers[threadIdx.x]->shuffled = x;
  wait_at(AT_WARP);
  float other = fibers[threadIdx.x ^ lanes]->shuffled;
  wait_at(AT_WARP);
  return other;
}
static float __shfl_xor_sync(unsigned, float x, int lanes) { return shuffle_bits(x, lanes); }
static int __shfl_xor_sync(unsigned, int x, int lanes) {
  return __float_as_uint(shuffle_bits(__uint_as_float(x), lanes));
}

static void run_fiber() {
  kernel();
  fibers[threadIdx.x]->state = DONE;
  swapcontext(&fibers[threadIdx.x]->context, &scheduler);
}

// Whether some fibers could go on: all of `first..last` that are not done wait at `barrier`.
static bool release(size_t first, size_t last, State barrier) {
  bool any = false;
  for (size_t i = first; i < last; i++) {
    if (fibers[i]->state == DONE) continue;
    if (fibers[i]->state != barrier) return false;
    any = true;
  }
  for (size_t i = first; i < last; i++)
    if (fibers[i]->state != DONE) fibers[i]->state = RUNNING;
  return any;
}

static void run_block(unsigned n_threads) {
  while (fibers.size() < n_threads) fibers.push_back(std::make_unique<Fiber>());
  for (unsigned i = 0; i < n_threads; i++) {
    Fiber &fiber = *fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.state = RUNNING;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (bool goes_on = true; goes_on;) {
    for (unsigned i = 0; i < n_threads; i++) {
      if (fibers[i]->state != RUNNING) continue;
      threadIdx = {i, 0, 0};
      swapcontext(&scheduler, &fibers[i]->context);
    }
    goes_on = release(0, n_threads, AT_BLOCK);
    for (unsigned warp = 0; warp < n_threads; warp += 32) goes_on |= release(warp, min(warp + 32, n_threads), AT_WARP);
  }
  for (unsigned i = 0; i < n_threads; i++)
    if (fibers[i]->state != DONE) exit((printf("a barrier was not reached by all threads\n"), 1));
}

static void launch(Dim grid, unsigned n_threads, size_t shared_floats, std::function<void()> f) {
  kernel = f;
  gridDim = grid;
  blockDim = {n_threads, 1, 1};
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        std::vector<float> shared(shared_floats, NAN);
        dynamic_shared = shared.data();
        blockIdx = {x, y, z};
        run_block(n_threads);
      }
}

#include KERNELS

// ---------------------------------------------------------------------------------------------------------------------
// The kernels against loops, launched as cuda.rs does

#ifdef BFLOAT16
static const float TOLERANCE = 1e-2f;
#else
static const float TOLERANCE = 2e-5f;
#endif
typedef std::vector<float> Floats;

static std::unique_ptr<Value[]> values_of(const Floats &floats) {  // not a vector: reads past its end shall be seen
  std::unique_ptr<Value[]> values(new Value[floats.size()]);
  for (size_t i = 0; i < floats.size(); i++) values[i] = narrow(floats[i]);
  return values;
}

// As the kernels see them.
static Floats random_values(size_t n, unsigned seed) {
  Floats floats(n);
  unsigned long long state = seed * 0x9E3779B97F4A7C15ull | 1;
  for (float &x : floats) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    x = widen(narrow(((state >> 33) / 2147483648.0f - 0.5f) * 3.0f));
  }
  return floats;
}

template <class T>
static void check(const std::string &name, const T *got, const Floats &expected) {
  float worst = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    float value;
    if constexpr (sizeof(T) == 4) value = (float &)got[i]; else value = widen((const Value &)got[i]);
    float difference = fabsf(value - expected[i]) / std::max(1.0f, fabsf(expected[i]));
    if (!(difference <= TOLERANCE)) exit((printf("%s: value %zu is %g, not %g\n", name.c_str(), i, value, expected[i]), 1));
    worst = std::max(worst, difference);
  }
  printf("%-44s %.1e\n", name.c_str(), worst);
}

static void layer_norms() {
  for (auto [n_rows, n] : {std::pair{1, 1}, {3, 7}, {9, 70}}) {
    Floats x = random_values(n_rows * n, 1), w = random_values(n, 2), b = random_values(n, 3), expected;
    for (int row = 0; row < n_rows; row++) {
      double mean = 0, variance = 0;
      for (int i = 0; i < n; i++) mean += x[row * n + i] / n;
      for (int i = 0; i < n; i++) variance += (x[row * n + i] - mean) * (x[row * n + i] - mean) / n;
      for (int i = 0; i < n; i++) expected.push_back((x[row * n + i] - mean) / sqrt(variance + 1e-5) * w[i] + b[i]);
    }
    auto x_ = values_of(x), w_ = values_of(w), b_ = values_of(b), out = values_of(Floats(x.size(), NAN));
    launch({(n_rows + 3u) / 4, 1, 1}, 128, 0, [&] { layer_norm(out.get(), x_.get(), w_.get(), b_.get(), n_rows, n, 1e-5f); });
    check("layer_norm " + std::to_string(n), out.get(), expected);
  }
}

static void finished_linears() {
  int n_rows = 37, n = 19;
  Floats x = random_values(n_rows * n, 1), b = random_values(n, 2), r = random_values(n_rows * n, 3);
  for (int which = 0; which < 12; which++) {
    int activation = which / 4;
    Floats expected;
    for (int i = 0; i < n_rows * n; i++) {
      double value = x[i] + (which & 1 ? b[i % n] : 0);
      if (activation == 1) value = value * 0.5 * erfc(-value / sqrt(2.0));
      if (activation == 2) value = value / (1 + exp(-1.702 * value));
      expected.push_back(value + (which & 2 ? r[i] : 0));
    }
    auto x_ = values_of(x), b_ = values_of(b), r_ = values_of(r);
    launch({(n_rows * n + 255u) / 256, 1, 1}, 256, 0, [&] {
      finish_linear(x_.get(), x_.get(), which & 1 ? b_.get() : nullptr, which & 2 ? r_.get() : nullptr, n_rows * n, n, activation);
    });
    check("finish_linear " + std::to_string(which), x_.get(), expected);
  }
}

static void convolutions() {
  struct Shape {
    int batch, height, width, channels, kernel, stride, padding;
  };
  for (Shape s : {Shape{1, 1, 1, 1, 3, 1, 1}, {2, 5, 7, 4, 3, 2, 1}, {1, 11, 9, 3, 7, 4, 3}, {1, 8, 8, 3, 4, 4, 0}}) {
    Floats x = random_values(s.batch * s.height * s.width * s.channels, 1), columns, depthwise;
    Floats w = random_values(9 * s.channels, 2), b = random_values(s.channels, 3);
    auto at = [&](int image, int y, int x_, int c) {
      bool inside = y >= 0 && y < s.height && x_ >= 0 && x_ < s.width;
      return inside ? x[((image * s.height + y) * s.width + x_) * s.channels + c] : 0.0f;
    };
    int out_height = (s.height + 2 * s.padding - s.kernel) / s.stride + 1;
    int out_width = (s.width + 2 * s.padding - s.kernel) / s.stride + 1;
    for (int image = 0; image < s.batch; image++)
      for (int y = 0; y < out_height; y++)
        for (int x_ = 0; x_ < out_width; x_++)
          for (int dy = 0; dy < s.kernel; dy++)
            for (int dx = 0; dx < s.kernel; dx++)
              for (int c = 0; c < s.channels; c++)
                columns.push_back(at(image, y * s.stride - s.padding + dy, x_ * s.stride - s.padding + dx, c));
    for (int image = 0; image < s.batch; image++)
      for (int y = 0; y < s.height; y++)
        for (int x_ = 0; x_ < s.width; x_++)
          for (int c = 0; c < s.channels; c++) {
            double sum = at(image, y, x_, c) + b[c];
            for (int k = 0; k < 9; k++) sum += at(image, y + k / 3 - 1, x_ + k % 3 - 1, c) * w[k * s.channels + c];
            depthwise.push_back(sum);
          }
    auto x_ = values_of(x), w_ = values_of(w), b_ = values_of(b);
    auto out = values_of(Floats(columns.size(), NAN)), out2 = values_of(Floats(x.size(), NAN));
    int n = columns.size(), n2 = x.size();
    launch({(n + 255u) / 256, 1, 1}, 256, 0, [&] {
      im2col(out.get(), x_.get(), n, s.height, s.width, s.channels, out_height, out_width, s.kernel, s.stride, s.padding);
    });
    check("im2col " + std::to_string(s.kernel), out.get(), columns);
    launch({(n2 + 255u) / 256, 1, 1}, 256, 0, [&] {
      depthwise_3x3_residual(out2.get(), x_.get(), w_.get(), b_.get(), n2, s.height, s.width, s.channels);
    });
    check("depthwise " + std::to_string(s.height) + "x" + std::to_string(s.width), out2.get(), depthwise);
  }
}

// softmax(scale q k^T) v for vectors given by functions (token, channel); query i sees n_visible(i) keys.
typedef std::function<float(int, int)> Vectors;
static void attend_in_loops(int n_queries, int dim, std::function<int(int)> n_visible, double scale, Vectors q, Vectors k, Vectors v,
                            std::function<void(int, int, float)> put) {
  for (int query = 0; query < n_queries; query++) {
    std::vector<double> weights(n_visible(query));
    double total = 0;
    for (size_t key = 0; key < weights.size(); key++) {
      double score = 0;
      for (int c = 0; c < dim; c++) score += q(query, c) * k(key, c);
      total += weights[key] = exp(score * scale);
    }
    for (int c = 0; c < dim; c++) {
      double sum = 0;
      for (size_t key = 0; key < weights.size(); key++) sum += weights[key] / total * v(key, c);
      put(query, c, sum);
    }
  }
}

static void attentions() {
  struct Shape {
    int batch, n_queries, n_keys, n_heads, d, n_visible, step;
  };
  for (Shape s : {Shape{1, 1, 1, 1, 4, 1, 0}, {2, 17, 17, 3, 8, 17, 0}, {1, 70, 75, 2, 64, 69, 0}, {1, 200, 203, 1, 20, 4, 1},
                  {2, 3, 12, 2, 100, 5, 1}, {1, 3, 70, 2, 12, 70, 0}}) {
    int channels = s.n_heads * s.d;
    Floats q = random_values(s.batch * s.n_queries * channels, 1);
    Floats k = random_values(s.batch * s.n_keys * channels, 2), v = random_values(s.batch * s.n_keys * channels, 3);
    Floats expected(q.size());
    for (int b = 0; b < s.batch; b++)
      for (int h = 0; h < s.n_heads; h++) {
        auto place = [=](int n, int token, int c) { return (b * n + token) * channels + h * s.d + c; };
        attend_in_loops(
            s.n_queries, s.d, [&](int query) { return s.n_visible + query * s.step; }, 1 / sqrt(s.d),
            [&](int token, int c) { return q[place(s.n_queries, token, c)]; },
            [&](int token, int c) { return k[place(s.n_keys, token, c)]; },
            [&](int token, int c) { return v[place(s.n_keys, token, c)]; },
            [&](int token, int c, float value) { expected[place(s.n_queries, token, c)] = value; });
      }
    auto q_ = values_of(q), k_ = values_of(k), v_ = values_of(v), out = values_of(Floats(q.size(), NAN));
    unsigned heads = s.n_heads, batch = s.batch, n_threads = s.n_queries <= 192 ? (s.n_queries + 31) / 32 * 32 : 64;
    auto kernel = s.d <= 32 ? attention_32 : s.d <= 64 ? attention_64 : attention_128;
    std::string name = std::to_string(s.n_queries) + "x" + std::to_string(s.n_keys) + "x" + std::to_string(s.d);
    launch({(s.n_queries + n_threads - 1) / n_threads, heads, batch}, n_threads, 0, [&] {
      kernel(out.get(), q_.get(), k_.get(), v_.get(), channels, s.d, s.n_queries, s.n_keys, s.n_visible, s.step);
    });
    check("attention " + name, out.get(), expected);
    if (s.n_queries > 4) continue;
    out = values_of(Floats(q.size(), NAN));
    launch({(unsigned)s.n_queries, heads, batch}, 256, s.n_keys + 256, [&] {
      attention_few(out.get(), q_.get(), k_.get(), v_.get(), channels, s.d, s.n_queries, s.n_keys, s.n_visible, s.step);
    });
    check("attention_few " + name, out.get(), expected);
  }
}

static void map_attentions() {
  struct Shape {
    int batch, height, width, n_heads, d, side;
  };
  for (Shape s : {Shape{1, 3, 3, 1, 4, 3}, {2, 8, 12, 3, 8, 4}, {1, 28, 14, 2, 40, 14}}) {
    int channels = s.n_heads * s.d, n_tokens = s.height * s.width;
    Floats qkv = random_values(s.batch * n_tokens * 3 * channels, 1), windows(s.batch * n_tokens * channels), groups(windows.size());
    for (int b = 0; b < s.batch; b++)
      for (int h = 0; h < s.n_heads; h++) {
        auto of = [&](int row, int part, int c) { return qkv[(row * 3 + part) * channels + h * s.d + c]; };
        for (int top = 0; top < s.height; top += s.side)
          for (int left = 0; left < s.width; left += s.side) {
            auto row = [=](int token) { return (b * s.height + top + token / s.side) * s.width + left + token % s.side; };
            int n = s.side * s.side;
            attend_in_loops(
                n, s.d, [&](int) { return n; }, 1 / sqrt(s.d), [&](int token, int c) { return of(row(token), 0, c); },
                [&](int token, int c) { return of(row(token), 1, c); }, [&](int token, int c) { return of(row(token), 2, c); },
                [&](int token, int c, float value) { windows[row(token) * channels + h * s.d + c] = value; });
          }
        // Channels are the tokens here.
        auto of_channel = [&](int part) { return [=, &of](int channel, int token) { return of(b * n_tokens + token, part, channel); }; };
        attend_in_loops(
            s.d, n_tokens, [&](int) { return s.d; }, 1 / sqrt(n_tokens), of_channel(0), of_channel(1), of_channel(2),
            [&](int channel, int token, float value) { groups[(b * n_tokens + token) * channels + h * s.d + channel] = value; });
      }
    auto qkv_ = values_of(qkv), out = values_of(Floats(windows.size(), NAN));
    int n = s.side * s.side;
    unsigned heads = s.n_heads, batch = s.batch, n_threads = n <= 192 ? (n + 31) / 32 * 32 : 64;
    auto kernel = s.d <= 32 ? window_attention_32 : window_attention_64;
    launch({(n + n_threads - 1) / n_threads, heads, batch * n_tokens / n}, n_threads, 0,
           [&] { kernel(out.get(), qkv_.get(), channels, s.d, s.side, s.width); });
    check("window_attention " + std::to_string(s.side), out.get(), windows);

    int n_per_chunk = 50, n_chunks = (n_tokens + 49) / 50, n_rows = s.batch * channels;
    Floats partial(n_chunks * n_rows * s.d, NAN), weights(n_rows * s.d, NAN);
    out = values_of(Floats(groups.size(), NAN));
    Dim grid = {(unsigned)n_chunks, heads, batch};
    launch(grid, 256, 2 * n_per_chunk * s.d, [&] { channel_scores(partial.data(), qkv_.get(), n_tokens, channels, s.d, n_per_chunk); });
    launch({(n_rows + 7u) / 8, 1, 1}, 256, 0,
           [&] { channel_softmax(weights.data(), partial.data(), n_chunks, n_rows, s.d, 1 / sqrtf(n_tokens)); });
    launch(grid, 256, s.d * s.d,
           [&] { channel_apply(out.get(), weights.data(), qkv_.get(), n_tokens, channels, s.d, n_per_chunk); });
    check("channel_attention " + std::to_string(s.d), out.get(), groups);
  }
}

static void next_tokens() {
  int n = 3001, first = 40, n_copied = 60;
  Floats logits = random_values(n, 1), banned;
  logits[777] = logits[1800] = 9;  // equals: the first is taken
  logits[50] = 10;
  double total = 0;
  for (float logit : logits) total += exp(logit);
  struct Case {
    Floats banned;
    int forced, expected;
  };
  for (Case c : {Case{{}, -1, 50}, {{50}, -1, 777}, {{777, 50}, -1, 1800}, {{50}, 123, 123}}) {
    Floats expected = {(float)c.expected, (float)(logits[c.expected] - log(total))}, out(2 + n_copied, NAN);
    expected.insert(expected.end(), logits.begin() + first, logits.begin() + first + n_copied);
    launch({1, 1, 1}, 1024, 0, [&] {
      next_token(out.data(), logits.data(), c.banned.data(), c.banned.size(), n, c.forced, 2, first, n_copied);
    });
    check("next_token " + std::to_string(c.expected), out.data(), expected);
  }
  Floats none(n, -INFINITY), out(2, 0), broken = logits;
  launch({1, 1, 1}, 1024, 0, [&] { next_token(out.data(), none.data(), nullptr, 0, n, -1, 2, 0, 0); });
  if (out[0] != 2) exit((printf("next_token: no fallback\n"), 1));
  broken[2999] = NAN;
  launch({1, 1, 1}, 1024, 0, [&] { next_token(out.data(), broken.data(), nullptr, 0, n, -1, 2, 0, 0); });
  if (!std::isnan(out[1])) exit((printf("next_token: a logit that is not a number goes unseen\n"), 1));
}

int main() {
  layer_norms();
  finished_linears();
  convolutions();
  attentions();
  map_attentions();
  next_tokens();
}
