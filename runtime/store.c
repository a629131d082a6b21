/* Memory for what outlasts a transaction: descriptions of generations. All of it lies in one range of addresses, so
 * that a search of the process's memory for addresses of code can leave it out. Used by the thread that serves, and by
 * those that load a library, while no thread is halted. */
#include "internal.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define LARGEST (64ul << 20)   /* bytes of address space, inaccessible until used; less where that is limited */
#define LEAST (1ul << 20)
#define STEP (64ul << 10)      /* made accessible at a time */
#define GRAIN 32u              /* blocks have multiples of it */
#define N_CLASSES 128u         /* blocks up to N_CLASSES * GRAIN bytes are given out again */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hr_range store;      /* empty: none yet */
static uintptr_t used, accessible; /* ends of what was given out, and of what can be */
static void *released[N_CLASSES + 1]; /* by size in grains: blocks that came back, each begins with the next */

struct hr_range hr_store_range(void) { return store; }

static bool reserve(void) {
  void *at = MAP_FAILED;
  size_t size = LARGEST;

  if (store.start)
    return true;
  for (; at == MAP_FAILED && size >= LEAST; size /= 2)
    at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return false;
  store = (struct hr_range){(uintptr_t)at, (uintptr_t)at + 2 * size};
  used = accessible = store.start;
  return true;
}

static void *extend(size_t size) {
  uintptr_t at = used, end;

  if (size > store.end - used)
    return NULL;
  end = (used + size + STEP - 1) / STEP * STEP;
  if (end > store.end)
    end = store.end;
  if (end > accessible && mprotect((void *)accessible, end - accessible, PROT_READ | PROT_WRITE))
    return NULL;
  if (end > accessible)
    accessible = end;
  used += size;
  return (void *)at;
}

static void *take(size_t grains) {
  void *at;

  if (!reserve())
    return NULL;
  if (grains > N_CLASSES || !released[grains])
    return extend(grains * GRAIN);
  at = released[grains];
  memcpy(&released[grains], at, sizeof at);
  memset(at, 0, grains * GRAIN);
  return at;
}

/* Zeroed, aligned for anything. Null: there is none. */
void *hr_store_take(size_t size) {
  void *at;

  if (size > LARGEST)
    return NULL;
  pthread_mutex_lock(&lock);
  at = take(size / GRAIN + 1);
  pthread_mutex_unlock(&lock);
  return at;
}

/* What another copy of the runtime took stays where it is: so does what is too large to be given out again. */
void hr_store_give(void *at, size_t size) {
  size_t grains = size / GRAIN + 1;

  if (!at || grains > N_CLASSES || !hr_inside(store, (uintptr_t)at, size))
    return;
  pthread_mutex_lock(&lock);
  memcpy(at, &released[grains], sizeof at);
  released[grains] = at;
  pthread_mutex_unlock(&lock);
}

/* Context: the child of a fork. */
void hr_store_reset(void) { pthread_mutex_init(&lock, NULL); }
