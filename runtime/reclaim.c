/* Gives back the pages of generations whose code nobody needs any more.
 *
 * That is provable only of payloads that say so of themselves (HR_PAYLOAD_TRANSIENT): of their pages, addresses of
 * code alone are ever handed out, and these only as return addresses and program counters, since a function's address
 * is that of its stub. Such code is needed
 *  - while a slot holds an address in it,
 *  - while a thread is in it: all are halted and looked at (stack.c),
 *  - while a stack that no thread is on holds an address in it, or whatever else: the memory is searched (search.c).
 *    Words that are left over from earlier count as well; they keep a few generations longer than need be.
 * Code that none of these holds cannot be entered again: the slots are the only way in.
 *
 * What is left of a generation are its tables, for a revert (struct hr_record). Its code comes back from the file. */
#include "internal.h"

#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MILLISECOND 1000000ull
#define WORTHWHILE 32                  /* superseded generations */
#define SHARE 8                        /* or this part of the arena */
#define BUDGET (40 * MILLISECOND)      /* for all threads to arrive */
#define SEARCH_BUDGET (2000 * MILLISECOND)
#define POLL_BUDGET (50 * MILLISECOND) /* the same where the program waits for it */

struct pass { /* over one image */
  const struct hr_image *image;
  struct hr_suspect *suspects;
  size_t n, capacity;
  struct hr_codes codes; /* of those that are not known to be needed */
};

/* ---- which generations may be superseded ------------------------------------------------------------ */

static bool slots_hold(const struct hr_record *record) {
  const struct hr_redirect *redirects = (const struct hr_redirect *)record->header->redirects;
  uint64_t i;

  for (i = 0; i < record->header->n_redirects; i++)
    if (hr_inside(record->pages, hr_slot_holds(redirects[i].slot), 1))
      return true;
  return false;
}

/* Whether no call can lead into it any more. Somebody may still be in it. */
bool hr_is_superseded(const struct hr_record *record) {
  return record->n_segments && record->header->flags & HR_PAYLOAD_TRANSIENT && !slots_hold(record);
}

static struct hr_range code_of(const struct hr_record *record) {
  struct hr_range code = {0, 0};
  uint32_t i;

  for (i = 0; i < record->n_segments; i++)
    if (record->segments[i].prot & PROT_EXEC) {
      code.start = code.start ? code.start : record->segments[i].at.start;
      code.end = record->segments[i].at.end;
    }
  return code;
}

/* Counts them, and lists them where there is room. */
static size_t collect(struct pass *p, struct hr_record *record, const struct hr_range *wanted) {
  size_t n = 0;

  for (; record; record = record->older) {
    if (!hr_is_superseded(record) ||
        (wanted && (record->pages.end <= wanted->start || record->pages.start >= wanted->end)))
      continue;
    if (p->n < p->capacity)
      p->suspects[p->n++] = (struct hr_suspect){code_of(record), hr_frames_begin(record->eh_frame), record, false};
    n++;
  }
  return n;
}

static int by_code(const void *a, const void *b) {
  const struct hr_suspect *one = a, *two = b;

  return one->code.start < two->code.start ? -1 : one->code.start > two->code.start;
}

static bool begin(struct pass *p, const struct hr_range *wanted) {
  const struct hr_image *image = p->image;
  size_t n = collect(p, image->records, wanted) + collect(p, image->reverted, wanted);

  p->suspects = n ? hr_memory(n * sizeof *p->suspects) : NULL;
  p->codes.code = n ? hr_memory(n * sizeof *p->codes.code) : NULL;
  if (!p->suspects || !p->codes.code)
    return false;
  p->capacity = p->codes.capacity = n;
  collect(p, image->records, wanted);
  collect(p, image->reverted, wanted);
  qsort(p->suspects, p->n, sizeof *p->suspects, by_code);
  return true;
}

static void end(struct pass *p) {
  hr_unwind_forget();
  hr_memory_free(p->suspects, p->capacity * sizeof *p->suspects);
  hr_memory_free(p->codes.code, p->codes.capacity * sizeof *p->codes.code);
}

static bool is_worthwhile(const struct pass *p) {
  size_t size = 0, i;

  for (i = 0; i < p->n; i++)
    size += p->suspects[i].record->pages.end - p->suspects[i].record->pages.start;
  return p->n >= WORTHWHILE || size * SHARE >= p->image->arena.end - p->image->arena.start;
}

/* ---- what threads are in --------------------------------------------------------------------------------- */

/* Context: threads may be halted. */
static void list_codes(struct pass *p) {
  size_t i;

  p->codes.n = 0;
  for (i = 0; i < p->n; i++)
    if (!p->suspects[i].needed) {
      p->codes.code[p->codes.n++] =
        (struct hr_old_code){p->suspects[i].code, p->suspects[i].code.start, p->image};
      p->codes.highest = p->suspects[i].code.end;
    }
}

/* Context: threads are halted, or it is the calling one. */
static bool look_at(struct pass *p, const struct hr_view *view) {
  struct hr_blocker blocker;
  size_t i;

  while (!hr_stack_is_clear(&p->codes, view, &blocker)) {
    for (i = 0; i < p->n; i++)
      p->suspects[i].needed |= !blocker.function || p->suspects[i].code.start == blocker.function;
    list_codes(p);
  }
  return true;
}

