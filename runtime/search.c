/* Which of some ranges of code the program's memory has addresses of.
 *
 * What a stack check cannot see are stacks that no thread is on: coroutines that are switched out, contexts that were
 * saved somewhere. They lie in the program's private writable memory, whatever allocated it, and each holds addresses
 * of the code it will go on in. So all of that memory is read, through /proc/self/mem: it may be unmapped meanwhile,
 * which then is an error and no fault. The program runs meanwhile. */
#include "internal.h"

#include <fcntl.h>
#include <unistd.h>

#define PIECE (64u << 10)
#define LARGEST (1ull << 40) /* bytes: larger ranges are address space that sanitizers and the like reserve */
#define MAX_EXCLUDED 8

static uintptr_t piece[PIECE / sizeof(uintptr_t)];

struct search {
  struct hr_suspect *suspects; /* sorted by their code, apart from each other */
  size_t n;
  int memory;                  /* descriptor of /proc/self/mem */
  struct hr_range excluded[MAX_EXCLUDED]; /* what belongs to the runtime */
  uint64_t deadline_ns;
  bool late;
};

static void look_at_word(const struct search *s, uintptr_t word) {
  size_t low = 0, high = s->n;

  while (low < high) {
    size_t middle = (low + high) / 2;

    if (s->suspects[middle].code.end < word)
      low = middle + 1;
    else
      high = middle;
  }
  /* The first byte of the unwind table's first function stands in libgcc's list of tables. */
  for (; low < s->n && s->suspects[low].code.start <= word; low++)
    if (word != s->suspects[low].begin)
      s->suspects[low].needed = true;
}

/* A page that cannot be read was unmapped meanwhile. */
static void look_at_piece(struct search *s, uintptr_t at, size_t size) {
  uintptr_t low = s->suspects[0].code.start, span = s->suspects[s->n - 1].code.end - low;
  size_t done = 0, i;

  while (done < size) {
    ssize_t got = pread(s->memory, piece, size - done, (off_t)(at + done));

    for (i = 0; got > 0 && i < (size_t)got / sizeof *piece; i++)
      if (piece[i] - low <= span)
        look_at_word(s, piece[i]);
    done += got >= (ssize_t)HR_PAGE ? (size_t)got / HR_PAGE * HR_PAGE : HR_PAGE;
  }
}

static void look_at_range(struct search *s, struct hr_range range) {
  uintptr_t at = range.start, until;

  while (at < range.end && !s->late) {
    bool present = hr_pages_in_memory(at, range.end, &until);

    for (; present && at < until; at += until - at < PIECE ? until - at : PIECE)
      look_at_piece(s, at, until - at < PIECE ? until - at : PIECE);
    at = until;
    s->late = hr_now_ns() > s->deadline_ns;
  }
}

/* The range without what is excluded. */
static void look_around(struct search *s, struct hr_range range) {
  unsigned i;

  for (i = 0; i < MAX_EXCLUDED; i++) {
    struct hr_range out = s->excluded[i];

    if (out.start >= out.end || out.end <= range.start || out.start >= range.end)
      continue;
    if (out.start > range.start)
      look_around(s, (struct hr_range){range.start, out.start});
    if (out.end < range.end)
      look_around(s, (struct hr_range){out.end, range.end});
    return;
  }
  look_at_range(s, range);
}

/* The frames of this call: the agent's thread, or above a poller's frame what it called. */
static struct hr_range own_frames(void) {
  uintptr_t here = (uintptr_t)__builtin_frame_address(0);
  const struct hr_map *map = hr_map_of(here);
  const struct hr_view *poller = hr_poller();

  if (poller)
    return (struct hr_range){here, poller->registers.r[HR_REGISTER_SP]};
  return (struct hr_range){map ? map->at.start : here, (uintptr_t)__builtin_thread_pointer()};
}

/* Marks those suspects as needed that the memory has addresses of. False: the memory can't be read, or not in time.
 * hr_stacks_prepare() was called before. */
bool hr_search(struct hr_suspect *suspects, size_t n, uint64_t deadline_ns) {
  struct search s = {.suspects = suspects, .n = n, .deadline_ns = deadline_ns};
  const struct hr_maps *maps = hr_maps();
  size_t i;

  if (!n)
    return true;
  s.memory = hr_fault(HR_STEP_SEARCH) ? -1 : open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  if (s.memory < 0)
    return false;
  s.excluded[0] = own_frames();
  s.excluded[1] = hr_store_range();
  s.excluded[2] = (struct hr_range){(uintptr_t)maps->map, (uintptr_t)(maps->map + maps->capacity)};
  s.excluded[3] = (struct hr_range){(uintptr_t)piece, (uintptr_t)piece + sizeof piece};
  s.excluded[4] = (struct hr_range){(uintptr_t)suspects, (uintptr_t)(suspects + n)};
  s.excluded[5] = hr_gates_range();
  s.excluded[6] = hr_sleepers_range();
  s.excluded[7] = hr_single_range();
  for (i = 0; i < maps->n && !s.late; i++)
    if (maps->map[i].variable && maps->map[i].at.end - maps->map[i].at.start < LARGEST)
      look_around(&s, maps->map[i].at);
  close(s.memory);
  return !s.late;
}
