/* Stacks that the program switches to by itself (makecontext, coroutine libraries), where it declared them.
 *
 * A coroutine that is switched out is in no thread. Its frames lie between the stack pointer that was saved and the end
 * of its stack: these are read as those of a thread are, first by scanning, then exactly. One that is switched in is on
 * some thread, and is looked at there.
 *
 * Threads are halted at any point, also in here: entries are claimed and published by single stores, without locks. */
#include "internal.h"

#include <errno.h>
#include <sys/mman.h>

#define CHUNK (64u << 10) /* bytes of entries that are mapped at a time */

enum state { FREE, CLAIMED, LIVE };

struct hr_coroutine {
  uint32_t state;
  uint32_t runs; /* of one look: a thread is on it. Written by the agent only */
  struct hr_range at;
  const ucontext_t *context; /* where it is saved; null: nobody knows */
};

struct chunk {
  struct chunk *next;
  struct hr_coroutine coroutines[(CHUNK - sizeof(void *)) / sizeof(struct hr_coroutine)];
};

#define PER_CHUNK (sizeof((struct chunk *)0)->coroutines / sizeof(struct hr_coroutine))

static struct chunk *chunks; /* never unmapped */
static uint32_t n_live;

static struct chunk *first(void) { return __atomic_load_n(&chunks, __ATOMIC_ACQUIRE); }

/* ---- in the program's threads ------------------------------------------------------------------------------ */

static struct hr_coroutine *claim_in(struct chunk *chunk) {
  size_t i;

  for (i = 0; i < PER_CHUNK; i++) {
    uint32_t none = FREE;

    if (__atomic_load_n(&chunk->coroutines[i].state, __ATOMIC_RELAXED) == FREE &&
        __atomic_compare_exchange_n(&chunk->coroutines[i].state, &none, CLAIMED, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_RELAXED))
      return &chunk->coroutines[i];
  }
  return NULL;
}

static struct hr_coroutine *claim(void) {
  struct hr_coroutine *found = NULL;
  struct chunk *chunk;

  for (chunk = first(); chunk && !found; chunk = chunk->next)
    found = claim_in(chunk);
  if (found || !(chunk = hr_memory(sizeof *chunk)))
    return found;
  found = claim_in(chunk);
  chunk->next = first();
  while (!__atomic_compare_exchange_n(&chunks, &chunk->next, chunk, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    ;
  return found;
}

static bool add(struct hr_range at, const ucontext_t *context) {
  struct hr_coroutine *c = claim();

  if (!c)
    return false;
  c->at = at;
  c->context = context;
  __atomic_add_fetch(&n_live, 1, __ATOMIC_RELAXED);
  __atomic_store_n(&c->state, LIVE, __ATOMIC_RELEASE);
  return true;
}

static struct hr_coroutine *find(uintptr_t at, bool lowest) {
  struct chunk *chunk;
  size_t i;

  for (chunk = first(); chunk; chunk = chunk->next)
    for (i = 0; i < PER_CHUNK; i++) {
      struct hr_coroutine *c = &chunk->coroutines[i];

      if (__atomic_load_n(&c->state, __ATOMIC_ACQUIRE) == LIVE &&
          (lowest ? c->at.start == at : hr_inside(c->at, at, 1)))
        return c;
    }
  return NULL;
}

static bool take_away(uintptr_t lowest) {
  struct hr_coroutine *c = find(lowest, true);

  if (!c)
    return false;
  __atomic_store_n(&c->state, FREE, __ATOMIC_RELEASE);
  __atomic_sub_fetch(&n_live, 1, __ATOMIC_RELAXED);
  return true;
}

/* Declares a stack, or with size 0 takes the one that begins there back. 0, or -1: no memory, or no such one. */
int hr_coroutine_declare(void *lowest, size_t size, const void *context) {
  int error = errno;
  uintptr_t start = (uintptr_t)lowest;
  bool done = size ? start + size > start && add((struct hr_range){start, start + size}, context) : take_away(start);

  errno = error;
  return done ? 0 : -1;
}

/* ---- in the agent -------------------------------------------------------------------------------------------- */

bool hr_coroutines_exist(void) { return __atomic_load_n(&n_live, __ATOMIC_ACQUIRE); }

/* Begins a look: nobody runs on any of them yet. Context: threads are halted. */
void hr_coroutines_begin(void) {
  struct chunk *chunk;
  size_t i;

  for (chunk = first(); chunk; chunk = chunk->next)
    for (i = 0; i < PER_CHUNK; i++)
      chunk->coroutines[i].runs = 0;
}

/* The declared stack that a thread runs on, which is thus no coroutine's that waits; null if it is none. Context: the
 * thread is halted, or the calling one. */
const struct hr_range *hr_coroutine_runs(uintptr_t sp) {
  struct hr_coroutine *c = hr_coroutines_exist() ? find(sp, false) : NULL;

  if (!c)
    return NULL;
  c->runs = 1;
  return &c->at;
}

/* Whether all that are switched out are in none of `codes`. Context: all threads are halted. */
bool hr_coroutines_are_clear(const struct hr_codes *codes, struct hr_blocker *blocker) {
  struct chunk *chunk;
  size_t i;

  for (chunk = first(); chunk; chunk = chunk->next)
    for (i = 0; i < PER_CHUNK; i++) {
      struct hr_coroutine *c = &chunk->coroutines[i];

      if (__atomic_load_n(&c->state, __ATOMIC_ACQUIRE) == LIVE && !c->runs &&
          !hr_coroutine_is_clear(codes, c->at, c->context, blocker))
        return false;
    }
  return true;
}
