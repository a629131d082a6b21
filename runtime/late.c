/* Libraries that are loaded after a patch, again or for the first time: they take the generations they missed.
 *
 * For each build of a library there is a chain: the payload files that the process accepted for it, by their names,
 * with a digest of their bytes. Transactions change chains in their commit, together with the images that are loaded.
 * The constructor of an image that arrives applies its chain before the image counts as `ready`, in the thread that
 * loads it, while no other can be in its code. The commit lock guards chains and that mark, so that a patch and a
 * library that arrives meanwhile never miss each other. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER (64u << 10)

static struct hr_chain *chains;

/* A handler that forks must not find the lock held by the thread it runs on. */
static void lock(sigset_t *before) {
  sigset_t all;

  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, before);
  hr_commit_lock();
}

static void unlock(const sigset_t *before) {
  hr_commit_unlock();
  pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* ---- chains ------------------------------------------------------------------------------------------- */

static struct hr_chain *find(const uint8_t *build_id) {
  struct hr_chain *chain = chains;

  while (chain && memcmp(chain->build_id, build_id, HR_BUILD_ID_MAX))
    chain = chain->next;
  return chain;
}

void hr_late_each(void (*visit)(const struct hr_chain *chain, void *context), void *context) {
  const struct hr_chain *chain;
  sigset_t before;

  lock(&before);
  for (chain = chains; chain; chain = chain->next)
    visit(chain, context);
  unlock(&before);
}

const struct hr_chain *hr_late_chain(const uint8_t *build_id) { return find(build_id); }

/* An empty chain is no trace: it stays when the transaction that made it fails. */
static struct hr_chain *find_or_make(const uint8_t *build_id) {
  struct hr_chain *chain = find(build_id);

  if (chain || hr_fault(HR_STEP_KEEP) || !(chain = hr_memory(sizeof *chain)))
    return chain;
  memcpy(chain->build_id, build_id, HR_BUILD_ID_MAX);
  chain->next = chains;
  chains = chain;
  return chain;
}

static const struct hr_kept *entry_at(const struct hr_chain *chain, size_t at) {
  return (const struct hr_kept *)(chain->entries + at);
}

/* Where the entry of `generation` begins; the end for the one after the last. */
static size_t offset_of(const struct hr_chain *chain, uint64_t generation) {
  size_t at = 0;

  while (--generation && at < chain->size)
    at += entry_at(chain, at)->bytes;
  return at;
}

/* The generation that has this id, or 0. */
static uint64_t generation_of(const struct hr_chain *chain, const uint8_t *id) {
  uint64_t generation = 1;
  size_t at;

  for (at = 0; at < chain->size; at += entry_at(chain, at)->bytes, generation++)
    if (!memcmp(entry_at(chain, at)->id, id, HR_ID_SIZE))
      return generation;
  return 0;
}

static bool follows(const struct hr_chain *chain, const struct hr_payload *header) {
  static const uint8_t zeros[HR_ID_SIZE];
  const uint8_t *last = zeros;

  if (header->generation != chain->generation + 1)
    return false;
  if (chain->generation)
    last = entry_at(chain, offset_of(chain, chain->generation))->id;
  return !memcmp(header->parent, last, HR_ID_SIZE);
}

/* ---- files -------------------------------------------------------------------------------------------- */

/* FNV-1a over words. Against files that were replaced or damaged, not against those who may debug the process. */
static uint64_t digest_of(const uint8_t *bytes, size_t size, uint64_t digest) {
  uint64_t word = 0;

  for (; size >= 8; bytes += 8, size -= 8) {
    memcpy(&word, bytes, 8);
    digest = (digest ^ word) * 0x100000001b3u;
    digest ^= digest >> 32;
  }
  word = 0;
  memcpy(&word, bytes, size);
  return size ? (digest ^ word) * 0x100000001b3u : digest;
}

/* As many bytes as there are, up to a full buffer; -1: the file can't be read. */
static ssize_t fill(int file, uint8_t *buffer, off_t at) {
  size_t done = 0;
  ssize_t n = 1;

  while (done < BUFFER && n) {
    n = pread(file, buffer + done, BUFFER - done, at + (off_t)done);
    if (n < 0 && errno != EINTR)
      return -1;
    done += n > 0 ? (size_t)n : 0;
  }
  return (ssize_t)done;
}

/* The size of the file and a digest of its bytes. */
static bool digest_file(int file, uint64_t *size, uint64_t *digest) {
  uint8_t *buffer = hr_memory(BUFFER);
  ssize_t n = buffer ? 1 : -1;

  *size = 0;
  *digest = 0xcbf29ce484222325u;
  while (n > 0 && (n = fill(file, buffer, (off_t)*size)) > 0) {
    *digest = digest_of(buffer, (size_t)n, *digest);
    *size += (uint64_t)n;
  }
  hr_memory_free(buffer, BUFFER);
  return n == 0;
}

/* The name by which the file can be opened again, by other threads and later. */
static bool name_of(int file, char path[HR_PATH_MAX]) {
  struct stat here, there;
  char link[48];
  ssize_t n;
  bool same;
  int again;

  snprintf(link, sizeof link, "/proc/thread-self/fd/%d", file);
  n = readlink(link, path, HR_PATH_MAX - 1);
  if (n <= 0 || n == HR_PATH_MAX - 1 || path[0] != '/')
    return false;
  path[n] = 0;
  again = open(path, O_RDONLY | O_CLOEXEC);
  same = again >= 0 && !fstat(file, &here) && !fstat(again, &there) && here.st_dev == there.st_dev &&
         here.st_ino == there.st_ino;
  if (again >= 0)
    close(again);
  return same;
}

/* ---- what a transaction makes of a chain ---------------------------------------------------------------- */

/* Called before it is known which images of this build (zero-padded) are loaded: what arrives from here on is noticed
 * by hr_late_is_current(). Null: refused. */
struct hr_keep *hr_late_begin(struct hr_transaction *t, const uint8_t *build_id, uint32_t size) {
  struct hr_keep *keep = &t->keeps[t->n_keeps];
  sigset_t before;

  lock(&before);
  keep->chain = find_or_make(build_id);
  if (keep->chain)
    keep->arrivals = keep->chain->arrivals;
  if (keep->chain && size > keep->chain->build_id_size)
    keep->chain->build_id_size = size; /* a revert knows it without zeros at its end */
  unlock(&before);
  if (!keep->chain) {
    hr_refuse(t->error, HR_NO_MEMORY, "no memory to note what libraries that are loaded later have to take");
    return NULL;
  }
  keep->generation = keep->chain->generation;
  t->n_keeps++;
  return keep;
}

/* Copies [from, to) of the chain to keep->entries. */
static uint8_t *take_entries(const struct hr_keep *keep, uint8_t *at, size_t from, size_t to) {
  memcpy(at, keep->chain->entries + from, to - from);
  return at + (to - from);
}

/* The chain with `entry` at its generation. What lies behind stays if the generation had been there before. */
static bool rebuild(struct hr_keep *keep, const struct hr_kept *entry, const char *path, uint64_t generation,
                    bool known) {
  const struct hr_chain *chain = keep->chain;
  size_t before = offset_of(chain, generation), after = known ? offset_of(chain, generation + 1) : chain->size;
  uint8_t *at;

  keep->size = before + entry->bytes + (chain->size - after);
  at = keep->entries = hr_memory(keep->size);
  if (!at)
    return false;
  if (before)
    at = take_entries(keep, at, 0, before);
  memcpy(at, entry, sizeof *entry);
  strcpy((char *)at + sizeof *entry, path);
  if (chain->size > after)
    take_entries(keep, at + entry->bytes, after, chain->size);
  keep->generation = known ? chain->generation : generation;
  keep->changes = true;
  return true;
}

static bool is_same(const struct hr_kept *known, const struct hr_kept *entry, const char *path) {
  return known->file_size == entry->file_size && known->digest == entry->digest && !strcmp(known->path, path);
}

static bool keep_file(struct hr_keep *keep, uint64_t generation, struct hr_error *error) {
  const struct hr_chain *chain = keep->chain;
  struct hr_kept entry = {0};
  char path[HR_PATH_MAX] = "";
  bool known = keep->already;

  if (!name_of(keep->elf->file, path))
    path[0] = 0;
  if ((!path[0] || !digest_file(keep->elf->file, &entry.file_size, &entry.digest)) && keep->waiting)
    return hr_refuse(error, HR_UNSUPPORTED, "the image is not loaded, and the payload's file has no name by which it "
                     "can be opened when it is");
  memcpy(entry.id, keep->elf->header.id, HR_ID_SIZE);
  entry.bytes = (sizeof entry + strlen(path) + 8) & ~(uint64_t)7;
  if (known && is_same(entry_at(chain, offset_of(chain, generation)), &entry, path))
    return true;
  if (!hr_fault(HR_STEP_KEEP) && rebuild(keep, &entry, path, generation, known))
    return true;
  return hr_refuse(error, HR_NO_MEMORY, "no memory to note what libraries that are loaded later have to take");
}

/* Plans what keep->chain becomes with the payload keep->elf: also where the library is loaded now, since it may be
 * unloaded and come back. */
bool hr_late_keep(struct hr_transaction *t, struct hr_keep *keep) {
  const struct hr_payload *header = &keep->elf->header;
  const struct hr_chain *chain = keep->chain;
  uint64_t generation = generation_of(chain, header->id);
  unsigned i;

  if (hr_guard_is_on())
    return hr_refuse(t->error, HR_BUSY, "the patch before is on probation; ask again when its guard is over");
  for (i = 0; i < t->n_candidates; i++)
    if (t->candidates[i].elf == keep->elf && t->candidates[i].loaded.is_main)
      return true;
  keep->already = generation;
  if (!generation && keep->waiting && !follows(chain, header))
    return hr_refuse(t->error, HR_OUT_OF_ORDER,
                     "the payload is generation %" PRIu64 "; the image is not loaded, and %" PRIu64
                     " generations are kept for it%s", header->generation, chain->generation,
                     header->generation == chain->generation + 1 ? " with another history" : "");
  if (!generation && header->generation > chain->generation + 1)
    return hr_refuse(t->error, HR_INTERNAL, "generations before %" PRIu64 " are not known", header->generation);
  return keep_file(keep, generation ? generation : header->generation, t->error);
}

/* Plans that the chain ends with `generation`. */
bool hr_late_revert(struct hr_transaction *t, struct hr_keep *keep, uint64_t generation) {
  const struct hr_chain *chain = keep->chain;

  if (keep->waiting && generation > chain->generation)
    return hr_refuse(t->error, HR_OUT_OF_ORDER, "the image is not loaded, and %" PRIu64
                     " generations are kept for it, not %" PRIu64, chain->generation, generation);
  keep->already = generation >= chain->generation;
  if (keep->already)
    return true;
  keep->size = offset_of(chain, generation + 1);
  keep->entries = keep->size && !hr_fault(HR_STEP_KEEP) ? hr_memory(keep->size) : NULL;
  if (keep->size && !keep->entries)
    return hr_refuse(t->error, HR_NO_MEMORY, "no memory to note what libraries that are loaded later have to take");
  if (keep->size)
    take_entries(keep, keep->entries, 0, keep->size);
  keep->generation = generation;
  keep->changes = true;
  return true;
}

/* Plans for `back` what makes chains again what they are, after `t`. */
bool hr_late_invert(struct hr_transaction *back, const struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_keeps; i++) {
    struct hr_keep *keep = &back->keeps[back->n_keeps];
    const struct hr_chain *chain = t->keeps[i].chain;

    if (!t->keeps[i].changes)
      continue;
    *keep = (struct hr_keep){.chain = t->keeps[i].chain, .arrivals = t->keeps[i].arrivals, .size = chain->size,
                             .generation = chain->generation, .changes = true};
    back->n_keeps++;
    keep->entries = chain->size ? hr_memory(chain->size) : NULL;
    if (chain->size && !keep->entries)
      return false;
    if (chain->size)
      take_entries(keep, keep->entries, 0, chain->size);
  }
  return true;
}

