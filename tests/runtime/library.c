/* A shared library to patch, by itself or beside a patchable program. */
#include "hotreload.h"
#include "stubs.h"

int library_value(void);
STUB(library_value);
int library_value_body(void) BODY(library_value);

__thread int library_tls = 40;
int library_counter = 10;

__attribute__((noinline)) int library_value_body(void) { return library_tls + library_counter++; }

unsigned long library_generation(void) { return hotreload_generation(); }

#ifdef CONSTRUCTS
__attribute__((constructor)) static void at_start(void) { library_counter = library_value(); }
#endif

__attribute__((destructor)) static void at_end(void) { library_counter = 0; }
