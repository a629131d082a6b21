/* Whether a halted thread is in code that is about to change.
 *
 * First tier: every word of its stacks and registers is compared with the old code's addresses. That needs no unwind
 * tables and misses no return address; but stale words hit as well. Second tier, only where the first one hits: the
 * thread is unwound exactly (unwind.c), and a trace that reaches the thread's entry overrules the scan. */
#include "internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SPARSE (256u << 10)        /* larger ranges are read only where pages are in memory */
#define CHUNK_PAGES 512            /* of one look into pagemap */
#define SPARE_MAPS 512             /* mappings that may be made while threads are being stopped */
#define TEXT (64u << 10)

static struct hr_maps maps;
static char text[TEXT];
static uint64_t pages[CHUNK_PAGES];
static int pagemap = -1;

/* ---- where memory is mapped --------------------------------------------------------------------------- */

static const char *take_hex(const char *at, uintptr_t *value) {
  *value = 0;
  for (;; at++) {
    if (*at >= '0' && *at <= '9')
      *value = *value << 4 | (uintptr_t)(*at - '0');
    else if (*at >= 'a' && *at <= 'f')
      *value = *value << 4 | (uintptr_t)(*at - 'a' + 10);
    else
      return at;
  }
}

/* One line of /proc/self/maps (proc(5)). */
static void take_line(const char *line) {
  struct hr_map map = {0};
  const char *at = take_hex(line, &map.at.start);

  if (*at != '-')
    return;
  at = take_hex(at + 1, &map.at.end);
  map.readable = at[0] == ' ' && at[1] == 'r';
  map.executable = map.readable && at[2] && at[3] == 'x';
  map.variable = map.readable && at[2] == 'w' && at[4] == 'p';
  map.is_main_stack = strstr(at, "[stack]") != NULL;
  if (maps.n < maps.capacity)
    maps.map[maps.n] = map;
  maps.n++; /* beyond the capacity: counted, so that the caller sees it */
}

/* False: unreadable, or there are more mappings than there is room for. Context: also while threads are halted. */
static bool read_maps(void) {
  int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  size_t kept = 0;
  ssize_t n = -1;

  maps.n = 0;
  while (file >= 0 && (n = read(file, text + kept, sizeof text - 1 - kept)) > 0) {
    char *line = text, *end;

    kept += (size_t)n;
    text[kept] = 0;
    while ((end = strchr(line, '\n'))) {
      *end = 0;
      take_line(line);
      line = end + 1;
    }
    kept -= (size_t)(line - text);
    memmove(text, line, kept);
  }
  if (file >= 0)
    close(file);
  return n == 0 && maps.n <= maps.capacity;
}

/* Context: the child of a fork; see hr_threads_forked(). */
void hr_stacks_forked(void) { pagemap = -1; }

void hr_stacks_finish(void) {
  if (pagemap >= 0)
    close(pagemap);
  pagemap = -1;
}

