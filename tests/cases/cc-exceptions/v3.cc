#include "case.h"
//# Patch: ok
//# Stdin: -7
//# Expect: other 7
//# Stdin: -8
//# Expect: other 8
//# Reject: error

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
    throw std::out_of_range(std::to_string(-n));
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
