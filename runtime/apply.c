/* Takes payloads into the process, or takes generations back: prepare -> commit -> report, all or nothing.
 *
 * Whatever can fail is in prepare, and prepare can be undone without a trace. commit.c waits for the moment that the
 * request asks for, and commits. */
#include "internal.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_TRIES 8 /* of an order that libraries overtake by being loaded */

/* ---- which images the payloads are for ----------------------------------------------------------- */

struct match {
  struct hr_transaction *t;
  const struct hr_elf *elf; /* null: a revert */
  struct hr_keep *keep;
  const uint8_t *build_id; /* zero-padded */
  uint32_t build_id_size;  /* of a revert: without zeros at its end, which may be its own */
  unsigned found;
  bool other_abi, too_many;
};

static bool take_match(const struct hr_loaded *loaded, void *context) {
  struct match *match = context;
  struct hr_transaction *t = match->t;
  struct hr_candidate *c = &t->candidates[t->n_candidates];

  if ((match->elf && loaded->build_id_size != match->build_id_size) ||
      memcmp(loaded->build_id, match->build_id, HR_BUILD_ID_MAX))
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

static void build_id_text(const struct match *match, char *text) {
  static const char digits[] = "0123456789abcdef";
  uint32_t i;

  for (i = 0; i < match->build_id_size; i++) {
    *text++ = digits[match->build_id[i] >> 4];
    *text++ = digits[match->build_id[i] & 15];
  }
  *text = 0;
}

/* A program can't be loaded later. What was kept before can be taken back. */
static bool may_wait(const struct match *match) {
  if (!match->elf)
    return match->keep->chain->generation;
  return match->t->order->request->flags & HR_FOR_LATER && !match->elf->absolute;
}

static bool find_images(struct match match) {
  struct hr_transaction *t = match.t;
  char build_id[2 * HR_BUILD_ID_MAX + 1];
  unsigned i;

  build_id_text(&match, build_id);
  match.keep = hr_late_begin(t, match.build_id, match.build_id_size);
  if (!match.keep)
    return false;
  match.keep->elf = match.elf;
  for (i = 0; i + 1 < t->n_keeps; i++)
    if (t->keeps[i].chain == match.keep->chain)
      return hr_refuse(t->error, HR_BAD_REQUEST, "two payloads for the image with build-id %s", build_id);
  hr_each_image(take_match, &match);
  if (match.other_abi)
    return hr_refuse(t->error, HR_ABI_MISMATCH,
                     "the image with build-id %s carries another version of the runtime than the one that serves "
                     "this process; build all images with one version", build_id);
  if (match.too_many)
    return hr_refuse(t->error, HR_UNSUPPORTED, "more than %d images to patch at once", HR_MAX_CANDIDATES);
  match.keep->waiting = !match.found && may_wait(&match);
  return match.found || match.keep->waiting || hr_refuse(t->error, HR_WRONG_IMAGE, "build-id %s", build_id);
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
  if (header->generation == image->generation + 1 && !memcmp(header->parent, image->id, HR_ID_SIZE)) {
    for (record = image->reverted; record && !c->record; record = record->older)
      if (!memcmp(record->id, header->id, HR_ID_SIZE))
        c->record = record; /* mapped, relocated and with the state it had */
    c->mapped_before = c->record && c->record->n_segments;
    c->comes_back = c->record && !c->mapped_before;
    if (c->comes_back)
      c->kept_header = c->record->header;
    return true;
  }
  return hr_refuse(error, HR_OUT_OF_ORDER,
                   "the payload is generation %" PRIu64 ", the image is at generation %" PRIu64 "%s",
                   header->generation, image->generation,
                   header->generation == image->generation + 1 ? " with another history" : "");
}

/* ---- prepare, undo --------------------------------------------------------------------------------- */

static bool is_superseded_code(const struct hr_image *image, struct hr_range pages) {
  const struct hr_record *record;

  for (record = image->records; record; record = record->older)
    if (pages.start < record->pages.end && record->pages.start < pages.end)
      return hr_is_superseded(record);
  for (record = image->reverted; record; record = record->older)
    if (pages.start < record->pages.end && record->pages.start < pages.end)
      return hr_is_superseded(record);
  return false;
}

/* Addresses of code that nobody runs any more are used again. Whether that is so shows a look at all threads: not by a
 * thread that loads a library, nor while a guard may go back to that code. */
static bool make_room(struct hr_candidate *c, const struct hr_transaction *t) {
  struct hr_range wanted = hr_elf_pages(c->elf, c->loaded.bias);
  uint64_t deadline = t->order ? hr_deadline_of(t) : 0;
  int pause_ms = 1;

  while (t->order && is_superseded_code(c->loaded.image, wanted)) {
    if (hr_guard_is_on())
      return hr_refuse(t->error, HR_BUSY, "the patch before is on probation; ask again when its guard is over");
    hr_reclaim(c, &wanted);
    if (!is_superseded_code(c->loaded.image, wanted))
      break;
    if (hr_now_ns() >= deadline)
      return hr_refuse(t->error, HR_DEADLINE,
                       "the payload is for the addresses 0x%" PRIxPTR "..0x%" PRIxPTR ", where older code lies that a "
                       "thread is in or that the program's memory holds an address of",
                       wanted.start - c->loaded.bias, wanted.end - c->loaded.bias);
    if (!hr_pause_between(t, pause_ms))
      return false;
    pause_ms = pause_ms < 64 ? 2 * pause_ms : pause_ms;
  }
  return true;
}

static bool map_payload(struct hr_candidate *c, struct hr_error *error) {
  return c->mapped_before || (hr_payload_map(c, error) && hr_payload_relocate(c, error) && hr_payload_seal(c, error) &&
                              hr_payload_register_unwind(c, error));
}

/* A guard opens and closes these pages when it takes something back. It was ended, but for a dry run, and an image
 * that is being loaded is in none. */
static bool open_pages(struct hr_candidate *c, struct hr_error *error) {
  if (hr_guard_is_on() && __atomic_load_n(&c->loaded.image->ready, __ATOMIC_ACQUIRE))
    return hr_refuse(error, HR_BUSY, "the patch before is on probation; ask again when its guard is over");
  return hr_open_pages(c, error);
}

static bool prepare_candidate(struct hr_candidate *c, const struct hr_transaction *t) {
  struct hr_error *error = t->error;

  if (!hold_image(c, error) || !check_order(c, error))
    return false;
  return c->already || ((c->mapped_before || make_room(c, t)) && map_payload(c, error) && hr_plan_apply(c, error) &&
                        hr_heads_prepare(c, error) && open_pages(c, error));
}

static bool prepare_all(struct hr_transaction *t) {
  const struct hr_request *request = t->order->request;
  uint32_t i;

  if (!request->n_payloads)
    return hr_refuse(t->error, HR_BAD_REQUEST, "no payload came with the request");
  for (i = 0; i < request->n_payloads; i++) {
    const struct hr_payload *header = &t->elfs[i].header;

    if (!hr_elf_read(&t->elfs[i], t->order->files[i], t->error) ||
        !find_images((struct match){.t = t, .elf = &t->elfs[i], .build_id = header->build_id,
                                    .build_id_size = header->build_id_size}))
      return false;
  }
  for (i = 0; i < t->n_candidates; i++)
    if (!prepare_candidate(&t->candidates[i], t)) {
      t->overtaken = t->error->code == HR_WRONG_IMAGE;
      return false;
    }
  for (i = 0; i < t->n_keeps; i++)
    if (!hr_late_keep(t, &t->keeps[i]))
      return false;
  return true;
}

/* Pages are opened here to find out whether they can be; hr_commit() closes and opens them as it waits. */
static bool prepare_revert_of(struct hr_candidate *c, uint64_t generation, struct hr_error *error) {
  const struct hr_image *image = c->loaded.image;
  struct hr_record *record = image->records;

  c->revert = true;
  c->record = record;
  if (generation > image->generation)
    return hr_refuse(error, HR_OUT_OF_ORDER, "the image is at generation %" PRIu64 ", before generation %" PRIu64,
                     image->generation, generation);
  while (record && record->generation > generation)
    record = record->older;
  c->down_to = record;
  c->already = generation == image->generation;
  return c->already || (hr_plan_revert(c, error) && open_pages(c, error));
}

/* The generation of the candidate's image that this payload brought, if its pages were given back; else null. */
static struct hr_record *given_back(const struct hr_candidate *c, const struct hr_payload *header) {
  struct hr_record *record = c->loaded.image->records;

  if (header->build_id_size != c->loaded.build_id_size ||
      memcmp(header->build_id, c->loaded.build_id, header->build_id_size))
    return NULL;
  while (record && memcmp(record->id, header->id, HR_ID_SIZE))
    record = record->older;
  return record && !record->n_segments ? record : NULL;
}

/* Maps what came with the request and had been given back. Nobody can reach it before the slots lead there. */
static bool restore_code(struct hr_transaction *t, const struct hr_candidate *c) {
  uint32_t i;

  for (i = 0; i < t->order->request->n_payloads; i++) {
    struct hr_candidate *restored = &t->restored[t->n_restored];
    struct hr_record *record = given_back(c, &t->elfs[i].header);

    if (!record)
      continue;
    if (t->n_restored == HR_MAX_CANDIDATES)
      return hr_refuse(t->error, HR_UNSUPPORTED, "more than %d payloads to map at once", HR_MAX_CANDIDATES);
    t->n_restored++;
    *restored = (struct hr_candidate){.elf = &t->elfs[i], .loaded = c->loaded, .handle = c->handle,
                                      .program = c->program, .record = record, .comes_back = true,
                                      .kept_header = record->header};
    if (!make_room(restored, t) || !map_payload(restored, t->error))
      return false;
  }
  return true;
}

static bool prepare_revert(struct hr_transaction *t) {
  const struct hr_request *request = t->order->request;
  struct match match = {.t = t, .build_id = request->build_id, .build_id_size = HR_BUILD_ID_MAX};
  uint32_t i;

  while (match.build_id_size && !request->build_id[match.build_id_size - 1])
    match.build_id_size--;
  if (!match.build_id_size || !find_images(match))
    return hr_refuse(t->error, HR_WRONG_IMAGE, "the request names no image by its build-id");
  for (i = 0; i < request->n_payloads; i++)
    if (!hr_elf_read(&t->elfs[i], t->order->files[i], t->error))
      return false;
  for (i = 0; i < t->n_candidates; i++)
    if (!hold_image(&t->candidates[i], t->error) || !restore_code(t, &t->candidates[i]) ||
        !prepare_revert_of(&t->candidates[i], request->generation, t->error))
      return false;
  return hr_late_revert(t, &t->keeps[0], request->generation);
}

/* What is mapped needs no descriptor. */
static bool prepare(struct hr_transaction *t) {
  bool done = t->order->request->op == HR_OP_REVERT ? prepare_revert(t) : prepare_all(t);
  unsigned i;

  for (i = 0; i < HR_MAX_PAYLOADS; i++)
    hr_elf_close(&t->elfs[i]);
  return done;
}

static void undo_candidate(struct hr_candidate *c) {
  struct hr_record *record = c->record;

  hr_close_pages(c);
  if (c->constructed) {
    hr_abandon(c);
    return;
  }
  if (!record || c->already || c->revert || c->mapped_before)
    return;
  if (!c->comes_back && record->applied)
    hr_store_give(record->applied, record->header->n_updates);
  hr_record_unmap(record);
  if (c->comes_back)
    record->header = c->kept_header;
  else
    hr_store_give(record, sizeof *record);
  c->record = NULL;
}

/* Leaves the process as it was before prepare, however far prepare came. */
static void undo(struct hr_transaction *t) {
  unsigned i;

  for (i = t->n_candidates; i-- > 0;)
    undo_candidate(&t->candidates[i]);
  for (i = t->n_restored; i-- > 0;)
    undo_candidate(&t->restored[i]);
}

/* ---- report ------------------------------------------------------------------------------------------ */

static bool all_already(const struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already)
      return false;
  for (i = 0; i < t->n_keeps; i++)
    if (t->keeps[i].changes)
      return false;
  return true;
}

