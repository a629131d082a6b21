// A lambda's captures change while a std::function holds the old one: its name stays, what it holds does not.
// The old one goes on with the code that knows its captures.
#include "case.h"
#include <functional>
#include <vector>
//# Stdin: 1
//# Expect: 11 of 1
//# Stdin: 2
//# Expect: 11 12 of 2

static std::vector<std::function<int(int)>> made;

NOINLINE std::function<int(int)> make(int base, const int *factors)
{
  (void)factors;
  return [base](int n) { return base + n; };
}

void answer(const char *line)
{
  static const int factors[] = {100, 1000};

  made.push_back(make(9 + atoi(line), factors));
  for (auto &one : made)
    printf("%d ", one(1));
  printf("of %zu\n", made.size());
}
