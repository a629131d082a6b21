#include "case.h"
//# Patch: ok
//# Note: main.o: initialises
//# Expect: 1 made 1: b=2 7 2
//# Reject: 1 2
//# Stdin: again
//# Expect: 1 made 1: b=2 7 5

#include <map>
#include <string>

NOINLINE int number(int n) { static volatile int offset = 0; return n + offset; }

static int made;
struct Counted {
  int value;
  NOINLINE explicit Counted(int n) : value(number(n)) { made++; }
  NOINLINE ~Counted() { printf("destroyed %d\n", value); fflush(stdout); }
};
static Counted counted(7);
static std::map<std::string, int> table{{"a", number(1)}, {"b", number(2)}};
static std::string text = "made " + std::to_string(number(made));

void answer(const char *line)
{
  std::string all = line;

  printf("%d %s: b=%d %d %d\n", number(1), text.c_str(), table["b"], counted.value, (int)all.size());
}
