/* A host that knows its plugin only by name: prints what the plugin answers to each line of standard
 * input, until the input ends.
 *
 *   host [PLUGIN]     default: libplugin.so beside the program */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin.h"

static void *load(const char *path)
{
  void *plugin = dlopen(path, RTLD_NOW);

  if (!plugin) {
    fprintf(stderr, "host: %s\n", dlerror());
    exit(1);
  }
  return plugin;
}

static void *load_from_beside(void)
{
  static const char name[] = "libplugin.so";
  char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof name);

  if (length < 0) {
    perror("host: /proc/self/exe");
    exit(1);
  }
  path[length] = '\0';
  strcpy(strrchr(path, '/') + 1, name);
  return load(path);
}

int main(int argc, char **argv)
{
  void *plugin = argc > 1 ? load(argv[1]) : load_from_beside();
  plugin_open_fn *open_plugin = (plugin_open_fn *)dlsym(plugin, "plugin_open");
  plugin_answer_fn *answer_line = (plugin_answer_fn *)dlsym(plugin, "plugin_answer");
  struct plugin_state *state = open_plugin ? open_plugin() : NULL;
  char line[1024], answer[1024];

  if (!state || !answer_line) {
    fprintf(stderr, "host: the plugin lacks a function or could not start\n");
    return 1;
  }
  printf("plugin loaded\n");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    answer_line(state, line, answer, sizeof answer);
    printf("%s\n", answer);
    fflush(stdout);
  }
  return 0;
}
