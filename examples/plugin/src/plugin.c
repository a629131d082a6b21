/* The plugin: edit it while the host runs, then `scons hotpatch`.
 * The host got its pointers from dlsym once and keeps using them. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "plugin.h"

struct plugin_state {
  long letters;
};

static struct plugin_state only_state;
static long lines;

struct plugin_state *plugin_open(void)
{
  return &only_state;
}

static long letters_of(const char *line)
{
  long n = 0;

  for (; *line; line++)
    n += isalpha((unsigned char)*line) != 0;
  return n;
}

void plugin_answer(struct plugin_state *state, const char *line, char *answer, size_t size)
{
  lines++;
  state->letters += letters_of(line);
  snprintf(answer, size, "line %ld: %zu characters, %ld letters so far", lines, strlen(line), state->letters);
}
