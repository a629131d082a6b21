/* Takes payloads into the process: prepare -> commit -> report, all of them or none.
 *
 * Whatever can fail is in prepare, and prepare can be undone without a trace. Between the two lies the seam
 * for consistency modes that bring threads to a halt: what runs from there to the end of commit must not
 * allocate, take a lock that a halted thread may hold, or fail. */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct transaction { /* allocated with mmap: too large for the agent's stack */
  const struct hr_order *order;
  struct hr_error *error;
  struct hr_elf elfs[HR_MAX_PAYLOADS];
  struct hr_candidate candidates[HR_MAX_CANDIDATES];
  unsigned n_candidates;
};

#ifdef HR_FAULTS
bool hr_fault(enum hr_step step) {
  static const char *const names[] = {
#define X(name) #name,
    HR_STEPS(X)
#undef X
  };
  const char *path = getenv("HR_FAULT_FILE");
  char wanted[32] = "";
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  ssize_t n = file < 0 ? 0 : read(file, wanted, sizeof wanted - 1);

  if (file >= 0)
    close(file);
  errno = ENOMEM;
  return n > 0 && !strcmp(wanted, names[step]);
}
#endif

/* ---- which images the payloads are for ----------------------------------------------------------- */

struct match {
  struct transaction *t;
  const struct hr_elf *elf;
  unsigned found;
  bool other_abi, too_many;
};

static bool take_match(const struct hr_loaded *loaded, void *context) {
  struct match *match = context;
  struct transaction *t = match->t;
  const struct hr_payload *header = &match->elf->header;
  struct hr_candidate *c = &t->candidates[t->n_candidates];

  if (loaded->build_id_size != header->build_id_size ||
      memcmp(loaded->build_id, header->build_id, loaded->build_id_size))
    return true;
  if (loaded->image->abi != HR_ABI) {
    match->other_abi = true;
    return false;
  }
  if (!__atomic_load_n(&loaded->image->ready, __ATOMIC_ACQUIRE))
    return true;
  if (t->n_candidates == HR_MAX_CANDIDATES) {
    match->too_many = true;
    return false;
  }
  c->elf = match->elf;
  c->loaded = *loaded;
  strncpy(c->name, loaded->name, sizeof c->name - 1);
  t->n_candidates++;
  match->found++;
  return true;
}

static void build_id_text(const struct hr_payload *header, char *text) {
  static const char digits[] = "0123456789abcdef";
  uint32_t i;

  for (i = 0; i < header->build_id_size; i++) {
    *text++ = digits[header->build_id[i] >> 4];
    *text++ = digits[header->build_id[i] & 15];
  }
  *text = 0;
}

static bool find_images(struct transaction *t, const struct hr_elf *elf) {
  struct match match = {.t = t, .elf = elf};
  char build_id[2 * HR_BUILD_ID_MAX + 1];
  unsigned i;

  build_id_text(&elf->header, build_id);
  for (i = 0; i < t->n_candidates; i++)
    if (t->candidates[i].elf->header.build_id_size == elf->header.build_id_size &&
        !memcmp(t->candidates[i].elf->header.build_id, elf->header.build_id, elf->header.build_id_size))
      return hr_refuse(t->error, HR_BAD_REQUEST, "two payloads for the image with build-id %s", build_id);
  hr_each_image(take_match, &match);
  if (match.other_abi)
    return hr_refuse(t->error, HR_ABI_MISMATCH,
                     "the image with build-id %s carries another version of the runtime than the one that serves "
                     "this process; build all images with one version", build_id);
  if (match.too_many)
    return hr_refuse(t->error, HR_UNSUPPORTED, "more than %d images to patch at once", HR_MAX_CANDIDATES);
  return match.found || hr_refuse(t->error, HR_WRONG_IMAGE, "build-id %s", build_id);
}

struct presence {
  const struct hr_candidate *c;
  bool found;
};

