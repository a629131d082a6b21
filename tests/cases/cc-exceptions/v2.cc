#include "case.h"
//# Patch: ok
//# Stdin: 1
//# Expect: ok 1
//# Stdin: -5
//# Expect: error 50 inner 2
//# Stdin: 99

#include <stdexcept>
#include <string>
struct Failure : std::runtime_error {
  int code;
  Failure(int code) : std::runtime_error("failure"), code(code) {}
};
struct Guard {
  int &count;
  ~Guard() { count++; }
};
static int cleaned;
NOINLINE void check(int n)
{
  if (n < 0)
    throw Failure(-n * 10);
}
NOINLINE void inner(int n)
{
  Guard guard{cleaned};

  try {
    check(n == 99 ? atoi(wait_here()) : n);
  } catch (const Failure &) {
    throw;
  }
  cleaned--;
}
void answer(const char *line)
{
  int n = atoi(line);

  try {
    inner(n);
    printf("ok %d\n", n);
  } catch (const Failure &f) {
    printf("error %d inner %d\n", f.code, cleaned);
  } catch (const std::exception &e) {
    printf("other %s\n", e.what());
  }
}