static void report(struct hr_transaction *t, struct hr_text *text, struct hr_outcome *outcome) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    t->candidates[i].functions_live = hr_count_live(&t->candidates[i]);
  outcome->candidates = t->candidates;
  outcome->n_candidates = t->n_candidates;
  outcome->keeps = t->keeps;
  outcome->n_keeps = t->n_keeps;
  hr_report_apply(text, outcome);
}

/* The tables are in the payload's pages again. */
static void drop_kept_header(struct hr_candidate *c) {
  if (!c->comes_back)
    return;
  hr_store_give((void *)c->kept_header, c->record->header_size);
  c->record->header_size = 0;
}

/* After the commit. In the modes that stop no thread nothing is looked for; nor after a revert, which may be one of
 * several to get to a generation; nor while a guard is on. */
static void reclaim(struct hr_transaction *t) {
  const struct hr_request *request = t->order->request;
  unsigned i;

  for (i = 0; i < t->n_candidates; i++) {
    hr_plan_free(&t->candidates[i]);
    drop_kept_header(&t->candidates[i]);
  }
  for (i = 0; i < t->n_restored; i++)
    drop_kept_header(&t->restored[i]);
  if (request->op != HR_OP_APPLY || request->when != HR_WHEN_QUIESCENT || hr_guard_is_on())
    return;
  for (i = 0; i < t->n_candidates; i++)
    hr_reclaim(&t->candidates[i], NULL);
}

