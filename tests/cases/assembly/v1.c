// Functions in hand-written assembly, in a file of their own.
#include "case.h"
//# Expect: 11 4

int from_assembly(int n);
int second_in_section(int n);

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", from_assembly(1), second_in_section(2));
}
