/* What a payload, or its revert, changes in the image: checked here, listed, and the pages opened for it. */
#include "internal.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Zeroed memory that lasts as long as the transaction. Null: there is none. */
void *hr_memory(size_t size) {
  void *at = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  return at == MAP_FAILED ? NULL : at;
}

void hr_memory_free(void *at, size_t size) {
  if (at)
    munmap(at, size ? size : 1);
}

/* ---- where things lie ------------------------------------------------------------------------------ */

struct region { /* part of an image or of a payload that has one protection */
  struct hr_range at;
  int prot;
  bool variable; /* of a writable segment, whatever RELRO did to it */
};

static struct region split_relro(struct hr_range segment, int prot, struct hr_range relro, uintptr_t at) {
  struct region region = {segment, prot, prot & PROT_WRITE};

  if (!(prot & PROT_WRITE) || relro.start >= relro.end || relro.end <= segment.start || relro.start >= segment.end)
    return region;
  if (at >= relro.end) {
    region.at.start = relro.end;
  } else if (at >= relro.start) {
    region.at.start = relro.start > segment.start ? relro.start : segment.start;
    region.at.end = relro.end < segment.end ? relro.end : segment.end;
    region.prot = PROT_READ;
  } else {
    region.at.end = relro.start;
  }
  return region;
}

static bool region_of_record(const struct hr_record *record, uintptr_t at, uint64_t size, struct region *region) {
  const struct hr_segment *segment = hr_record_segment(record, at, size);

  if (!segment)
    return false;
  *region = split_relro(segment->at, segment->prot, record->relro, at);
  return hr_inside(region->at, at, size);
}

static bool region_of_image(const struct hr_loaded *loaded, uintptr_t at, uint64_t size, struct region *region) {
  struct hr_range relro = {0, 0};
  unsigned i;

  for (i = 0; i < loaded->n_headers; i++)
    if (loaded->headers[i].p_type == PT_GNU_RELRO) { /* rounded as ld.so does it */
      relro.start = hr_page_down(loaded->bias + loaded->headers[i].p_vaddr);
      relro.end = hr_page_down(loaded->bias + loaded->headers[i].p_vaddr + loaded->headers[i].p_memsz);
    }
  for (i = 0; i < loaded->n_headers; i++) {
    const Elf64_Phdr *load = &loaded->headers[i];
    struct hr_range segment = {loaded->bias + load->p_vaddr, loaded->bias + load->p_vaddr + load->p_memsz};
    int prot = (load->p_flags & PF_R ? PROT_READ : 0) | (load->p_flags & PF_W ? PROT_WRITE : 0) |
               (load->p_flags & PF_X ? PROT_EXEC : 0);

    if (load->p_type != PT_LOAD || !hr_inside(segment, at, size))
      continue;
    *region = split_relro(segment, prot, relro, at);
    return prot & PROT_READ && hr_inside(region->at, at, size);
  }
  return false;
}

bool hr_is_code_of_image(const struct hr_loaded *loaded, uintptr_t at, uint64_t size) {
  struct region region;

  if (at < loaded->image->arena.end && at + size > loaded->image->arena.start)
    return false;
  return region_of_image(loaded, at, size, &region) && region.prot == (PROT_READ | PROT_EXEC);
}

/* Where [at, at + size) lies: in the image, in this payload or in an earlier one. */
static bool find_region(const struct hr_candidate *c, uintptr_t at, uint64_t size, struct region *region) {
  const struct hr_record *record;

  if (region_of_record(c->record, at, size, region))
    return true;
  for (record = c->loaded.image->records; record; record = record->older)
    if (region_of_record(record, at, size, region))
      return true;
  if (at < c->loaded.image->arena.end && size > 0 && at + size > c->loaded.image->arena.start)
    return false;
  return region_of_image(&c->loaded, at, size, region);
}