static bool is_present(const struct hr_loaded *loaded, void *context) {
  struct presence *presence = context;
  const struct hr_loaded *was = &presence->c->loaded;

  presence->found = loaded->image == was->image && loaded->bias == was->bias &&
                    loaded->build_id_size == was->build_id_size &&
                    !memcmp(loaded->build_id, was->build_id, was->build_id_size);
  return !presence->found;
}

/* Takes a handle on the image so that it stays loaded, then looks whether it still is the same one. */
static bool hold_image(struct hr_candidate *c, struct hr_error *error) {
  struct presence presence = {.c = c};

  c->program = dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD);
  if (c->program)
    dlclose(c->program); /* the handle of the program stays valid */
  if (!c->loaded.is_main)
    c->handle = hr_fault(HR_STEP_HOLD) ? NULL : dlopen(c->name, RTLD_LAZY | RTLD_NOLOAD);
  hr_each_image(is_present, &presence);
  c->loaded.name = c->name;
  if (!presence.found || !c->program || (!c->loaded.is_main && !c->handle) ||
      (c->loaded.is_main && hr_fault(HR_STEP_HOLD)))
    return hr_refuse(error, HR_WRONG_IMAGE, "%s was unloaded meanwhile", c->name);
  return true;
}

static bool check_order(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_image *image = c->loaded.image;
  const struct hr_payload *header = &c->elf->header;
  struct hr_record *record;

  for (record = image->records; record; record = record->older)
    if (!memcmp(record->id, header->id, HR_ID_SIZE)) {
      c->record = record;
      c->already = true;
      return true;
    }
  if (header->generation == image->generation + 1 && !memcmp(header->parent, image->id, HR_ID_SIZE))
    return true;
  return hr_refuse(error, HR_OUT_OF_ORDER,
                   "the payload is generation %" PRIu64 ", the image is at generation %" PRIu64 "%s",
                   header->generation, image->generation,
                   header->generation == image->generation + 1 ? " with another history" : "");
}

/* ---- what a payload wants to change -------------------------------------------------------------- */

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

static bool plan_space(struct hr_candidate *c, struct hr_error *error) {
  size_t n = c->loaded.n_headers + 1 + HR_MAX_SEGMENTS + 1;
  const struct hr_record *record;
  void *at;

  for (record = c->loaded.image->records; record; record = record->older)
    n += record->n_segments + 1;
  at = mmap(NULL, n * sizeof *c->opened, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED)
    return hr_refuse(error, HR_NO_MEMORY, "no memory to plan the commit");
  c->opened = at;
  c->max_opened = n;
  return true;
}

static bool own_table(const struct hr_candidate *c, uintptr_t at, uint64_t n, uint64_t entry) {
  return n <= UINT64_MAX / entry && at % 8 == 0 && hr_record_segment(c->record, at, n * entry);
}

/* The next two read what lies anywhere in the image's data, as a damaged payload may ask. AddressSanitizer
 * would take the gaps between its globals for mistakes of ours. */
__attribute__((no_sanitize("address"))) static uint64_t slot_holds(uintptr_t slot) {
  return __atomic_load_n((const uint64_t *)slot, __ATOMIC_ACQUIRE);
}

__attribute__((no_sanitize("address"))) static bool holds_content(uintptr_t at, uintptr_t content, uint64_t size) {
  const volatile uint8_t *live = (const uint8_t *)at, *expected = (const uint8_t *)content;
  uint64_t i;

  for (i = 0; i < size && live[i] == expected[i]; i++)
    ;
  return i == size;
}

static bool check_redirect(struct hr_candidate *c, const struct hr_redirect *redirect, struct hr_error *error) {
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
  holds = slot_holds(redirect->slot);
  if (holds != redirect->old_target)
    return hr_refuse(error, HR_UNEXPECTED_SLOT, "slot 0x%" PRIx64 " holds 0x%" PRIx64 ", expected 0x%" PRIx64,
                     redirect->slot - bias, holds - bias, redirect->old_target - bias);
  return want_open(c, &region, redirect->slot, 8) || hr_refuse(error, HR_INTERNAL, "too many regions to open");
}

