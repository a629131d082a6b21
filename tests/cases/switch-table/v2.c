#include "case.h"
//# Patch: ok
//# Stdin: 2
//# Expect: 17 deux
//# Stdin: 0
//# Expect: 7 zero
//# Stdin: 8
//# Expect: -1 many
//# Reject: 13 two

NOINLINE int number(int n)
{
  switch (n) {
  case 0: return 7;
  case 1: return 11;
  case 2: return 17;
  case 3: return 19;
  case 4: return 3;
  case 5: return 29;
  default: return -1;
  }
}
NOINLINE const char *word(int n)
{
  switch (n) {
  case 0: return "zero";
  case 1: return "one";
  case 2: return "deux";
  case 3: return "three";
  case 4: return "four";
  case 5: return "five";
  default: return "many";
  }
}
void answer(const char *line)
{
  printf("%d %s\n", number(atoi(line)), word(atoi(line)));
}