/* Whether all images that the transaction concerns are those it was prepared for. Context: the commit lock is held. */
bool hr_late_is_current(struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_keeps && !t->overtaken; i++)
    t->overtaken = t->keeps[i].chain->arriving || t->keeps[i].chain->arrivals != t->keeps[i].arrivals;
  return !t->overtaken || hr_refuse(t->error, HR_BUSY, "a library that it changes was loaded meanwhile");
}

void hr_late_free(struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_keeps; i++)
    if (t->keeps[i].entries)
      hr_memory_free(t->keeps[i].entries, t->keeps[i].size);
}

/* ---- a library arrives ------------------------------------------------------------------------------------ */

struct arrival { /* allocated with mmap: the thread that loads may have a small stack */
  struct hr_loaded loaded;
  struct hr_chain *chain; /* stays as it is until the end of the arrival; null: nothing was missed */
  struct hr_error error;
};

static bool take_loaded(const struct hr_loaded *loaded, void *context) {
  struct arrival *a = context;

  if (loaded->image != a->loaded.image)
    return true;
  a->loaded = *loaded;
  return false;
}

static void begin_arrival(struct arrival *a) {
  sigset_t before;

  lock(&before);
  a->chain = find(a->loaded.build_id);
  if (a->chain)
    a->chain->arriving++;
  unlock(&before);
}

