// The flags that distributions build with.
#include "case.h"
//# Flags: -O2 -fcf-protection -fstack-protector-strong -fstack-clash-protection
//# Flags: -D_FORTIFY_SOURCE=2 -fno-omit-frame-pointer -fasynchronous-unwind-tables
//# Expect: hello 5

static NOINLINE void fill(char *out, size_t size, const char *text) { snprintf(out, size, "%s", text); }
static void (*volatile stored)(char *, size_t, const char *) = fill;

void answer(const char *line)
{
  (void)line;
  char text[16];

  stored(text, sizeof text, "hello");
  printf("%s %zu\n", text, strlen(text));
}
