#include "case.h"
//# Patch: refuse special-section
//# Expect: 4 old

static int table[4] = {1, 2, 3, 4};
static char text[16];

void answer(const char *line)
{
  snprintf(text, sizeof text, "%d new", table[(line[0] & 3) | 3]);
  puts(text);
}
