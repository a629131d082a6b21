// A C++ function that throws, called through its stub by one that catches.
#include <stdexcept>

#include "stubs.h"

extern "C" {
int risky(int x);
STUB(risky);
int risky_body(int x) BODY(risky);

__attribute__((noinline)) int risky_body(int x) {
  if (x > 100)
    throw std::runtime_error("old");
  return x;
}

struct Noted {
  int *n;
  ~Noted() { ++*n; }
};

int throws(void) {
  int unwound = 0;
  try {
    Noted noted{&unwound};
    return risky(50);
  } catch (const std::exception &e) {
    return 1000 * unwound + e.what()[0];
  }
}
}
