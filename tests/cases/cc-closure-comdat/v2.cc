#include "case.h"
#include <functional>
#include <vector>
//# Patch: ok
//# Stdin: 3
//# Expect: 11 12 1312 of 3
//# Reject: 13 of 3
//# Note: stay with the old code

static std::vector<std::function<int(int)>> made;

template <class T> NOINLINE std::function<int(int)> make(T base, const int *factors)
{
  return [factors, pad = 200L, base](int n) { return factors[1] + factors[0] + (int)pad + base + n - 1; };
}

void answer(const char *line)
{
  static const int factors[] = {100, 1000};

  made.push_back(make(9 + atoi(line), factors));
  for (auto &one : made)
    printf("%d ", one(1));
  printf("of %zu\n", made.size());
}