/* Remembers that the pages of [at, at + size) must be writable during the commit. One span for each region. */
static bool want_open(struct hr_candidate *c, const struct region *region, uintptr_t at, uint64_t size) {
  struct hr_range pages = {hr_page_down(at), hr_page_up(at + size)};
  struct hr_opened *opened;
  size_t i;

  if (region->prot & PROT_WRITE)
    return true;
  for (i = 0; i < c->n_opened; i++) {
    opened = &c->opened[i];
    if (opened->region.start != region->at.start)
      continue;
    opened->pages.start = pages.start < opened->pages.start ? pages.start : opened->pages.start;
    opened->pages.end = pages.end > opened->pages.end ? pages.end : opened->pages.end;
    return true;
  }
  if (c->n_opened == c->max_opened)
    return false;
  c->opened[c->n_opened++] = (struct hr_opened){region->at, pages, false};
  return true;
}

/* ---- pages that could not be closed again -------------------------------------------------------------- */

#define LEFT_OPEN 16 /* regions; of more than these nobody takes care */

static struct left_open {
  const struct hr_image *image; /* null: a free entry */
  struct hr_range region, pages;
} left_open[LEFT_OPEN];

/* Libraries that are being loaded get their generations in the threads that load them. Nobody waits for it. */
static pthread_mutex_t left_open_lock = PTHREAD_MUTEX_INITIALIZER;

static void note_left_open(const struct hr_image *image, const struct hr_opened *opened) {
  unsigned i = 0;

  if (pthread_mutex_trylock(&left_open_lock))
    return;
  while (i < LEFT_OPEN && left_open[i].image)
    i++;
  if (i < LEFT_OPEN)
    left_open[i] = (struct left_open){image, opened->region, opened->pages};
  pthread_mutex_unlock(&left_open_lock);
}

static bool protect(struct hr_range pages) {
  return !hr_fault(HR_STEP_CLOSE) && !mprotect((void *)pages.start, pages.end - pages.start, PROT_READ);
}

/* Whether the region is there as it was, and not something else at its place. */
static bool is_region(const struct hr_loaded *loaded, struct hr_range at) {
  const struct hr_record *lists[2] = {loaded->image->records, loaded->image->reverted}, *record;
  struct region region;
  bool found = false;
  unsigned i;

  for (i = 0; i < 2; i++)
    for (record = lists[i]; record && !found; record = record->older)
      found = region_of_record(record, at.start, 1, &region);
  if (!found && !hr_inside(loaded->image->arena, at.start, 1))
    found = region_of_image(loaded, at.start, 1, &region);
  return found && region.prot == PROT_READ && region.at.start == at.start && region.at.end == at.end;
}

/* Under the loader's lock, so that the image stays. */
static bool close_in_image(const struct hr_loaded *loaded, void *context) {
  struct left_open *left = context;

  if (loaded->image != left->image || !__atomic_load_n(&loaded->image->ready, __ATOMIC_ACQUIRE))
    return true;
  if (is_region(loaded, left->region) && !protect(left->pages))
    return false;
  left->image = NULL;
  return false;
}

/* Tries again what hr_close_pages() could not do for an earlier request. */
void hr_close_left_open(void) {
  unsigned i;

  if (pthread_mutex_trylock(&left_open_lock))
    return;
  for (i = 0; i < LEFT_OPEN; i++)
    if (left_open[i].image)
      hr_each_image(close_in_image, &left_open[i]);
  pthread_mutex_unlock(&left_open_lock);
}

/* Room for `moves` slots and `writes` of bytes. */
static bool plan_space(struct hr_candidate *c, size_t moves, size_t writes, struct hr_error *error) {
  size_t n = c->loaded.n_headers + 1 + HR_MAX_SEGMENTS + 1;
  const struct hr_record *record;

  for (record = c->loaded.image->records; record; record = record->older)
    n += record->n_segments + 1;
  c->opened = hr_memory(n * sizeof *c->opened);
  c->max_opened = n;
  c->moves = hr_memory(moves * sizeof *c->moves);
  c->max_moves = moves;
  c->writes = hr_memory(writes * sizeof *c->writes);
  c->max_writes = writes;
  if (hr_fault(HR_STEP_TARGETS) || !c->opened || !c->moves || !c->writes)
    return hr_refuse(error, HR_NO_MEMORY, "no memory to plan the commit");
  return true;
}

