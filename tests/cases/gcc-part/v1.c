// A function of which a part is inlined and the rest stays behind (.part.N).
#include "case.h"
//# Symbol [gcc -O2]: slow\.part\..*
//# Expect: 0 7

static int table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
int slow(int n)
{
  if (n < 1)
    return 0;
  for (int i = 0; i < 100; i++) {
    char text[32];

    snprintf(text, sizeof text, "%d", n + table[i & 7]);
    n += atoi(text);
    n = n > 7 ? 7 : n;
    table[i & 7] = (n + i) & 3;
    printf("%s", text[0] == 'x' ? text : "");
  }
  return n;
}
NOINLINE int one(int n) { return slow(n); }
NOINLINE int two(int n) { return slow(n - 10) + slow(n - 20); }
NOINLINE int three(int n) { return slow(n - 3) + slow(n - 30); }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", two(atoi("1")) + three(0), one(atoi("1")));
}
