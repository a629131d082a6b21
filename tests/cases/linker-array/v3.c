#include "case.h"
//# Patch: ok
//# Expect: 2; 1 1
//# Reject: 2:

#define ENTRY(n) static int entry##n __attribute__((section("entries"), used)) = 1
ENTRY(1);
ENTRY(2);
extern int __start_entries[], __stop_entries[];

void answer(const char *line)
{
  (void)line;
  printf("%d;", (int)(__stop_entries - __start_entries));
  for (int *e = __start_entries; e < __stop_entries; e++)
    printf(" %d", *e);
  puts("");
}