static bool check_update(struct hr_candidate *c, const struct hr_update *update, struct hr_error *error) {
  uintptr_t bias = c->loaded.bias;
  struct region region;

  if (update->flags & ~(uint64_t)(HR_UPDATE_CONSTANT | HR_UPDATE_MERGE) ||
      update->flags == (HR_UPDATE_CONSTANT | HR_UPDATE_MERGE))
    return hr_refuse(error, HR_BAD_PAYLOAD, "update of 0x%" PRIx64 " has flags 0x%" PRIx64, update->address - bias,
                     update->flags);
  if (!update->size || !hr_record_segment(c->record, update->old_content, update->size) ||
      !hr_record_segment(c->record, update->new_content, update->size))
    return hr_refuse(error, HR_BAD_PAYLOAD, "content for 0x%" PRIx64 " lies outside the payload",
                     update->address - bias);
  if (!find_region(c, update->address, update->size, &region))
    return hr_refuse(error, HR_BAD_PAYLOAD,
                     "update of 0x%" PRIx64 ", %" PRIu64 " bytes, is not inside the image's data", update->address - bias,
                     update->size);
  if (region.prot & PROT_EXEC)
    return hr_refuse(error, HR_UNSUPPORTED,
                     "the object at 0x%" PRIx64 " lies between code, and no page may be writable while it is "
                     "executable; link the image with -z separate-code", update->address - bias);
  if (update->flags & HR_UPDATE_CONSTANT && !holds_content(update->address, update->old_content, update->size))
    return hr_refuse(error, HR_UNEXPECTED_SLOT, "the constant at 0x%" PRIx64 " does not hold its old content",
                     update->address - bias);
  return want_open(c, &region, update->address, update->size) ||
         hr_refuse(error, HR_INTERNAL, "too many regions to open");
}

static bool check_targets(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  const struct hr_redirect *redirects = (const struct hr_redirect *)header->redirects;
  const struct hr_update *updates = (const struct hr_update *)header->updates;
  uint64_t i;

  if (hr_fault(HR_STEP_TARGETS) || !plan_space(c, error))
    return hr_refuse(error, HR_NO_MEMORY, "no memory to plan the commit");
  if ((header->n_redirects && !own_table(c, header->redirects, header->n_redirects, sizeof *redirects)) ||
      (header->n_updates && !own_table(c, header->updates, header->n_updates, sizeof *updates)))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its tables lie outside its segments");
  for (i = 0; i < header->n_redirects; i++)
    if (!check_redirect(c, &redirects[i], error))
      return false;
  for (i = 0; i < header->n_updates; i++)
    if (!check_update(c, &updates[i], error))
      return false;
  return true;
}

