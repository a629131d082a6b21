/* A thread loads a library and unloads it, over and over: it must never be older than the program was before. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "hotreload.h"
#include "stubs.h"

int version(void);
STUB(version);
int version_body(void) BODY(version);

__attribute__((noinline)) int version_body(void) { return 0; }

static char path[4096];
static volatile int stop;
static long loads, older;

static void *loader(void *unused) {
  while (!stop) {
    int mine = version(), (*theirs)(void);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
      return NULL;
    *(void **)&theirs = dlsym(library, "library_value");
    older += theirs() < mine;
    __atomic_add_fetch(&loads, 1, __ATOMIC_RELAXED);
    dlclose(library);
  }
  return unused;
}

static void run(long n) {
  long from = __atomic_load_n(&loads, __ATOMIC_RELAXED);

  while (__atomic_load_n(&loads, __ATOMIC_RELAXED) < from + n)
    ;
  printf("ran\n");
}

int main(void) {
  pthread_t thread;
  char line[4096];

  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready\n");
  if (!fgets(path, sizeof path, stdin))
    return 1;
  path[strcspn(path, "\n")] = 0;
  pthread_create(&thread, NULL, loader, NULL);
  while (fgets(line, sizeof line, stdin) && strcmp(line, "end\n"))
    run(20);
  stop = 1;
  pthread_join(thread, NULL);
  printf("ended, older %ld\n", older);
  return 0;
}