void hr_plan_free(struct hr_candidate *c) {
  size_t i;

  for (i = 0; i < c->n_opened; i++)
    if (c->opened[i].open)
      note_left_open(c->loaded.image, &c->opened[i]);
  hr_memory_free(c->opened, c->max_opened * sizeof *c->opened);
  hr_memory_free(c->moves, c->max_moves * sizeof *c->moves);
  hr_memory_free(c->writes, c->max_writes * sizeof *c->writes);
  c->opened = NULL;
  c->moves = NULL;
  c->writes = NULL;
  c->n_opened = c->n_moves = c->n_writes = 0;
}

static bool own_table(const struct hr_candidate *c, uintptr_t at, uint64_t n, uint64_t entry) {
  return n <= UINT64_MAX / entry && at % 8 == 0 && hr_record_segment(c->record, at, n * entry);
}

/* The next two read what lies anywhere in the image's data, as a damaged payload may ask. AddressSanitizer
 * would take the gaps between its globals for mistakes of ours. */
__attribute__((no_sanitize("address"))) uint64_t hr_slot_holds(uintptr_t slot) {
  return __atomic_load_n((const uint64_t *)slot, __ATOMIC_ACQUIRE);
}

__attribute__((no_sanitize("address"))) static bool holds_content(uintptr_t at, uintptr_t content, uint64_t size) {
  const volatile uint8_t *live = (const uint8_t *)at, *expected = (const uint8_t *)content;
  uint64_t i;

  for (i = 0; i < size && live[i] == expected[i]; i++)
    ;
  return i == size;
}

static bool plan_redirect(struct hr_candidate *c, const struct hr_redirect *redirect, struct hr_error *error) {
  const struct hr_segment *code = hr_record_segment(c->record, redirect->new_target, 1);
  uintptr_t bias = c->loaded.bias;
  struct region region;
  uint64_t holds;

  if (!code || !(code->prot & PROT_EXEC))
    return hr_refuse(error, HR_BAD_PAYLOAD, "new code at 0x%" PRIx64 " is not code of the payload",
                     redirect->new_target - bias);
  if (redirect->slot % 8 || !find_region(c, redirect->slot, 8, &region) || !region.variable ||
      region.prot & PROT_EXEC)
    return hr_refuse(error, HR_BAD_PAYLOAD, "slot 0x%" PRIx64 " is not inside the image's data",
                     redirect->slot - bias);
  if (redirect->old_size > UINT64_MAX - redirect->old_target)
    return hr_refuse(error, HR_BAD_PAYLOAD, "the old code of slot 0x%" PRIx64 " has an impossible size",
                     redirect->slot - bias);
  holds = hr_slot_holds(redirect->slot);
  if (holds != redirect->old_target)
    return hr_refuse(error, HR_UNEXPECTED_SLOT, "slot 0x%" PRIx64 " holds 0x%" PRIx64 ", expected 0x%" PRIx64,
                     redirect->slot - bias, holds - bias, redirect->old_target - bias);
  c->moves[c->n_moves++] = (struct hr_move){redirect->slot, redirect->old_target, redirect->new_target};
  return want_open(c, &region, redirect->slot, 8) || hr_refuse(error, HR_INTERNAL, "too many regions to open");
}

/* New thread-locals: initial values in the TLS segment of the program. Libraries may have blocks in some threads only,
 * at addresses that only ld.so knows. */