static struct hr_transaction *current; /* an order that is served, or that was when this process was forked */
static bool is_inherited;

static void release(struct hr_transaction *t) {
  unsigned i;

  if (t == current)
    current = NULL;
  for (i = 0; i < t->n_candidates; i++) {
    hr_plan_free(&t->candidates[i]);
    hr_heads_free(&t->candidates[i]);
    if (t->candidates[i].handle)
      dlclose(t->candidates[i].handle);
  }
  hr_ballot_close(t->ballot);
  hr_late_free(t);
  munmap(t, sizeof *t);
}

/* The parent's order is none of ours: its pages are closed at once, what it mapped goes with the first request.
 * Context: the child of a fork, which may come from any thread. System calls alone. */
void hr_order_forked(void) {
  unsigned i;

  hr_threads_forked();
  hr_stacks_forked();
  is_inherited = current != NULL;
  if (!current)
    return;
  current->ballot = NULL; /* not mapped here */
  for (i = 0; i < current->n_candidates; i++)
    hr_close_pages(&current->candidates[i]);
}

/* Context: the agent. */
void hr_order_undo_inherited(void) {
  if (!is_inherited)
    return;
  is_inherited = false;
  if (!current->committed)
    undo(current);
  release(current);
}

/* A guard must not take back what is about to be built upon. */
static bool end_guard(struct hr_error *error) {
  return hr_guard_end() || hr_refuse(error, HR_BUSY, "the patch before is being taken back after a crash");
}