static bool open_pages(struct hr_candidate *c, struct hr_error *error) {
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

/* Returns false if some page stayed writable. */
static bool close_pages(struct hr_candidate *c) {
  bool done = true;
  size_t i;

  for (i = 0; i < c->n_opened; i++) {
    struct hr_range pages = c->opened[i].pages;

    if (c->opened[i].open && mprotect((void *)pages.start, pages.end - pages.start, PROT_READ))
      done = false;
    c->opened[i].open = false;
  }
  return done;
}

/* ---- prepare, undo --------------------------------------------------------------------------------- */

static bool prepare_candidate(struct hr_candidate *c, struct hr_error *error) {
  if (!hold_image(c, error) || !check_order(c, error))
    return false;
  return c->already || (hr_payload_map(c, error) && hr_payload_relocate(c, error) && hr_payload_seal(c, error) &&
                        hr_payload_register_unwind(c, error) && check_targets(c, error) && open_pages(c, error));
}

/* A client that gave up waiting must not be patched behind its back. */
static bool client_waits(const struct transaction *t) {
  struct pollfd client = {.fd = t->order->client, .events = 0};

  if (!hr_fault(HR_STEP_CLIENT) && (t->order->client < 0 || poll(&client, 1, 0) == 0))
    return true;
  return hr_refuse(t->error, HR_DEADLINE, "the client went away before the commit");
}

static bool prepare(struct transaction *t) {
  const struct hr_request *request = t->order->request;
  uint32_t i;

  if (request->when != HR_WHEN_NOW)
    return hr_refuse(t->error, HR_UNSUPPORTED,
                     "only the consistency 'now' is there yet: ask for --when now, with which running calls finish "
                     "in the old code");
  if (!request->n_payloads)
    return hr_refuse(t->error, HR_BAD_REQUEST, "no payload came with the request");
  for (i = 0; i < request->n_payloads; i++)
    if (!hr_elf_read(&t->elfs[i], t->order->files[i], t->error) || !find_images(t, &t->elfs[i]))
      return false;
  for (i = 0; i < t->n_candidates; i++)
    if (!prepare_candidate(&t->candidates[i], t->error))
      return false;
  return client_waits(t);
}

static void undo_candidate(struct hr_candidate *c) {
  struct hr_record *record = c->record;

  close_pages(c);
  if (!record || c->already)
    return;
  hr_record_unregister_unwind(record);
  if (record->unwinder_handle)
    dlclose(record->unwinder_handle);
  hr_arena_close(record->pages);
  munmap(record, sizeof *record);
  c->record = NULL;
}

/* Leaves the process as it was before prepare, however far prepare came. */
static void undo(struct transaction *t) {
  unsigned i;

  for (i = t->n_candidates; i-- > 0;)
    undo_candidate(&t->candidates[i]);
}

/* ---- commit ---------------------------------------------------------------------------------------- */

static pthread_mutex_t commit_lock = PTHREAD_MUTEX_INITIALIZER;

void hr_commit_lock(void) { pthread_mutex_lock(&commit_lock); }
void hr_commit_unlock(void) { pthread_mutex_unlock(&commit_lock); }
void hr_commit_lock_reset(void) { pthread_mutex_init(&commit_lock, NULL); }

/* Context: commit. Compares and stores in one step where the CPU can, so that no store of the program that
 * comes in between is lost. */
static bool merge(const struct hr_update *update) {
  void *at = (void *)update->address, *old = (void *)update->old_content, *new = (void *)update->new_content;

#define MERGE_AS(type) \
  if (update->size == sizeof(type) && update->address % sizeof(type) == 0) { \
    type expected, desired; \
    memcpy(&expected, old, sizeof expected); \
    memcpy(&desired, new, sizeof desired); \
    return __atomic_compare_exchange_n((type *)at, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED); \
  }
  MERGE_AS(uint64_t)
  MERGE_AS(uint32_t)
  MERGE_AS(uint16_t)
  MERGE_AS(uint8_t)
#undef MERGE_AS
  if (memcmp(at, old, update->size))
    return false;
  memcpy(at, new, update->size);
  return true;
}

/* Context: commit. No allocation, no lock, no failure. */
static void commit_updates(struct hr_candidate *c) {
  const struct hr_payload *header = c->record->header;
  const struct hr_update *updates = (const struct hr_update *)header->updates;
  uint64_t i;

  for (i = 0; i < header->n_updates; i++) {
    bool applied = true;

    if (updates[i].flags & HR_UPDATE_MERGE)
      applied = merge(&updates[i]);
    else
      memcpy((void *)updates[i].address, (const void *)updates[i].new_content, updates[i].size);
    c->updates_applied += applied;
    c->updates_kept += !applied;
  }
}

/* Context: commit. */
static void commit_redirects(struct hr_candidate *c) {
  const struct hr_payload *header = c->record->header;
  const struct hr_redirect *redirects = (const struct hr_redirect *)header->redirects;
  uint64_t i;

  for (i = 0; i < header->n_redirects; i++)
    __atomic_store_n((uint64_t *)redirects[i].slot, redirects[i].new_target, __ATOMIC_RELEASE);
}

/* Context: commit. */
static void commit_candidate(struct hr_candidate *c) {
  struct hr_image *image = c->loaded.image;

  commit_updates(c); /* before the code that relies on it */
  commit_redirects(c);
  c->record->older = image->records;
  image->records = c->record;
  memcpy(image->id, c->record->id, HR_ID_SIZE);
  __atomic_store_n(&image->generation, c->record->generation, __ATOMIC_RELEASE);
}

/* Context: commit. Returns how many generations are new. */
static int commit(struct transaction *t) {
  int generations = 0;
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already) {
      commit_candidate(&t->candidates[i]);
      generations++;
    }
  return generations;
}

