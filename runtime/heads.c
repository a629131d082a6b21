/* Heads: functions that are called at their own entry (HOTRELOAD_STUBS=entry), and how a patch takes hold of them.
 *
 * Behind the entry lie two bytes, an instruction that does nothing; before it a stub, as every other function has one.
 * To arm a head is to make the two bytes a jump to the stub. That alone changes nothing: the slot leads behind the head
 * until the commit. So it is done before, while threads run, and never undone; all the rest is as with stubs.
 *
 * No page of code is ever writable. The pages are copied into a file in memory, changed there, sealed, and mapped over
 * the old ones in one call: a thread that is in there or comes in meanwhile waits for it in its page fault (the kernel
 * holds the address space locked), and finds the same code but for instructions of two bytes at even addresses, which
 * lie in one fetch block and so are never seen by halves. Nobody can stand inside of one. What the process needs of
 * these pages is its own memory from then on. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COPY_NAME "hotreload-heads" /* what /proc/PID/maps shows */

static uint16_t word_at(uintptr_t at) { return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE); }

static const struct hr_redirect *redirect_of(const struct hr_payload *header, const struct hr_head *head) {
  return (const struct hr_redirect *)header->redirects + head->redirect;
}

/* What the head holds when it is armed; 0: there is no head that goes by this slot. */
static uint16_t armed(const struct hr_candidate *c, const struct hr_head *head) {
  if (head->at % 2 || head->redirect >= c->record->header->n_redirects ||
      !hr_is_code_of_image(&c->loaded, head->at - HR_HEAD_BEFORE, HR_HEAD_BEFORE + sizeof(uint16_t)))
    return 0;
  return hr_head_armed((const uint8_t *)head->at, redirect_of(c->record->header, head)->slot);
}

static bool is_armed(const struct hr_candidate *c, const struct hr_head *head) {
  return word_at(head->at) == armed(c, head);
}

/* How many functions' slots lead to the payload's code, but not the functions' heads to the slots. */
uint64_t hr_heads_idle(const struct hr_candidate *c) {
  const struct hr_payload *header = c->record->header;
  const struct hr_head *heads = (const struct hr_head *)header->heads;
  uint64_t i, idle = 0;

  for (i = 0; i < header->n_heads; i++) {
    const struct hr_redirect *redirect = redirect_of(header, &heads[i]);

    idle += hr_slot_holds(redirect->slot) == redirect->new_target && !is_armed(c, &heads[i]);
  }
  return idle;
}

/* ---- which pages ------------------------------------------------------------------------------------- */

static int by_address(const void *a, const void *b) {
  uintptr_t one = *(const uintptr_t *)a, two = *(const uintptr_t *)b;

  return one < two ? -1 : one > two;
}

static bool list_pages(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  const struct hr_head *heads = (const struct hr_head *)header->heads;
  uint64_t i;

  for (i = 0; i < header->n_heads; i++) {
    uint16_t is, will_be = armed(c, &heads[i]);

    if (!will_be || (i && heads[i].redirect <= heads[i - 1].redirect))
      return hr_refuse(error, HR_BAD_PAYLOAD, "there is no head of a function at 0x%" PRIx64,
                       heads[i].at - c->loaded.bias);
    is = word_at(heads[i].at);
    if (is != will_be && is != HR_HEAD_IDLE)
      return hr_refuse(error, HR_UNEXPECTED_SLOT,
                       "the code at 0x%" PRIx64 " was changed by something else: a breakpoint, perhaps",
                       heads[i].at - c->loaded.bias);
    if (is != will_be)
      c->pages[c->n_pages++] = hr_page_down(heads[i].at);
  }
  qsort(c->pages, c->n_pages, sizeof *c->pages, by_address);
  for (i = 0; i < c->n_pages; i++)
    if (i + 1 == c->n_pages || c->pages[i] != c->pages[i + 1])
      c->pages[c->n_distinct++] = c->pages[i];
  return true;
}

/* ---- whether somebody else wrote to them ---------------------------------------------------------------- */

/* Whether the page is one of a file still. If not, somebody wrote to it: a tracer a breakpoint, the kernel that of a
 * uprobe, which would be lost to its owner in a copy, so that whoever meets it dies of it. (/proc/self/pagemap: bit 63
 * in memory, 62 swapped, 61 of a file.) */
static bool is_of_file(int pagemap, uintptr_t page) {
  uint64_t word;

  if (pread(pagemap, &word, sizeof word, (off_t)(page / HR_PAGE * sizeof word)) != sizeof word)
    return false;
  return !(word >> 62 & 1) && (!(word >> 63) || word >> 61 & 1);
}

/* But for heads that are armed. */
static bool is_same_code(const uint16_t *live, const uint16_t *file) {
  size_t i;

  for (i = 0; i < HR_PAGE / sizeof *live; i++)
    if (live[i] != file[i] && !(file[i] == HR_HEAD_IDLE && hr_is_head_jump(live[i])))
      return false;
  return true;
}

/* Where the bytes of a page lie in the image's file; -1: nowhere. */
static off_t place_in_file(const struct hr_loaded *loaded, uintptr_t page) {
  unsigned i;

  for (i = 0; i < loaded->n_headers; i++) {
    const Elf64_Phdr *load = &loaded->headers[i];
    uintptr_t start = loaded->bias + load->p_vaddr;

    if (load->p_type == PT_LOAD && load->p_flags & PF_X && page >= hr_page_down(start) &&
        page < start + load->p_filesz)
      return (off_t)(load->p_offset + page - start);
  }
  return -1;
}