/* From here on the image is one that patches are made for. */
static void end_arrival(struct arrival *a) {
  sigset_t before;

  lock(&before);
  if (a->chain) {
    a->chain->arriving--;
    a->chain->arrivals++;
  }
  __atomic_store_n(&a->loaded.image->ready, 1, __ATOMIC_RELEASE);
  unlock(&before);
}

/* Opens the file of an entry, unchanged as it must be. -1: it is not, and the image says why. */
static int open_kept(struct arrival *a, const struct hr_kept *kept, uint64_t generation) {
  int file = kept->path[0] ? open(kept->path, O_RDONLY | O_CLOEXEC) : -1;
  char *why = a->loaded.image->missed;
  uint64_t size, digest;

  if (file < 0) {
    snprintf(why, HR_MISSED_MAX, "the file of generation %" PRIu64 " can't be opened: %s", generation,
             kept->path[0] ? strerror(errno) : "it had no name");
    return -1;
  }
  if (digest_file(file, &size, &digest) && size == kept->file_size && digest == kept->digest)
    return file;
  close(file);
  snprintf(why, HR_MISSED_MAX, "the file of generation %" PRIu64 " is not as it was when the process was given it",
           generation);
  return -1;
}

/* Nothing is applied if one of the files is not as it was: better as built than something in between. */
static bool all_files_are_there(struct arrival *a) {
  uint64_t generation = 1;
  size_t at;

  for (at = 0; at < a->chain->size; at += entry_at(a->chain, at)->bytes, generation++) {
    int file = open_kept(a, entry_at(a->chain, at), generation);

    if (file < 0)
      return false;
    close(file);
  }
  return true;
}