static uint64_t now_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Signals are blocked: a handler that forks must not find the lock held by the thread it runs on. */
static int timed_commit(struct transaction *t, struct hr_outcome *outcome) {
  sigset_t all, before;
  uint64_t start;
  int generations;
  unsigned i;

  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  hr_commit_lock();
  start = now_ns();
  generations = commit(t);
  outcome->commit_us = (now_ns() - start + 999) / 1000;
  hr_commit_unlock();
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  for (i = 0; i < t->n_candidates; i++)
    outcome->protections_restored &= close_pages(&t->candidates[i]);
  return generations;
}

/* ---- report ------------------------------------------------------------------------------------------ */

/* Reads back from the process what is live, after the fact. */
static void count_live(struct hr_candidate *c) {
  const struct hr_payload *header = c->record->header;
  const struct hr_redirect *redirects = (const struct hr_redirect *)header->redirects;
  uint64_t i;

  for (i = 0; i < header->n_redirects; i++)
    c->functions_live += slot_holds(redirects[i].slot) == redirects[i].new_target;
}

static void report(struct transaction *t, struct hr_text *text, struct hr_outcome *outcome) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    count_live(&t->candidates[i]);
  outcome->candidates = t->candidates;
  outcome->n_candidates = t->n_candidates;
  hr_report_apply(text, outcome);
}

static bool all_already(const struct transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already)
      return false;
  return true;
}

static void release(struct transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++) {
    struct hr_candidate *c = &t->candidates[i];

    if (c->opened)
      munmap(c->opened, c->max_opened * sizeof *c->opened);
    if (c->handle)
      dlclose(c->handle);
  }
  munmap(t, sizeof *t);
}

/* Applies the order's payloads, or refuses them all, and writes the answer. *generations: how many are new. */
enum hr_code hr_apply(const struct hr_order *order, struct hr_text *text, int *generations) {
  struct hr_error error = {.code = HR_OK};
  struct hr_outcome outcome = {.order = order, .protections_restored = true};
  struct transaction *t = hr_fault(HR_STEP_TRANSACTION)
                              ? MAP_FAILED
                              : mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool dry_run = order->request->flags & HR_DRY_RUN, prepared;
  enum hr_code code = HR_OK;

  *generations = 0;
  if (t == MAP_FAILED) {
    hr_refuse(&error, HR_NO_MEMORY, "no memory to plan the commit");
    hr_report_error(text, &error);
    return error.code;
  }
  t->order = order;
  t->error = &error;
  prepared = prepare(t);
  /* Seam: consistency modes bring the threads to a halt here, hooks may veto. */
  if (prepared && !dry_run)
    *generations = timed_commit(t, &outcome);
  if (prepared) {
    report(t, text, &outcome);
    code = all_already(t) ? HR_ALREADY : HR_OK;
  } else {
    hr_report_error(text, &error);
    code = error.code;
  }
  if (!prepared || dry_run)
    undo(t);
  release(t);
  return code;
}

/* Does nothing in this version: 'now' waits for no thread. */
void hotreload_safepoint(void) {}