static bool begin(struct hr_transaction *t) {
  if (t->order->ballot >= 0 && !(t->ballot = hr_ballot_open(t->order->ballot, t->error)))
    return false;
  return prepare(t);
}

/* Nothing changes here. Where others are asked too, they need this one's word. */
static bool attend(struct hr_transaction *t) {
  struct hr_error unused = {.code = HR_OK}, *error = t->error;

  t->error = &unused;
  t->deadline_ns = hr_deadline_of(t);
  if (t->ballot && !(t->order->request->flags & HR_DRY_RUN) && hr_ballot_prepared(t))
    hr_ballot_agree(t);
  t->error = error;
  return hr_client_waits(t);
}

static bool arm(struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!hr_heads_arm(&t->candidates[i], t->error))
      return false;
  return true;
}

static enum hr_code run(struct hr_transaction *t, struct hr_text *text, int *generations) {
  struct hr_outcome outcome = {.order = t->order, .protections_restored = true};
  bool dry_run = t->order->request->flags & HR_DRY_RUN;
  bool done = (dry_run || end_guard(t->error)) && begin(t);

  if (done)
    done = dry_run || all_already(t) ? attend(t) : arm(t) && hr_commit(t, &outcome, generations);
  if (!done && t->ballot)
    hr_ballot_abandon(t->ballot);
  if (done)
    report(t, text, &outcome);
  else
    hr_report_error(text, t->error);
  if (!done || dry_run)
    undo(t);
  else
    reclaim(t);
  return !done ? t->error->code : all_already(t) ? HR_ALREADY : HR_OK;
}