/* Reads the mappings, with room for more. May allocate. */
bool hr_stacks_prepare(struct hr_error *error) {
  size_t capacity;
  void *at;

  if (pagemap < 0)
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

  while (!read_maps() || maps.n + SPARE_MAPS > maps.capacity) {
    if (!maps.n)
      return hr_refuse(error, HR_UNSUPPORTED,
                       "/proc/self/maps can't be read; ask for --when now, with which no stack is looked at");
    capacity = maps.n + 2 * SPARE_MAPS;
    at = hr_fault(HR_STEP_STACKS) ? MAP_FAILED
                                  : mmap(NULL, capacity * sizeof *maps.map, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
      return hr_refuse(error, HR_NO_MEMORY, "no memory for the list of mappings");
    if (maps.map)
      munmap(maps.map, maps.capacity * sizeof *maps.map);
    maps.map = at;
    maps.capacity = capacity;
  }
  return true;
}

const struct hr_maps *hr_maps(void) { return &maps; }

/* The mapping that holds `at`, or null. They are sorted. */
const struct hr_map *hr_map_of(uintptr_t at) {
  size_t low = 0, high = maps.n;

  while (low < high) {
    size_t middle = (low + high) / 2;

    if (maps.map[middle].at.end <= at)
      low = middle + 1;
    else
      high = middle;
  }
  return low < maps.n && maps.map[low].at.start <= at ? &maps.map[low] : NULL;
}

static const struct hr_map *main_stack(void) {
  size_t i;

  for (i = 0; i < maps.n; i++)
    if (maps.map[i].is_main_stack)
      return &maps.map[i];
  return NULL;
}

/* ---- old code -------------------------------------------------------------------------------------------- */

/* The range that `address` lies in, or null. It may be that of the first byte behind: a return address, after a call
 * that does not return. */
const struct hr_old_code *hr_code_at(const struct hr_codes *codes, uintptr_t address) {
  size_t low = 0, high = codes->n;

  if (!codes->n || address < codes->code[0].at.start || address > codes->highest)
    return NULL;
  while (low < high) {
    size_t middle = (low + high) / 2;

    if (codes->code[middle].at.end < address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low + 1 < codes->n && codes->code[low + 1].at.start == address)
    low++;
  return low < codes->n && codes->code[low].at.start <= address ? &codes->code[low] : NULL;
}

/* ---- first tier -------------------------------------------------------------------------------------------- */

__attribute__((no_sanitize("address"))) static uintptr_t word_at(uintptr_t at) {
  return *(const volatile uintptr_t *)at;
}

static bool scan(const struct hr_codes *codes, struct hr_range range, uintptr_t *hit) {
  uintptr_t low = codes->code[0].at.start, span = codes->highest - low, at;

  for (at = (range.start + 7) & ~(uintptr_t)7; at + 8 <= range.end; at += 8) {
    uintptr_t word = word_at(at);

    if (word - low <= span && hr_code_at(codes, word)) {
      *hit = word;
      return true;
    }
  }
  return false;
}

/* /proc/self/pagemap: one word for each page, bit 63 if it is in memory, bit 62 if it was swapped out. */
static bool look_up_pages(uintptr_t first, size_t n) {
  off_t at = (off_t)(first / HR_PAGE * sizeof *pages);

  return pagemap >= 0 && pread(pagemap, pages, n * sizeof *pages, at) == (ssize_t)(n * sizeof *pages);
}

/* Whether the page at `at` may hold anything, and how far pages like it go on, at most to `end`. */
bool hr_pages_in_memory(uintptr_t at, uintptr_t end, uintptr_t *until) {
  size_t n = (hr_page_up(end) - at) / HR_PAGE, i;
  bool present;

  n = n < CHUNK_PAGES ? n : CHUNK_PAGES;
  if (!look_up_pages(at, n)) {
    *until = end;
    return true;
  }
  present = pages[0] >> 62;
  for (i = 1; i < n && !(pages[i] >> 62) == !present; i++)
    ;
  *until = at + i * HR_PAGE < end ? at + i * HR_PAGE : end;
  return present;
}

/* Pages that were never touched hold nothing, and must not be touched by us. */
static bool scan_sparse(const struct hr_codes *codes, struct hr_range range, uintptr_t *hit) {
  uintptr_t chunk, page;

  for (chunk = hr_page_down(range.start); chunk < range.end; chunk += CHUNK_PAGES * HR_PAGE) {
    size_t n = (hr_page_up(range.end) - chunk) / HR_PAGE, i;
    bool known = look_up_pages(chunk, n < CHUNK_PAGES ? n : CHUNK_PAGES);

    for (i = 0, page = chunk; i < CHUNK_PAGES && page < range.end; i++, page += HR_PAGE) {
      struct hr_range part = {page > range.start ? page : range.start,
                              page + HR_PAGE < range.end ? page + HR_PAGE : range.end};

      if ((!known || pages[i] >> 62) && scan(codes, part, hit))
        return true;
    }
  }
  return false;
}

static bool scan_range(const struct hr_codes *codes, struct hr_range range, uintptr_t *hit) {
  if (range.start >= range.end)
    return false;
  return range.end - range.start <= SPARSE ? scan(codes, range, hit) : scan_sparse(codes, range, hit);
}

struct extent { /* of one thread's stacks */
  struct hr_range used;   /* from the stack pointer on */
  struct hr_range native; /* the whole stack it was started with, where it runs on another one; else empty */
  const struct hr_range *declared; /* that it runs on; null: none */
  const struct hr_map *home; /* of the stack it was started with; null: unknown */
};

/* glibc puts the thread descriptor, which the thread pointer points to, above the stack (psABI: variant II). */
static uintptr_t top_of(const struct hr_map *map, uintptr_t from, uintptr_t thread_pointer) {
  return thread_pointer > from && thread_pointer < map->at.end ? thread_pointer : map->at.end;
}

static bool find_extent(const struct hr_view *view, struct extent *extent) {
  uintptr_t sp = view->registers.r[HR_REGISTER_SP];
  const struct hr_map *map = hr_map_of(sp);
  bool elsewhere;

  memset(extent, 0, sizeof *extent);
  if (!map && read_maps())
    map = hr_map_of(sp);
  if (!map || !map->readable)
    return false;
  extent->home = view->is_main ? main_stack() : hr_map_of(view->thread_pointer);
  extent->used.start = sp - HR_RED_ZONE > map->at.start ? sp - HR_RED_ZONE : map->at.start;
  extent->used.end = top_of(map, sp, view->is_main ? 0 : view->thread_pointer);
  elsewhere = map != extent->home;
  extent->declared = hr_coroutine_runs(sp);
  if (extent->declared) {
    extent->used.end = extent->declared->end < map->at.end ? extent->declared->end : map->at.end;
    elsewhere = true;
  }
  if (hr_inside(view->signal_stack, sp, 1) && view->signal_stack.end <= map->at.end) {
    extent->used.end = view->signal_stack.end;
    elsewhere = true;
  }
  if (elsewhere && extent->home && extent->home->readable)
    extent->native = (struct hr_range){extent->home->at.start,
                                       top_of(extent->home, extent->home->at.start,
                                              view->is_main ? 0 : view->thread_pointer)};
  return true;
}

static bool scan_registers(const struct hr_codes *codes, const struct hr_registers *registers, uintptr_t *hit) {
  int i;

  for (i = 0; i < HR_N_REGISTERS; i++)
    if (hr_code_at(codes, registers->r[i])) {
      *hit = registers->r[i];
      return true;
    }
  return false;
}

/* Whether a stack that the program switches between has no frame in `codes`: its frames from `from` on, or if nobody
 * knows where it is, all of its words. How such a stack ends is not described in every C library: where the trace gets
 * stuck, the words that are left decide. Context: all threads are halted. */
static enum hr_trace look_at_frames(const struct hr_codes *codes, struct hr_range stack,
                                    const struct hr_registers *from, uintptr_t *hit) {
  struct hr_map home = {.at = stack, .readable = true};
  struct hr_registers registers;
  enum hr_trace trace;

  if (!from)
    return scan_sparse(codes, stack, hit) ? HR_TRACE_UNSURE : HR_TRACE_CLEAR;
  registers = *from;
  stack.start = registers.r[HR_REGISTER_SP];
  if (!hr_code_at(codes, registers.r[HR_REGISTER_PC]) && !scan_sparse(codes, stack, hit))
    return HR_TRACE_CLEAR;
  trace = hr_unwind_until(codes, &registers, &home, hit);
  if (trace != HR_TRACE_UNSURE || registers.r[HR_REGISTER_SP] <= stack.start ||
      registers.r[HR_REGISTER_SP] > stack.end || hr_code_at(codes, registers.r[HR_REGISTER_PC]))
    return trace;
  stack.start = registers.r[HR_REGISTER_SP];
  return scan_sparse(codes, stack, hit) ? HR_TRACE_UNSURE : HR_TRACE_CLEAR;
}

/* ---- both ----------------------------------------------------------------------------------------------------- */

/* Whether the thread is in none of `codes`. Context: the thread is halted, or the calling one. */
bool hr_stack_is_clear(const struct hr_codes *codes, const struct hr_view *view, struct hr_blocker *blocker) {
  uintptr_t hit = view->registers.r[HR_REGISTER_PC];
  enum hr_trace trace = HR_TRACE_UNSURE;
  const struct hr_old_code *code;
  struct extent extent;

  if (!codes->n)
    return true;
  code = hr_code_at(codes, hit);
  if (code && hit < code->at.end) {
    trace = HR_TRACE_HIT;
  } else if (find_extent(view, &extent)) {
    if (!scan_registers(codes, &view->registers, &hit) && !scan_range(codes, extent.used, &hit) &&
        !scan_range(codes, extent.native, &hit))
      return true;
    trace = hr_unwind(codes, &view->registers, extent.home, &hit);
    if (trace == HR_TRACE_UNSURE && extent.declared && !scan_range(codes, extent.native, &hit))
      trace = look_at_frames(codes, *extent.declared, &view->registers, &hit);
    if (trace == HR_TRACE_CLEAR)
      return true;
  }
  code = hr_code_at(codes, hit);
  *blocker = (struct hr_blocker){.obstacle = trace == HR_TRACE_HIT ? HR_OBSTACLE_CODE : HR_OBSTACLE_STALE,
                                 .tid = view->tid,
                                 .address = hit, .function = code ? code->function : 0,
                                 .image = code ? code->image : NULL};
  return false;
}

/* ---- coroutines --------------------------------------------------------------------------------------------- */

static bool is_readable(struct hr_range range) {
  const struct hr_map *map = NULL;
  uintptr_t at = range.start;

  while (at < range.end && (map = hr_map_of(at)) && map->readable)
    at = map->at.end;
  return at >= range.end;
}

/* Of one that is switched out, saved in `context`; null: nobody knows where. Context: all threads are halted. */
bool hr_coroutine_is_clear(const struct hr_codes *codes, struct hr_range stack, const ucontext_t *context,
                           struct hr_blocker *blocker) {
  struct hr_registers registers;
  const struct hr_old_code *code;
  enum hr_trace trace;
  uintptr_t hit = 0;

  if (!codes->n || !is_readable(stack)) /* unmapped, and so nobody's */
    return true;
  if (context && !is_readable((struct hr_range){(uintptr_t)context, (uintptr_t)(context + 1)}))
    context = NULL;
  if (context)
    hr_take_registers(&registers, context);
  if (context && !hr_inside(stack, registers.r[HR_REGISTER_SP], 0))
    context = NULL;
  trace = look_at_frames(codes, stack, context ? &registers : NULL, &hit);
  if (trace == HR_TRACE_CLEAR)
    return true;
  code = hr_code_at(codes, hit);
  *blocker = (struct hr_blocker){.obstacle = trace == HR_TRACE_HIT ? HR_OBSTACLE_COROUTINE
                                                                   : HR_OBSTACLE_COROUTINE_STALE,
                                 .address = hit, .function = code ? code->function : 0,
                                 .image = code ? code->image : NULL, .stack = stack.start};
  return false;
}

/* ---- after a crash ---------------------------------------------------------------------------------------- */

/* Context: after hr_stack_blame(). */
bool hr_same_map(uintptr_t one, uintptr_t other) {
  const struct hr_map *map = hr_map_of(one);

  return map && map == hr_map_of(other);
}

/* A call that went astray: what it was meant to return to is on the top of the stack. */
static bool leave_stray_call(struct hr_registers *registers) {
  uintptr_t sp = registers->r[HR_REGISTER_SP];
  const struct hr_map *code = hr_map_of(registers->r[HR_REGISTER_PC]), *stack = hr_map_of(sp);

  if ((code && code->executable) || !stack || !stack->readable || sp % 8 || stack->at.end - sp < 8)
    return false;
  registers->r[HR_REGISTER_PC] = word_at(sp);
  registers->r[HR_REGISTER_SP] = sp + 8;
  return true;
}

/* Whether the thread is in `codes`, as well as can be told: *hit is an address in there. HR_TRACE_UNSURE with a *hit:
 * a word of its stack says so. Context: signal handler, on the thread itself; nobody else uses the maps. May fault. */
enum hr_trace hr_stack_blame(const struct hr_codes *codes, const struct hr_view *view, uintptr_t *hit) {
  uintptr_t pc = view->registers.r[HR_REGISTER_PC];
  const struct hr_old_code *code = hr_code_at(codes, pc);
  struct hr_view from = *view;
  bool mapped = read_maps();
  struct extent extent;
  enum hr_trace trace;

  *hit = 0;
  if (code && pc < code->at.end) {
    *hit = pc;
    return HR_TRACE_HIT;
  }
  if (!codes->n || !mapped || !find_extent(view, &extent))
    return HR_TRACE_UNSURE;
  leave_stray_call(&from.registers);
  trace = hr_unwind(codes, &from.registers, extent.home, hit);
  if (trace != HR_TRACE_UNSURE)
    return trace;
  if (extent.used.end - extent.used.start > SPARSE)
    extent.used.end = extent.used.start + SPARSE;
  if (!scan(codes, extent.used, hit))
    *hit = 0;
  return HR_TRACE_UNSURE;
}