static bool place_in_threads(const struct hr_candidate *c, const struct hr_update *update, uint64_t *below,
                             struct hr_error *error) {
  unsigned i;

  for (i = 0; c->loaded.is_main && i < c->loaded.n_headers; i++) {
    const Elf64_Phdr *tls = &c->loaded.headers[i];
    struct hr_range initial = {c->loaded.bias + tls->p_vaddr, c->loaded.bias + tls->p_vaddr + tls->p_filesz};

    if (tls->p_type != PT_TLS || !hr_inside(initial, update->address, update->size) ||
        (tls->p_align > 1 && tls->p_vaddr % tls->p_align))
      continue;
    *below = hr_tls_below(tls->p_memsz, tls->p_align) - (update->address - initial.start);
    return true;
  }
  return hr_refuse(error, HR_UNSUPPORTED, "thread-locals with initial values at 0x%" PRIx64 ", which is not in the "
                   "program's own TLS segment", update->address - c->loaded.bias);
}

static bool plan_update(struct hr_candidate *c, const struct hr_update *update, uint8_t *applied,
                        struct hr_error *error) {
  uintptr_t bias = c->loaded.bias;
  struct region region;
  uint64_t below = 0;

  if (update->flags & ~(uint64_t)(HR_UPDATE_CONSTANT | HR_UPDATE_MERGE | HR_UPDATE_THREADS) ||
      (update->flags & (update->flags - 1)))
    return hr_refuse(error, HR_BAD_PAYLOAD, "update of 0x%" PRIx64 " has flags 0x%" PRIx64, update->address - bias,
                     update->flags);
  if (!update->size || !hr_record_segment(c->record, update->old_content, update->size) ||
      !hr_record_segment(c->record, update->new_content, update->size))
    return hr_refuse(error, HR_BAD_PAYLOAD, "content for 0x%" PRIx64 " lies outside the payload",
                     update->address - bias);
  if (!find_region(c, update->address, update->size, &region))
    return hr_refuse(error, HR_BAD_PAYLOAD,
                     "update of 0x%" PRIx64 ", %" PRIu64 " bytes, is not inside the image's data",
                     update->address - bias, update->size);
  if (region.prot & PROT_EXEC)
    return hr_refuse(error, HR_UNSUPPORTED,
                     "the object at 0x%" PRIx64 " lies between code, and no page may be writable while it is "
                     "executable; link the image with -Wl,-z,separate-code (gold: -Wl,--rosegment)",
                     update->address - bias);
  if (update->flags & HR_UPDATE_THREADS && !place_in_threads(c, update, &below, error))
    return false;
  if (update->flags & (HR_UPDATE_CONSTANT | HR_UPDATE_THREADS) &&
      !holds_content(update->address, update->old_content, update->size))
    return hr_refuse(error, HR_UNEXPECTED_SLOT, "the constant at 0x%" PRIx64 " does not hold its old content",
                     update->address - bias);
  c->writes[c->n_writes++] = (struct hr_write){update->address, (const void *)update->old_content,
                                               (const void *)update->new_content, update->size,
                                               update->flags & HR_UPDATE_MERGE, below, applied, 1};
  return want_open(c, &region, update->address, update->size) ||
         hr_refuse(error, HR_INTERNAL, "too many regions to open");
}

static bool check_parts(const struct hr_payload *header, struct hr_error *error) {
  const struct hr_part *parts = (const struct hr_part *)header->parts;
  uint64_t i;

  for (i = 0; i < header->n_parts; i++)
    if (parts[i].redirect >= header->n_redirects || parts[i].size > UINT64_MAX - parts[i].start)
      return hr_refuse(error, HR_BAD_PAYLOAD, "its part %" PRIu64 " of old code belongs to no redirect", i);
  return true;
}

static bool own_tables(const struct hr_candidate *c) {
  const struct hr_payload *header = c->record->header;

  return (!header->n_redirects || own_table(c, header->redirects, header->n_redirects, sizeof(struct hr_redirect))) &&
         (!header->n_updates || own_table(c, header->updates, header->n_updates, sizeof(struct hr_update))) &&
         (!header->n_parts || own_table(c, header->parts, header->n_parts, sizeof(struct hr_part))) &&
         (!header->n_heads || own_table(c, header->heads, header->n_heads, sizeof(struct hr_head)));
}

