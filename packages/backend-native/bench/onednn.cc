// The oneDNN baseline of products.mjs: matmul with weights that were reordered once into the layout that oneDNN prefers.
// Not published. With libdnnl-dev installed (Debian: apt-get install libdnnl-dev):
//   g++ -std=c++17 -O2 bench/onednn.cc -ldnnl -o build/onednn-bench
// ONEDNN_VERBOSE=1 build/onednn-bench prints which kernels it selects.
// Reads lines "float32|bfloat16 M in out milliseconds" and prints, for each, the seconds of one call of y [M, out] =
// x [M, in] · weight [out, in]ᵀ: the fastest of the calls in that time (processor time if OMP_NUM_THREADS is 1). In bfloat16, x is
// bfloat16 already (our addon rounds float32 inside the call) and y is float32. The faster of oneDNN's two primitives counts.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>
#include <vector>

using dnnl::memory;
using Type = memory::data_type;
using Tag = memory::format_tag;

namespace {

struct Product {
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
};

memory filled(const memory::desc& desc, const dnnl::engine& engine) {
  memory made(desc, engine);
  unsigned char* bytes = static_cast<unsigned char*>(made.get_data_handle());
  // Small positive numbers in either type: 0x3d.. in every upper byte, something in the lower ones.
  const size_t width = desc.data_type() == Type::bf16 ? 2 : 4;
  for (size_t i = 0; i < desc.get_size(); i++) bytes[i] = i % width == width - 1 ? 0x3d : (i * 2654435761u) >> 13 & 0x7f;
  return made;
}

template <class Descriptor>
Product prepare(const typename Descriptor::desc& wanted, const memory::desc& stored_weight, const dnnl::engine& engine,
                dnnl::stream& stream) {
  const Descriptor descriptor(wanted, engine);
  memory weight(descriptor.weights_desc(), engine), stored = filled(stored_weight, engine);
  dnnl::reorder(stored, weight).execute(stream, stored, weight);
  stream.wait();
  return {typename Descriptor::primitive_type(descriptor),
          {{DNNL_ARG_SRC, filled(descriptor.src_desc(), engine)},
           {DNNL_ARG_WEIGHTS, weight},
           {DNNL_ARG_DST, memory(descriptor.dst_desc(), engine)}}};
}

struct MatMul : dnnl::matmul::primitive_desc {
  using desc = dnnl::matmul::desc;
  using primitive_type = dnnl::matmul;
  using dnnl::matmul::primitive_desc::primitive_desc;
};

struct InnerProduct : dnnl::inner_product_forward::primitive_desc {
  using desc = dnnl::inner_product_forward::desc;
  using primitive_type = dnnl::inner_product_forward;
  using dnnl::inner_product_forward::primitive_desc::primitive_desc;
};

double now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

double fastest_seconds(const Product& product, dnnl::stream& stream, double milliseconds) {
  const char* threads = std::getenv("OMP_NUM_THREADS");
  const clockid_t clock = threads && std::string(threads) == "1" ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
  const double end = now(CLOCK_MONOTONIC) + milliseconds / 1000;
  double best = 1e9;
  for (int i = 0; i < 3 || now(CLOCK_MONOTONIC) < end; i++) {
    const double start = now(clock);
    product.primitive.execute(stream, product.arguments);
    stream.wait();
    best = std::min(best, now(clock) - start);
  }
  return best;
}

}  // namespace

int main() {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::string type;
  memory::dim M, in, out;
  double milliseconds;
  std::string prepared;
  std::vector<Product> products;
  while (std::cin >> type >> M >> in >> out >> milliseconds) {
    const std::string name = type + " " + std::to_string(M) + " " + std::to_string(in) + " " + std::to_string(out);
    if (name != prepared) {
      products.clear();
      const Type t = type == "bfloat16" ? Type::bf16 : Type::f32;
      const memory::desc y({M, out}, Type::f32, Tag::ab);
      products.push_back(prepare<MatMul>({{{M, in}, t, Tag::ab}, {{in, out}, t, Tag::any}, y}, {{in, out}, t, Tag::ba},
                                         engine, stream));
      products.push_back(prepare<InnerProduct>(
          {dnnl::prop_kind::forward_inference, {{M, in}, t, Tag::ab}, {{out, in}, t, Tag::any}, y},
          {{out, in}, t, Tag::ab}, engine, stream));
      prepared = name;
      for (const Product& product : products) fastest_seconds(product, stream, 0);
    }
    double best = 1e9;
    for (const Product& product : products) best = std::min(best, fastest_seconds(product, stream, milliseconds / 2));
    std::cout << best << std::endl;
  }
}
