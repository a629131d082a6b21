// Code that a sanitizer watches: it has tables of its variables and their places, which cannot change.
#include "case.h"
//# Only: gcc
//# Flags: -fsanitize=address
//# Link: -fsanitize=address
//# Expect: 4 old

static int table[4] = {1, 2, 3, 4};
static char text[16];

void answer(const char *line)
{
  snprintf(text, sizeof text, "%d old", table[(line[0] & 3) | 3]);
  puts(text);
}