/* Where the record notes which of its updates were made: a revert takes back those and no others. */
static bool make_notes(struct hr_record *record, struct hr_error *error) {
  if (!record->header->n_updates || record->applied)
    return true;
  record->applied = hr_fault(HR_STEP_NOTES) ? NULL : hr_store_take(record->header->n_updates);
  return record->applied || hr_refuse(error, HR_NO_MEMORY, "no memory to note what was updated");
}

/* A payload that comes back after a revert finds its thread-locals as each thread has them: they are never taken
 * back. */
static bool was_given_to_threads(const struct hr_candidate *c, const struct hr_update *update) {
  return c->mapped_before && update->flags & HR_UPDATE_THREADS;
}

/* Whether some thread-local gets a value in threads that run: they must be halted for that. */
bool hr_sets_threads(const struct hr_transaction *t) {
  unsigned i;
  size_t j;

  for (i = 0; i < t->n_candidates; i++)
    for (j = 0; j < t->candidates[i].n_writes; j++)
      if (t->candidates[i].writes[j].below)
        return true;
  return false;
}

/* Checks what the payload c->record changes, and lists it. */
bool hr_plan_apply(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  const struct hr_redirect *redirects = (const struct hr_redirect *)header->redirects;
  const struct hr_update *updates = (const struct hr_update *)header->updates;
  uint64_t i;

  if (!own_tables(c))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its tables lie outside its segments");
  if (!check_parts(header, error) || !plan_space(c, header->n_redirects, header->n_updates, error) ||
      !make_notes(c->record, error))
    return false;
  for (i = 0; i < header->n_redirects; i++)
    if (!plan_redirect(c, &redirects[i], error))
      return false;
  for (i = 0; i < header->n_updates; i++)
    if (!was_given_to_threads(c, &updates[i]) && !plan_update(c, &updates[i], &c->record->applied[i], error))
      return false;
  return true;
}

/* ---- back to an earlier generation ------------------------------------------------------------------- */

struct step { /* one redirect of one generation that is to be reverted */
  const struct hr_redirect *redirect;
  uint64_t generation;
};

static int by_slot(const void *a, const void *b) {
  const struct step *one = a, *two = b;

  if (one->redirect->slot != two->redirect->slot)
    return one->redirect->slot < two->redirect->slot ? -1 : 1;
  return one->generation < two->generation ? -1 : one->generation > two->generation;
}

/* Generations of one slot follow each other in `steps`: it goes back to what the first of them found. */
static bool plan_slots(struct hr_candidate *c, const struct step *steps, size_t n, struct hr_error *error) {
  struct region region;
  size_t i, last;

  for (i = 0; i < n; i = last + 1) {
    uint64_t slot = steps[i].redirect->slot, holds = hr_slot_holds(slot);

    for (last = i; last + 1 < n && steps[last + 1].redirect->slot == slot; last++)
      ;
    if (holds != steps[last].redirect->new_target)
      return hr_refuse(error, HR_UNEXPECTED_SLOT, "slot 0x%" PRIx64 " holds 0x%" PRIx64 ", expected 0x%" PRIx64,
                       slot - c->loaded.bias, holds - c->loaded.bias,
                       steps[last].redirect->new_target - c->loaded.bias);
    if (!hr_code_is_there(c->loaded.image, steps[i].generation, steps[i].redirect->old_target))
      return hr_refuse(error, HR_NO_CODE, "what function slot 0x%" PRIx64 " led to before generation %" PRIu64,
                       slot - c->loaded.bias, steps[i].generation);
    c->moves[c->n_moves++] = (struct hr_move){slot, holds, steps[i].redirect->old_target};
    if (!find_region(c, slot, 8, &region) || !want_open(c, &region, slot, 8))
      return hr_refuse(error, HR_INTERNAL, "slot 0x%" PRIx64 " can't be opened", slot - c->loaded.bias);
  }
  return true;
}

