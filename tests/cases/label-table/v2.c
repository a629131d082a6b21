#include "case.h"
//# Patch: ok
//# Stdin: 012
//# Expect: a,bb,c,
//# Stdin: 340
//# Expect: d,e,a,
//# Reject: a,b,c

NOINLINE void interpret(const char *code)
{
  static const void *const labels[] = {&&do_a, &&do_b, &&do_c, &&do_d, &&do_e};

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
  printf("bb,");
  goto next;
do_c:
  printf("c,");
  goto next;
do_d:
  printf("d,");
  goto next;
do_e:
  printf("e,");
  goto next;
}
void answer(const char *line)
{
  interpret(line);
}
