// What libtorch writes: `torch::save` of a module, beside this file as libtorch.pt. Build it against the libtorch in
// torch's Python package (TORCH is its folder) and run it here:
//
//   g++ -std=c++20 -D_GLIBCXX_USE_CXX11_ABI=1 libtorch.cpp -I$TORCH/include -I$TORCH/include/torch/csrc/api/include
//       -L$TORCH/lib -Wl,-rpath,$TORCH/lib -ltorch -ltorch_cpu -lc10 -o libtorch && ./libtorch

#include <torch/torch.h>

struct Net : torch::nn::Module {
  Net() {
    conv = register_module("conv", torch::nn::Conv2d(1, 2, 3));
    norm = register_module("norm", torch::nn::BatchNorm2d(2));
    head = register_module("head", torch::nn::Sequential(torch::nn::Linear(4, 3)));
  }
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Sequential head{nullptr};
};

int main() {
  auto net = std::make_shared<Net>();
  torch::NoGradGuard guard;
  double start = 0;
  for (auto& each : net->named_parameters()) {
    each.value().copy_((torch::arange(each.value().numel()) / 8.0 + start).view(each.value().sizes()));
    start += 1;
  }
  torch::save(net, "libtorch.pt");
}
