// What the cores can do at most: multiply-adds that never leave the registers. Prints "float32 G" and, where the machine has
// products of bfloat16, "bfloat16 G", in GFLOP/s of all threads together.
//   g++ -O3 -march=native -pthread peak.cc -o peak && ./peak THREADS
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#endif
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Enough independent sums to hide the latency of one (4 cycles, 2 per cycle), few enough to stay in registers.
constexpr int kSums = 12;
constexpr long kRounds = 4000000;

#if defined(__AVX512F__)
typedef float Lanes __attribute__((vector_size(64)));
#elif defined(__AVX__)
typedef float Lanes __attribute__((vector_size(32)));
#else
typedef float Lanes __attribute__((vector_size(16)));
#endif

static double float32() {
  Lanes sums[kSums] = {}, a = {}, b = {};
  for (size_t i = 0; i < sizeof(Lanes) / 4; i++) a[i] = 1.0f, b[i] = 1e-9f * i;
  for (long r = 0; r < kRounds; r++) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; i++) sums[i] = sums[i] * a + b;
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (Lanes& s : sums) asm volatile("" : : "x"(s));
  return 2.0 * kSums * kRounds * sizeof(Lanes) / 4;
}

#ifdef __AMX_BF16__
struct alignas(64) TileConfig {
  unsigned char palette = 1, start = 0, reserved[14] = {};
  unsigned short columns[16] = {};
  unsigned char rows[16] = {};
};

static double bfloat16() {
  syscall(SYS_arch_prctl, 0x1023, 18);
  TileConfig config;
  for (int t = 0; t < 8; t++) config.columns[t] = 64, config.rows[t] = 16;
  _tile_loadconfig(&config);
  alignas(64) static thread_local char zeros[1024] = {};
  _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
  _tile_loadd(4, zeros, 64), _tile_loadd(5, zeros, 64), _tile_loadd(6, zeros, 64), _tile_loadd(7, zeros, 64);
  long rounds = kRounds / 8;
  for (long r = 0; r < rounds; r++) {
    _tile_dpbf16ps(0, 4, 6), _tile_dpbf16ps(1, 4, 7), _tile_dpbf16ps(2, 5, 6), _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4.0 * rounds * 2 * 16 * 16 * 32;
}
#elif defined(__AVX512BF16__)
static double bfloat16() {
  __m512 sums[kSums];
  for (__m512& s : sums) s = _mm512_setzero_ps();
  __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1)), b = a;
  for (long r = 0; r < kRounds; r++) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; i++) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (__m512& s : sums) asm volatile("" : : "v"(s));
  return 4.0 * kSums * kRounds * 16;
}
#endif

// Best of several short runs: other users of the machine only ever take away.
static double best(double (*run)(), int threads) {
  double best = 0;
  for (int attempt = 0; attempt < 40; attempt++) {
    std::atomic<int> waiting{threads};
    std::vector<std::thread> workers;
    std::vector<double> rates(threads);
    for (int t = 0; t < threads; t++)
      workers.emplace_back([&, t] {
        waiting--;
        while (waiting > 0) {
        }
        auto begin = std::chrono::steady_clock::now();
        double flop = run();
        rates[t] = flop / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      });
    for (std::thread& worker : workers) worker.join();
    double sum = 0;
    for (double rate : rates) sum += rate;
    if (sum > best) best = sum;
  }
  return best / 1e9;
}

int main(int argc, char** argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  printf("float32 %.1f\n", best(float32, threads));
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
  printf("bfloat16 %.1f\n", best(bfloat16, threads));
#endif
}