/* Nobody's breakpoint is in there any more, or never was: a page that was written to is never one of the file again. */
static bool is_as_in_file(const struct hr_candidate *c, int file, uintptr_t page) {
  uint16_t content[HR_PAGE / sizeof(uint16_t)] = {0};
  off_t place = place_in_file(&c->loaded, page);

  return place >= 0 && pread(file, content, sizeof content, place) > 0 && is_same_code((const uint16_t *)page, content);
}

static bool is_untouched(const struct hr_candidate *c, int pagemap, int file, uintptr_t page, struct hr_error *error) {
  if (is_of_file(pagemap, page) || (file >= 0 && is_as_in_file(c, file, page)))
    return true;
  if (file < 0)
    return hr_refuse(error, HR_UNSUPPORTED,
                     "it can't be told whether a breakpoint or a probe is in the code that a patch copies here: this "
                     "process sees neither /proc/self/pagemap nor its file; build with HOTRELOAD_STUBS=plt");
  return hr_refuse(error, HR_UNEXPECTED_SLOT,
                   "the code in the page at 0x%" PRIxPTR " was changed by something else; take away breakpoints and "
                   "probes, or build with HOTRELOAD_STUBS=plt, which leaves code as it is", page - c->loaded.bias);
}

static bool are_untouched(const struct hr_candidate *c, struct hr_error *error) {
  int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  int file = open(c->loaded.is_main ? "/proc/self/exe" : c->name, O_RDONLY | O_CLOEXEC);
  size_t i;

  for (i = 0; i < c->n_distinct && is_untouched(c, pagemap, file, c->pages[i], error); i++)
    ;
  if (pagemap >= 0)
    close(pagemap);
  if (file >= 0)
    close(file);
  return i == c->n_distinct;
}

/* ---- the copy ------------------------------------------------------------------------------------------ */

static size_t place_of(const struct hr_candidate *c, uintptr_t page) {
  size_t low = 0, high = c->n_distinct;

  while (low < high) {
    size_t middle = (low + high) / 2;

    if (c->pages[middle] < page)
      low = middle + 1;
    else
      high = middle;
  }
  return low * HR_PAGE;
}

static bool fill(const struct hr_candidate *c) {
  const struct hr_payload *header = c->record->header;
  const struct hr_head *heads = (const struct hr_head *)header->heads;
  uint64_t i;

  for (i = 0; i < c->n_distinct; i++)
    if (!hr_write_at(c->copy, (const void *)c->pages[i], HR_PAGE, i * HR_PAGE))
      return false;
  for (i = 0; i < header->n_heads; i++) {
    uint16_t jump = armed(c, &heads[i]);

    if (word_at(heads[i].at) != jump &&
        !hr_write_at(c->copy, &jump, sizeof jump, place_of(c, hr_page_down(heads[i].at)) + heads[i].at % HR_PAGE))
      return false;
  }
  return true;
}

static bool make_copy(struct hr_candidate *c, struct hr_error *error) {
  c->copy = hr_memory_file(COPY_NAME);
  if (c->copy >= 0 && !hr_fault(HR_STEP_HEADS) && fill(c) && hr_seal(c->copy))
    return true;
  return hr_refuse(error, HR_NO_MEMORY, "no memory for a copy of %zu pages of code: %s", c->n_distinct,
                   strerror(errno));
}

/* Whether code may be mapped from the copy at all, found out where nothing is at stake. */
static bool try_copy(const struct hr_candidate *c, struct hr_error *error) {
  size_t size = c->n_distinct * HR_PAGE;
  void *at = hr_fault(HR_STEP_HEADS_MAP) ? MAP_FAILED
                                         : mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, c->copy, 0);

  if (at == MAP_FAILED)
    return hr_refuse(error, HR_UNSUPPORTED,
                     "this process may not map the copy of its code that a patch needs here: %s; build with "
                     "HOTRELOAD_STUBS=plt, which leaves code as it is", strerror(errno));
  munmap(at, size);
  return true;
}

/* Makes a copy of the pages that need one. Nothing of the process changes. */
bool hr_heads_prepare(struct hr_candidate *c, struct hr_error *error) {
  uint64_t n = c->record->header->n_heads;

  if (!n)
    return true;
  c->copy = -1;
  c->pages = hr_memory(n * sizeof *c->pages);
  c->max_pages = n;
  if (!c->pages)
    return hr_refuse(error, HR_NO_MEMORY, "no memory for a list of pages");
  return list_pages(c, error) &&
         (!c->n_distinct || (are_untouched(c, error) && make_copy(c, error) && try_copy(c, error)));
}

void hr_heads_free(struct hr_candidate *c) {
  if (!c->pages)
    return;
  hr_memory_free(c->pages, c->max_pages * sizeof *c->pages);
  if (c->copy >= 0)
    close(c->copy);
  c->pages = NULL;
  c->n_pages = c->n_distinct = 0;
}

/* Maps the copy over the pages. Where that fails some heads may be armed, which changes nothing. */
bool hr_heads_arm(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  const struct hr_head *heads = (const struct hr_head *)header->heads;
  size_t i, run;
  bool all = true;

  if (c->already || c->revert)
    return true;
  for (i = 0; i < c->n_distinct; i += run) {
    for (run = 1; i + run < c->n_distinct && c->pages[i + run] == c->pages[i] + run * HR_PAGE; run++)
      ;
    if (mmap((void *)c->pages[i], run * HR_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, c->copy,
             (off_t)(i * HR_PAGE)) == MAP_FAILED)
      return hr_refuse(error, HR_NO_MEMORY, "the copy of the code at 0x%" PRIxPTR " can't be mapped over it: %s",
                       c->pages[i] - c->loaded.bias, strerror(errno));
  }
  for (i = 0; i < header->n_heads; i++)
    all &= is_armed(c, &heads[i]);
  return all || hr_refuse(error, HR_INTERNAL, "a function's head is not what it was made");
}