/* Context: threads are halted. */
static bool look_at_thread(const struct hr_thread *thread, void *context) {
  struct hr_view view;

  hr_view_of(thread, &view);
  return look_at(context, &view);
}

static void all_needed(struct pass *p) {
  size_t i;

  for (i = 0; i < p->n; i++)
    p->suspects[i].needed = true;
}

static int with_loader_locked(struct dl_phdr_info *info, size_t size, void *context) {
  struct pass *p = context;
  struct hr_blocker blocker;

  (void)size;
  hr_sleepers_look_again();
  if (!hr_unwind_is_current(info) || !hr_threads_halt(BUDGET, &blocker)) {
    all_needed(p);
    return 1;
  }
  hr_threads_visit(look_at_thread, p);
  if (hr_poller())
    look_at(p, hr_poller());
  hr_threads_release();
  return 1;
}

static void look_at_threads(struct pass *p) {
  struct hr_error error = {.code = HR_OK};
  sigset_t all, before;

  list_codes(p);
  if (!p->codes.n)
    return;
  if (!hr_threads_prepare(&error) || !hr_unwind_prepare(&error)) {
    all_needed(p);
  } else {
    hr_sleepers_look(&p->codes); /* what nobody can enter any more is as good as behind a gate */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    hr_commit_lock();
    dl_iterate_phdr(with_loader_locked, p);
    hr_commit_unlock();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
  hr_sleepers_wake();
  hr_threads_finish();
}

/* ---- giving back ------------------------------------------------------------------------------------------ */

static uint64_t contents_size(const struct hr_payload *header) {
  const struct hr_update *updates = (const struct hr_update *)header->updates;
  uint64_t size = 0, i;

  for (i = 0; i < header->n_updates; i++)
    size += 2 * updates[i].size;
  return size;
}

static uint64_t append(uint8_t **to, uint64_t from, uint64_t size) {
  uint64_t at = (uint64_t)*to;

  memcpy(*to, (const void *)from, size);
  *to += size;
  return at;
}

/* What a revert needs of the payload, in the store. Null: there is no room. */
static struct hr_payload *copy_tables(const struct hr_payload *header, uint32_t *size) {
  uint64_t redirects = header->n_redirects * sizeof(struct hr_redirect);
  uint64_t updates = header->n_updates * sizeof(struct hr_update), i;
  uint64_t whole = sizeof *header + redirects + updates + contents_size(header);
  struct hr_payload *copy = whole <= UINT32_MAX ? hr_store_take(whole) : NULL;
  uint8_t *to = (uint8_t *)(copy + 1);
  struct hr_update *update;

  if (!copy)
    return NULL;
  *copy = *header;
  copy->n_parts = copy->n_heads = copy->eh_frame_size = copy->n_tls_modules = copy->n_init_array = 0;
  copy->redirects = append(&to, header->redirects, redirects);
  copy->updates = append(&to, header->updates, updates);
  update = (struct hr_update *)copy->updates;
  for (i = 0; i < header->n_updates; i++) {
    update[i].old_content = append(&to, update[i].old_content, update[i].size);
    update[i].new_content = append(&to, update[i].new_content, update[i].size);
  }
  *size = (uint32_t)whole;
  return copy;
}

static void give_back(struct hr_record *record) {
  uint32_t size = 0;
  struct hr_payload *copy = copy_tables(record->header, &size);

  if (!copy)
    return;
  record->header = copy;
  record->header_size = size;
  hr_record_unmap(record);
}

static bool is_of(const struct hr_record *record, uint64_t generation, uintptr_t code) {
  for (; record; record = record->older)
    if (record->generation < generation && hr_inside(record->pages, code, 1))
      return true;
  return false;
}

/* Whether code that `generation` took out of use is still mapped. Its addresses may be those of later code by now. */
bool hr_code_is_there(const struct hr_image *image, uint64_t generation, uintptr_t code) {
  return !hr_inside(image->arena, code, 1) || is_of(image->records, generation, code) ||
         is_of(image->reverted, generation, code);
}

/* Its addresses may be those of other code soon: nobody is to be looked for there on its account. */
static void settle(const struct hr_image *image) {
  struct hr_record *record;
  uint64_t i;

  for (record = image->records; record; record = record->older) {
    const struct hr_redirect *redirects = (const struct hr_redirect *)record->header->redirects;

    for (i = 0; !record->settled && i < record->header->n_redirects &&
                !hr_code_is_there(image, record->generation, redirects[i].old_target); i++)
      ;
    record->settled |= i == record->header->n_redirects;
  }
}

/* Gives back what is superseded of the candidate's image: what lies in `wanted`, or if that is null all, if it is
 * worthwhile. What is needed stays. Halts threads, and may take seconds where there is much memory. */
void hr_reclaim(const struct hr_candidate *c, const struct hr_range *wanted) {
  struct hr_error error = {.code = HR_OK};
  struct pass p = {.image = c->loaded.image};
  size_t i;

  hr_unwind_forget();
  if (begin(&p, wanted) && (wanted || is_worthwhile(&p)) && hr_stacks_prepare(&error)) {
    if (hr_search(p.suspects, p.n, hr_now_ns() + (hr_poller() ? POLL_BUDGET : SEARCH_BUDGET)))
      look_at_threads(&p);
    else
      all_needed(&p);
    hr_stacks_finish();
    for (i = 0; i < p.n; i++)
      if (!p.suspects[i].needed)
        give_back(p.suspects[i].record);
    settle(p.image);
  }
  end(&p);
}
