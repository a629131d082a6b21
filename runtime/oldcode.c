/* The code that nobody may be in when a patch goes in: what the new code takes the place of, and what was before that.
 *
 * Context: prepare; threads run. */
#include "internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>

static void add_code(struct hr_codes *codes, const struct hr_candidate *c, uintptr_t start, uint64_t size,
                     uintptr_t function) {
  codes->code[codes->n++] = (struct hr_old_code){{start, start + (size ? size : 1)}, function, c->loaded.image};
}

/* The old code of one redirect of `record`: the body and what belongs to it. */
static void add_redirect(struct hr_codes *codes, const struct hr_candidate *c, const struct hr_payload *header,
                         uint64_t index) {
  const struct hr_redirect *redirect = (const struct hr_redirect *)header->redirects + index;
  const struct hr_part *parts = (const struct hr_part *)header->parts;
  uint64_t i;

  add_code(codes, c, redirect->old_target, redirect->old_size, redirect->old_target);
  for (i = 0; i < header->n_parts; i++)
    if (parts[i].redirect == index)
      add_code(codes, c, parts[i].start, parts[i].size, redirect->old_target);
}

static bool changes_slot(const struct hr_candidate *c, uint64_t slot) {
  size_t i;

  for (i = 0; i < c->n_moves; i++)
    if (c->moves[i].slot == slot)
      return true;
  return false;
}

/* A call that a patch with `now` overtook may still be in a body from before that patch. */
static void add_older(struct hr_codes *codes, const struct hr_candidate *c, const struct hr_record *record) {
  uint64_t i;

  for (; record; record = record->older) {
    const struct hr_redirect *redirects = (const struct hr_redirect *)record->header->redirects;

    for (i = 0; !record->settled && i < record->header->n_redirects; i++)
      if (changes_slot(c, redirects[i].slot) &&
          hr_code_is_there(c->loaded.image, record->generation, redirects[i].old_target))
        add_redirect(codes, c, record->header, i);
  }
}

/* All code that a generation brought. */
static void add_record(struct hr_codes *codes, const struct hr_candidate *c, const struct hr_record *record) {
  uint32_t i;

  for (i = 0; i < record->n_segments; i++)
    if (record->segments[i].prot & PROT_EXEC)
      add_code(codes, c, record->segments[i].at.start, record->segments[i].at.end - record->segments[i].at.start, 0);
}

static void add_reverted(struct hr_codes *codes, const struct hr_candidate *c) {
  const struct hr_record *record;
  uint64_t i;

  for (record = c->loaded.image->reverted; record; record = record->older) {
    const struct hr_redirect *redirects = (const struct hr_redirect *)record->header->redirects;

    for (i = 0; record->n_segments && i < record->header->n_redirects; i++)
      if (record != c->record && changes_slot(c, redirects[i].slot))
        add_code(codes, c, redirects[i].new_target, redirects[i].new_size, redirects[i].new_target);
  }
}

static void add_candidate(struct hr_codes *codes, const struct hr_candidate *c) {
  const struct hr_record *record = c->record;
  uint64_t i;

  for (i = 0; !c->revert && i < record->header->n_redirects; i++)
    add_redirect(codes, c, record->header, i);
  for (; c->revert && record != c->down_to; record = record->older)
    add_record(codes, c, record);
  add_older(codes, c, c->revert ? c->down_to : c->loaded.image->records);
  add_reverted(codes, c);
}

static size_t count_tables(const struct hr_record *record) {
  size_t n = 0;

  for (; record; record = record->older)
    n += record->header->n_redirects + record->header->n_parts + record->n_segments;
  return n;
}

static int by_start(const void *a, const void *b) {
  const struct hr_old_code *one = a, *two = b;

  return one->at.start < two->at.start ? -1 : one->at.start > two->at.start;
}

/* By address, without overlap. */
void hr_codes_sort(struct hr_codes *codes) {
  size_t i, last = 0;

  if (!codes->n)
    return;
  qsort(codes->code, codes->n, sizeof *codes->code, by_start);
  for (i = 1; i < codes->n; i++)
    if (codes->code[i].at.start >= codes->code[last].at.end)
      codes->code[++last] = codes->code[i];
    else if (codes->code[i].at.end > codes->code[last].at.end)
      codes->code[last].at.end = codes->code[i].at.end;
  codes->n = last + 1;
  codes->highest = codes->code[last].at.end;
}

/* A thread that is being started may have its thread-locals already and be no thread yet: then its creator is in
 * pthread_create(). */
bool hr_thread_creation(struct hr_range *code) {
  void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), *create = libc ? dlsym(libc, "pthread_create") : NULL;
  const Elf64_Sym *symbol = NULL;
  Dl_info info;

  if (!create)
    create = dlsym(RTLD_DEFAULT, "pthread_create");
  if (libc)
    dlclose(libc);
  if (!create || !dladdr1(create, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol || !symbol->st_size)
    return false;
  *code = (struct hr_range){(uintptr_t)create, (uintptr_t)create + symbol->st_size};
  return true;
}

static bool add_thread_creation(const struct hr_transaction *t, struct hr_codes *codes) {
  struct hr_range code;

  if (!hr_thread_creation(&code))
    return hr_refuse(t->error, HR_UNSUPPORTED,
                     "it cannot be told whether a thread is being started, which would miss the value of a new "
                     "thread-local");
  codes->code[codes->n++] = (struct hr_old_code){code, code.start, t->candidates[0].loaded.image};
  return true;
}

/* All code that nobody may be in when the transaction is committed; the caller frees it. */
bool hr_codes_find(const struct hr_transaction *t, struct hr_codes *codes) {
  unsigned i;

  codes->capacity = 1;
  for (i = 0; i < t->n_candidates; i++) {
    const struct hr_candidate *c = &t->candidates[i];

    codes->capacity += count_tables(c->record) + count_tables(c->loaded.image->records) +
                       count_tables(c->loaded.image->reverted);
  }
  codes->code = hr_fault(HR_STEP_CODES) ? NULL : hr_memory(codes->capacity * sizeof *codes->code);
  if (!codes->code)
    return hr_refuse(t->error, HR_NO_MEMORY, "no memory for the list of old code");
  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already)
      add_candidate(codes, &t->candidates[i]);
  if (hr_sets_threads(t) && !add_thread_creation(t, codes))
    return false;
  hr_codes_sort(codes);
  return true;
}