/* Newest first: each takes back what its own generation wrote, if that is still there. */
static bool plan_contents(struct hr_candidate *c, const struct hr_record *record, struct hr_error *error) {
  const struct hr_update *updates = (const struct hr_update *)record->header->updates;
  struct region region;
  uint64_t i;

  for (i = record->header->n_updates; i-- > 0;) {
    if (!record->applied[i] || updates[i].flags & HR_UPDATE_THREADS)
      continue;
    c->writes[c->n_writes++] = (struct hr_write){updates[i].address, (const void *)updates[i].new_content,
                                                 (const void *)updates[i].old_content, updates[i].size, true, 0,
                                                 &record->applied[i], 0};
    if (!find_region(c, updates[i].address, updates[i].size, &region) ||
        !want_open(c, &region, updates[i].address, updates[i].size))
      return hr_refuse(error, HR_INTERNAL, "the object at 0x%" PRIx64 " can't be opened",
                       updates[i].address - c->loaded.bias);
  }
  return true;
}

/* Lists what brings the image back from c->record, its newest, to c->down_to (null: as built). */
bool hr_plan_revert(struct hr_candidate *c, struct hr_error *error) {
  size_t n_steps = 0, n_writes = 0, n = 0;
  const struct hr_record *record;
  struct step *steps;
  bool done;
  uint64_t i;

  for (record = c->record; record != c->down_to; record = record->older) {
    n_steps += record->header->n_redirects;
    n_writes += record->header->n_updates;
  }
  if (!plan_space(c, n_steps, n_writes, error) || hr_fault(HR_STEP_SLOTS) ||
      !(steps = hr_memory(n_steps * sizeof *steps)))
    return hr_refuse(error, HR_NO_MEMORY, "no memory to plan the revert");
  for (record = c->record; record != c->down_to; record = record->older)
    for (i = 0; i < record->header->n_redirects; i++)
      steps[n++] = (struct step){(const struct hr_redirect *)record->header->redirects + i, record->generation};
  qsort(steps, n, sizeof *steps, by_slot);
  done = plan_slots(c, steps, n, error);
  for (record = c->record; done && record != c->down_to; record = record->older)
    done = plan_contents(c, record, error);
  hr_memory_free(steps, n_steps * sizeof *steps);
  return done;
}

/* ---- opening the pages --------------------------------------------------------------------------------- */

/* May fail; then some pages may be open, which hr_close_pages() closes. */
bool hr_open_pages(struct hr_candidate *c, struct hr_error *error) {
  size_t i;

  for (i = 0; i < c->n_opened; i++) {
    struct hr_range pages = c->opened[i].pages;

    if (hr_fault(HR_STEP_OPEN) ||
        mprotect((void *)pages.start, pages.end - pages.start, PROT_READ | PROT_WRITE))
      return hr_refuse(error, HR_NO_MEMORY, "0x%" PRIxPTR "..0x%" PRIxPTR " can't be made writable: %s",
                       pages.start - c->loaded.bias, pages.end - c->loaded.bias, strerror(errno));
    c->opened[i].open = true;
  }
  return true;
}

/* Returns false if some page stayed writable: it counts as open, and is closed by a later call. */
bool hr_close_pages(struct hr_candidate *c) {
  bool done = true;
  size_t i;

  for (i = 0; i < c->n_opened; i++) {
    c->opened[i].open = c->opened[i].open && !protect(c->opened[i].pages);
    done &= !c->opened[i].open;
  }
  return done;
}

/* Reads back from the process how many slots hold what they were given. */
uint64_t hr_count_live(const struct hr_candidate *c) {
  const struct hr_payload *header = c->already && !c->revert ? c->record->header : NULL;
  const struct hr_redirect *redirects = header ? (const struct hr_redirect *)header->redirects : NULL;
  uint64_t live = 0, i;

  for (i = 0; i < c->n_moves; i++)
    live += hr_slot_holds(c->moves[i].slot) == c->moves[i].to;
  for (i = 0; header && i < header->n_redirects; i++) /* nothing was planned: it was there */
    live += hr_slot_holds(redirects[i].slot) == redirects[i].new_target;
  return c->revert ? live : live - hr_heads_idle(c); /* a slot is not enough where the head does not lead to it */
}
