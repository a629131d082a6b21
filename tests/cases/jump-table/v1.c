// A switch with a jump table grows, and its code moves.
#include "case.h"
//# Stdin: 3
//# Expect: three 3
//# Stdin: 9
//# Expect: other

NOINLINE void pick(int n)
{
  switch (n) {
  case 0: puts("zero"); break;
  case 1: printf("one %d\n", n); break;
  case 2: puts("two"); break;
  case 3: printf("three %d\n", n); break;
  case 4: printf("four %d\n", n * 2); break;
  case 5: puts("five"); break;
  case 6: printf("six %d\n", n - 1); break;
  default: puts("other");
  }
}
void answer(const char *line)
{
  pick(atoi(line));
}
