#include "case.h"
//# Patch: ok
//# Stdin: 3
//# Expect: drei 6
//# Stdin: 9
//# Expect: nine 18
//# Stdin: 1
//# Expect: one 1
//# Reject: three

NOINLINE void pick(int n)
{
  switch (n) {
  case 0: puts("zero"); break;
  case 1: printf("one %d\n", n); break;
  case 2: puts("two"); break;
  case 3: printf("drei %d\n", n * 2); break;
  case 4: printf("four %d\n", n * 2); break;
  case 5: puts("five"); break;
  case 6: printf("six %d\n", n - 1); break;
  case 7: puts("seven"); break;
  case 8: puts("eight"); break;
  case 9: printf("nine %d\n", n * 2); break;
  default: puts("other");
  }
}
void answer(const char *line)
{
  pick(atoi(line));
}
