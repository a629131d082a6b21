// A table of labels for computed goto.
#include "case.h"
//# Stdin: 012
//# Expect: a,b,c,
//# Stdin: 33
//# Expect: d,d,

NOINLINE void interpret(const char *code)
{
  static const void *const labels[] = {&&do_a, &&do_b, &&do_c, &&do_d};

next:
  if (!*code) {
    putchar('\n');
    return;
  }
  goto *labels[(*code++ - '0') % LENGTH(labels)];
do_a:
  printf("a,");
  goto next;
do_b:
  printf("b,");
  goto next;
do_c:
  printf("c,");
  goto next;
do_d:
  printf("d,");
  goto next;
}
void answer(const char *line)
{
  interpret(line);
}
