/* What a plugin must define. */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <stddef.h>

struct plugin_state;

/* Called once, before anything else. Returns NULL if the plugin cannot start. */
typedef struct plugin_state *plugin_open_fn(void);

/* Writes the answer to `line` into `answer`, always terminated. */
typedef void plugin_answer_fn(struct plugin_state *state, const char *line, char *answer, size_t size);

plugin_open_fn plugin_open;
plugin_answer_fn plugin_answer;

#endif
