// Calls kernels of a library for another process: `serve LIBRARY` reads calls and writes back the
// memory of each. A call is a line "NAME REAL COUNT", COUNT lines "i NUMBER" (an integer) or
// "b BYTES" (a pointer to so much memory; none for -1), and the contents of that memory.
#include <dlfcn.h>

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

constexpr int kMost = 14;
// Numbers of a kind have registers of their own, so one type calls all kernels.
using Kernel = void (*)(double, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                        int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

int main(int, char** argv) {
  void* const library = dlopen(argv[1], RTLD_NOW);
  if (!library) {
    std::cerr << dlerror() << "\n";
    return 1;
  }
  std::string name;
  double real;
  for (int count; std::cin >> name >> real >> count;) {
    int64_t a[kMost] = {};
    std::vector<std::vector<char>> memory;
    for (int i = 0; i < count; i++) {
      char kind;
      std::cin >> kind >> a[i];
      if (kind == 'i') continue;
      if (a[i] < 0) {
        a[i] = 0;
        continue;
      }
      memory.emplace_back(a[i]);
      a[i] = reinterpret_cast<int64_t>(memory.back().data());
    }
    std::cin.get();
    for (auto& each : memory) std::cin.read(each.data(), each.size());
    const auto kernel = reinterpret_cast<Kernel>(dlsym(library, name.c_str()));
    kernel(real, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12],
           a[13]);
    for (auto& each : memory) std::cout.write(each.data(), each.size());
    std::cout.flush();
  }
}