/* Whoever loads a library holds the loader's lock until it is there. */
static void wait_for_loader(void) {
  void *program = dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD);

  if (program)
    dlclose(program);
}

static struct hr_transaction *new_transaction(void) {
  return hr_fault(HR_STEP_TRANSACTION) ? NULL : hr_memory(sizeof(struct hr_transaction));
}

/* Does the order, all of it or nothing, and writes the answer. *generations: how many changed. It is done anew for a
 * library that was loaded or unloaded while it was prepared. */
enum hr_code hr_apply(const struct hr_order *order, struct hr_text *text, int *generations) {
  enum hr_code code = HR_BUSY;
  bool again = true;
  int tries;

  *generations = 0;
  hr_close_left_open();
  for (tries = 0; again && tries < MAX_TRIES; tries++) {
    struct hr_error error = {.code = HR_OK};
    struct hr_transaction *t = new_transaction();

    if (!t) {
      hr_refuse(&error, HR_NO_MEMORY, "no memory to plan the commit");
      hr_report_error(text, &error);
      return error.code;
    }
    t->order = order;
    t->error = &error;
    current = t;
    code = run(t, text, generations);
    again = t->overtaken && order->ballot < 0; /* others were told that this one can't */
    release(t);
    if (again)
      wait_for_loader();
  }
  return code;
}

/* What initialises new objects may use those of the library's own, which are made only when its constructors have
 * run. */
static bool brings_none(const struct hr_payload *header, struct hr_error *error) {
  return !header->n_init_array || hr_refuse(error, HR_UNSUPPORTED, "it brings objects that code initialises, and the "
                                                                   "library's own are not made yet");
}

/* One payload for one image, which is not `ready` yet, so that no order concerns it. Called by the thread that loads
 * it. */
bool hr_apply_alone(const struct hr_loaded *loaded, int file, struct hr_error *error) {
  struct hr_transaction *t = new_transaction();
  struct hr_candidate *c = t ? &t->candidates[0] : NULL;
  bool done;

  if (!t)
    return hr_refuse(error, HR_NO_MEMORY, "no memory to plan the commit");
  t->error = error;
  t->n_candidates = 1;
  c->elf = &t->elfs[0];
  c->loaded = *loaded;
  strncpy(c->name, loaded->name, sizeof c->name - 1);
  done = hr_elf_read(&t->elfs[0], file, error) && brings_none(&t->elfs[0].header, error) && prepare_candidate(c, t);
  hr_elf_close(&t->elfs[0]);
  done = done && arm(t);
  if (done)
    hr_commit_alone(t);
  else
    undo(t);
  release(t);
  return done;
}