static bool take_generation(struct arrival *a, const struct hr_kept *kept, uint64_t generation) {
  int file = open_kept(a, kept, generation);
  bool done;

  if (file < 0)
    return false;
  done = hr_apply_alone(&a->loaded, file, &a->error);
  close(file);
  if (!done)
    snprintf(a->loaded.image->missed, HR_MISSED_MAX, "generation %" PRIu64 " could not be applied: %.*s", generation,
             HR_MISSED_MAX - 64, a->error.detail);
  return done;
}

static void catch_up(struct arrival *a) {
  uint64_t generation = 1;
  size_t at;

  if (!all_files_are_there(a))
    return;
  for (at = 0; at < a->chain->size; at += entry_at(a->chain, at)->bytes, generation++)
    if (!take_generation(a, entry_at(a->chain, at), generation))
      return;
}

/* Called by the constructor of `image`, under the loader's lock: no code of the image has run yet, except what its
 * file says must run before constructors of priority 101. */
void hr_late_arrive(struct hr_image *image) {
  struct arrival *a = hr_memory(sizeof *a);
  int cancel;

  if (!a) {
    snprintf(image->missed, HR_MISSED_MAX, "there was no memory for it");
    return;
  }
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  a->loaded.image = image;
  hr_each_image(take_loaded, a);
  begin_arrival(a);
  if (a->chain)
    catch_up(a);
  end_arrival(a);
  pthread_setcancelstate(cancel, NULL);
  hr_memory_free(a, sizeof *a);
}

/* Context: the child of a fork. Whoever was loading a library is not here. */
void hr_late_reset(void) {
  struct hr_chain *chain;

  for (chain = chains; chain; chain = chain->next)
    chain->arriving = 0;
}
