/* Threads that sleep in the kernel: where they are, read without waking them.
 *
 * In two looks. The first, while all run, notes for each thread in a system call how often it was given a CPU, and
 * then reads its stack by the first tier of stack.c. The second, with the gates shut, counts again: a thread that was
 * not given a CPU meanwhile still sleeps where it was, outside of old code, and a gate is between it and that code.
 * All others are halted and looked at exactly.
 *
 * The kernel does not say whether a thread is in a signal handler, on a signal stack within its stack perhaps; so one
 * that has a signal's frame on the stack is halted as well, and so is one whose stack is not where the C library put
 * it.
 *
 * Sources: proc(5) on /proc/PID/task/TID/syscall; Documentation/scheduler/sched-stats.rst on schedstat: its third
 * number is raised before a thread runs, by the CPU that it runs on. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#define LONGEST_STACK (256u << 10) /* bytes in use; a thread with more of them is halted */
#define FIRST_CAPACITY 1024
#define LEAST_KERNEL 5             /* older ones are not trusted to store all that is relied on */

struct sleeper {
  pid_t tid;
  uint64_t runs; /* how often it was given a CPU */
};

static struct {
  struct sleeper *sleepers; /* by tid, once the first look is over */
  size_t n, capacity;
  const struct hr_codes *codes;
  uintptr_t descriptor; /* from a thread's robust list to its thread pointer; the same for all of one C library */
} dormitory;

static uintptr_t stack[LONGEST_STACK / sizeof(uintptr_t)];

struct hr_range hr_sleepers_range(void) { return (struct hr_range){(uintptr_t)stack, (uintptr_t)stack + sizeof stack}; }

/* The number behind `skip` others, or 0. */
uint64_t hr_number_at(const char *text, int skip) {
  while (skip-- && (text = strchr(text, ' ')))
    text++;
  return text ? strtoull(text, NULL, 0) : 0;
}

/* How often a thread was given a CPU: the third number of schedstat. 0: unknown. */
uint64_t hr_runs_of(pid_t tid) {
  char text[96];

  return hr_read_task_file(tid, "schedstat", text, sizeof text) > 0 ? hr_number_at(text, 2) : 0;
}

/* The thread descriptor holds the head of the list of robust futexes, at a place that is the same in every thread. */
static uintptr_t robust_list_of(pid_t tid) {
  void *head = NULL;
  size_t size = 0;

  return syscall(SYS_get_robust_list, tid, &head, &size) ? 0 : (uintptr_t)head;
}

static uintptr_t thread_pointer_of(pid_t tid) {
  uintptr_t list = robust_list_of(tid);

  return list ? list + dormitory.descriptor : 0;
}

/* The stack of a sleeping thread from its stack pointer to its end; empty if that is not certain. */
static struct hr_range stack_of(pid_t tid, uintptr_t sp) {
  static const struct hr_range none;
  const struct hr_map *map = hr_map_of(sp);
  uintptr_t end = map && map->is_main_stack ? map->at.end : thread_pointer_of(tid);

  if (!map || !map->readable || map->is_main_stack != (tid == getpid()) || sp < map->at.start + HR_RED_ZONE ||
      end <= sp || end > map->at.end || end - sp > LONGEST_STACK - HR_RED_ZONE)
    return none;
  return (struct hr_range){sp - HR_RED_ZONE, end};
}

/* The thread may wake up and end meanwhile, and its stack be unmapped: so the kernel reads it. */
static bool is_outside(pid_t tid, uintptr_t sp) {
  struct hr_range range = stack_of(tid, sp);
  size_t size = range.end - range.start, i;
  struct iovec to = {stack, size}, from = {(void *)range.start, size};
  uintptr_t mark = hr_signal_frame_mark();

  if (!size || process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)size)
    return false;
  for (i = 0; i < size / sizeof *stack; i++)
    if (stack[i] == mark || hr_code_at(dormitory.codes, stack[i]))
      return false;
  return true;
}

/* /proc/PID/task/TID/syscall: the number of the call, six arguments, the stack pointer, the program counter. */
static bool look_at(pid_t tid, void *unused) {
  uint64_t runs = hr_runs_of(tid);
  uintptr_t sp, pc;
  char text[256];

  (void)unused;
  if (dormitory.n == dormitory.capacity)
    return false;
  if (!runs || hr_read_task_file(tid, "syscall", text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
    return true;
#ifdef SYS_vfork /* until it execs, the child runs further down on this stack; it is no thread of this process */
  if (hr_number_at(text, 0) == SYS_vfork)
    return true;
#endif
  sp = hr_number_at(text, 7);
  pc = hr_number_at(text, 8);
  if (pc && !hr_code_at(dormitory.codes, pc) && is_outside(tid, sp))
    dormitory.sleepers[dormitory.n++] = (struct sleeper){tid, runs};
  return true;
}

static int by_tid(const void *a, const void *b) {
  const struct sleeper *one = a, *two = b;

  return one->tid < two->tid ? -1 : one->tid > two->tid;
}

static bool make_room(void) {
  void *at;

  if (dormitory.n < dormitory.capacity || dormitory.capacity > HR_MAX_SLEEPERS / 2)
    return dormitory.capacity != 0;
  hr_memory_free(dormitory.sleepers, dormitory.capacity * sizeof *dormitory.sleepers);
  dormitory.capacity = dormitory.capacity ? 2 * dormitory.capacity : FIRST_CAPACITY;
  at = hr_memory(dormitory.capacity * sizeof *dormitory.sleepers);
  if (!at)
    dormitory.capacity = 0;
  dormitory.sleepers = at;
  return at != NULL;
}

static bool kernel_is_known(void) {
  struct utsname name;

  return !uname(&name) && atoi(name.release) >= LEAST_KERNEL;
}

/* The first look. Whatever can't be read or remembered means only that more threads are halted.
 * Context: prepared (hr_threads_prepare, hr_stacks_prepare); threads run. */
void hr_sleepers_look(const struct hr_codes *codes) {
  uintptr_t list = robust_list_of(0);

  dormitory.codes = codes;
  dormitory.descriptor = (uintptr_t)__builtin_thread_pointer() - list;
  if (!list || !kernel_is_known() || !make_room()) {
    dormitory.n = 0;
    return;
  }
  dormitory.n = 0;
  hr_threads_each(look_at, NULL);
  qsort(dormitory.sleepers, dormitory.n, sizeof *dormitory.sleepers, by_tid);
}

/* The second look. Context: the gates are shut. Allocates nothing, takes no lock. */
void hr_sleepers_look_again(void) {
  size_t i, kept = 0;

  for (i = 0; i < dormitory.n; i++)
    if (hr_runs_of(dormitory.sleepers[i].tid) == dormitory.sleepers[i].runs)
      dormitory.sleepers[kept++] = dormitory.sleepers[i];
  dormitory.n = kept;
}

/* Nobody is left asleep. */
void hr_sleepers_wake(void) { dormitory.n = 0; }

/* Whether this thread may be left asleep. Context: also while threads are halted. */
bool hr_sleeps(pid_t tid) {
  size_t low = 0, high = dormitory.n;

  while (low < high) {
    size_t middle = (low + high) / 2;

    if (dormitory.sleepers[middle].tid < tid)
      low = middle + 1;
    else
      high = middle;
  }
  return low < dormitory.n && dormitory.sleepers[low].tid == tid;
}

unsigned hr_sleepers(void) { return (unsigned)dormitory.n; }
