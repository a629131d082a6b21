/* Leaves the C library its shortcuts for programs of one thread.
 *
 * glibc notes in __libc_single_threaded whether there ever was a second thread. While there was none, malloc, mutexes
 * and the reference counts of libstdc++ do without locks and atomic operations, which is a tenth of the time of a
 * program that allocates much. The agent's thread would end that. So where it is the only other one the flag is set
 * back, and from then on the agent does nothing that the flag is about: it sleeps in a system call, and so does the
 * helper (construct.c). Before it does more it clears the flag, and waits until the program's thread was seen at a
 * harmless place: in no shortcut that it began before. Whatever it begins later takes locks. When all is done the flag
 * is set once more, in a moment in which that thread stands still at such a place and starts no other.
 *
 * Harmless is: outside of the C library and the loader, for they call the program back in none of their shortcuts; or
 * in a system call that is not one of malloc's. Not if a signal handler interrupted them in the middle.
 *
 * Not in a process that could change its user: by the shortcut setuid() changes one thread only, and the agent's would
 * keep the rights that the program gave up. Not under seccomp, which may answer the calls made here with the end of the
 * process.
 *
 * Sources: glibc 2.36, sysdeps/unix/sysv/linux/single-thread.h and where SINGLE_THREAD_P is asked: malloc/malloc.c,
 * nptl/pthread_mutex_lock.c, posix/fork.c, elf/dl-scope.c, sysdeps/nptl/setxid.h; nptl/pthread_create.c, which clears
 * the flag. */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MILLISECOND 1000000ull
#define HALT_NS (20 * MILLISECOND)
#define SHORTEST_PAUSE_NS 50000
#define LONGEST_PAUSE_NS (5 * MILLISECOND)
#define SECTION_NS 100000         /* of CPU time: more than between a look at the flag and what the program does then */
#define FIRST_TRY_MS 1            /* after the agent's work; doubled each time */
#define LONGEST_STACK (64u << 20) /* bytes that are searched for the frames of signals */
#define OTHER_STACK (1u << 20)    /* of a stack that is not the main one: its end is not known */

enum state {
  OPEN,     /* the program's thread has not decided yet */
  KEEPING,  /* it is about to set the flag */
  KEPT,     /* the flag is set: the agent rests */
  DOUBTFUL, /* it is cleared: the program's thread may be in a shortcut that it began before */
  SHARED,   /* all take locks */
};

static struct {
  char *flag, *exported;     /* glibc's own, and what programs see: another one, if the linker copied it */
  uintptr_t library, loader; /* an address in the code of each */
  bool was_single;           /* before the agent's thread was there */
  bool has_barrier;
  struct hr_range creation;  /* code of pthread_create(); empty: not looked up yet */
  uint32_t state;
  uint64_t ran_ns;           /* what the program's thread had of the CPU when it was seen while it ran; 0: it slept */
  int try_ms;
  bool fresh;                /* the flag was set until this request */
} single;

static uintptr_t piece[(64u << 10) / sizeof(uintptr_t)];

struct hr_range hr_single_range(void) { return (struct hr_range){(uintptr_t)piece, (uintptr_t)piece + sizeof piece}; }

static enum state state(void) { return (enum state)__atomic_load_n(&single.state, __ATOMIC_SEQ_CST); }
static void move_to(enum state state) { __atomic_store_n(&single.state, state, __ATOMIC_SEQ_CST); }

static bool moved(enum state from, enum state to) {
  uint32_t expected = from;

  return __atomic_compare_exchange_n(&single.state, &expected, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool flag_is_set(void) { return single.flag && __atomic_load_n(single.flag, __ATOMIC_SEQ_CST); }

static void set_flag(char value) {
  __atomic_store_n(single.flag, value, __ATOMIC_SEQ_CST);
  __atomic_store_n(single.exported, value, __ATOMIC_SEQ_CST);
}

/* ---- whether it may be done ------------------------------------------------------------------------------- */

static void find_flag(void) {
  void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);

  if (!libc)
    return;
  single.flag = dlsym(libc, "__libc_single_threaded");
  single.exported = dlsym(RTLD_DEFAULT, "__libc_single_threaded");
  single.library = (uintptr_t)dlsym(libc, "pthread_create");
  single.loader = (uintptr_t)dlsym(RTLD_DEFAULT, "__tls_get_addr");
  dlclose(libc);
  if (!single.exported || !single.library || !single.loader)
    single.flag = NULL;
}

static bool could_change_user(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct rights[_LINUX_CAPABILITY_U32S_3];
  gid_t group, effective_group, saved_group;
  uid_t user, effective, saved;

  return getresuid(&user, &effective, &saved) || user != effective || user != saved ||
         getresgid(&group, &effective_group, &saved_group) || group != effective_group || group != saved_group ||
         syscall(SYS_capget, &header, rights) || rights[0].permitted || rights[1].permitted;
}

/* Makes the registration that MEMBARRIER_CMD_PRIVATE_EXPEDITED needs (membarrier(2)). */
static bool get_barrier(void) {
  if (!single.has_barrier)
    single.has_barrier = !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  return single.has_barrier;
}

static bool is_allowed(void) {
  return single.was_single && !hr_recall_is_agreed() && !could_change_user() && !prctl(PR_GET_SECCOMP) && get_barrier();
}

/* In the thread that starts the agent's, before it does. */
void hr_single_note(void) {
  const char *locks = getenv("HOTRELOAD_LOCKS");

  if (locks && !strcmp(locks, "1"))
    return;
  find_flag();
  single.was_single = flag_is_set();
}

/* In the same thread, once the agent's has come to hr_single_accept(), or does nothing more before it does.
 * `agent_can`: it needs nothing of the program's table of descriptors. */
void hr_single_keep(bool agent_can) {
  single.was_single = single.was_single && !prctl(PR_GET_SECCOMP);
  if (!agent_can || !is_allowed() || access("/proc/self/task", R_OK) || !moved(OPEN, KEEPING))
    return;
  set_flag(1);
  move_to(KEPT);
}

/* Context: the child of a fork, before it starts an agent. */
void hr_single_forked(void) {
  if (!single.was_single || (state() == KEPT && !flag_is_set()))
    hr_single_note();
  single.has_barrier = false;
  move_to(SHARED);
}

/* ---- where the program's thread is ------------------------------------------------------------------------ */

static bool is_call_of_malloc(long number) {
  switch (number) {
  case SYS_brk: case SYS_mmap: case SYS_munmap: case SYS_mremap: case SYS_mprotect: case SYS_madvise: case SYS_clone:
  case SYS_clone3: case SYS_fork: case SYS_vfork:
    return true;
  default:
    return false;
  }
}

/* `result`: what the register for results of system calls holds. */
static bool is_harmless(uintptr_t pc, uintptr_t result) {
  long number;

  if (!hr_same_map(pc, single.library) && !hr_same_map(pc, single.loader))
    return true;
  number = hr_call_beside(pc, result);
  return number >= 0 && !is_call_of_malloc(number);
}

static bool read_words(uintptr_t at, size_t size) {
  struct iovec to = {piece, size}, from = {(void *)at, size};

  return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)size;
}

/* Whether a signal handler is on the stack, or was, that interrupted the C library. Frames of handlers that are long
 * over may lie between those in use: they count as well. */
static bool was_interrupted(uintptr_t sp) {
  const struct hr_map *map = hr_map_of(sp);
  uintptr_t mark = hr_signal_frame_mark(), end, at;
  size_t size, i;

  if (!map || !map->readable || sp % sizeof mark || (map->is_main_stack && map->at.end - sp > LONGEST_STACK))
    return true;
  end = map->is_main_stack || map->at.end - sp < OTHER_STACK ? map->at.end : sp + OTHER_STACK;
  for (at = sp; at < end; at += size - (at + size < end ? HR_SIGNAL_FRAME_REACH : 0)) {
    size = end - at < sizeof piece ? end - at : sizeof piece;
    if (!read_words(at, size))
      return true;
    for (i = HR_SIGNAL_FRAME_REACH / sizeof mark; i < size / sizeof mark; i++)
      if (piece[i] == mark && !is_harmless(hr_interrupted_pc(&piece[i]), hr_interrupted_result(&piece[i])))
        return true;
  }
  return false;
}

/* /proc/PID/task/TID/syscall, proc(5): the number of the call, six arguments, stack pointer and program counter; -1 and
 * these two if it waits for something else; or "running". */
static bool sleeps_at_harmless_place(void) {
  struct hr_error error;
  uint64_t before = hr_runs_of(getpid());
  char text[256];
  bool harmless;
  long number;

  if (!before || hr_read_task_file(getpid(), "syscall", text, sizeof text) <= 0 || text[0] == 'r' ||
      !hr_stacks_prepare(&error))
    return false;
  number = strtol(text, NULL, 0);
  harmless = number < 0 ? is_harmless(hr_number_at(text, 2), (uintptr_t)-1) : !is_call_of_malloc(number);
  harmless = harmless && !was_interrupted(hr_number_at(text, number < 0 ? 1 : 7)) && hr_runs_of(getpid()) == before;
  hr_stacks_finish();
  return harmless;
}

struct look {
  const struct hr_codes *codes; /* that it must not be in, either; or null */
  unsigned n;
  bool harmless;
};

/* Context: threads are halted. */
static bool judge(const struct hr_thread *thread, void *context) {
  struct look *look = context;
  struct hr_blocker blocker;
  struct hr_view view;

  hr_view_of(thread, &view);
  look->n++;
  look->harmless = thread->tid == getpid() &&
                   is_harmless(view.registers.r[HR_REGISTER_PC], view.registers.r[HR_REGISTER_RESULT]) &&
                   !was_interrupted(view.registers.r[HR_REGISTER_SP]) &&
                   (!look->codes || hr_stack_is_clear(look->codes, &view, &blocker));
  return true;
}

/* Halts the program's thread, looks where it is, and sets the flag if it may be set. Others that there are now have
 * been started by it: it took the step out of the shortcuts itself.
 * Context: the flag is clear. Allocates nothing of the C library's; no lock but the commit lock. */
static bool stands_at_harmless_place(const struct hr_codes *codes, bool sets_flag) {
  struct look look = {.codes = codes};
  struct hr_blocker blocker;
  struct hr_error error;
  bool good = false;

  if (!hr_commit_trylock())
    return false;
  hr_sleepers_wake();
  if (hr_stacks_prepare(&error) && hr_threads_prepare(&error) && hr_threads_unconfined(&error) &&
      hr_threads_halt(HALT_NS, &blocker)) {
    hr_threads_visit(judge, &look);
    good = look.n == 1 ? look.harmless : !sets_flag;
    if (good && sets_flag) {
      set_flag(1);
      move_to(KEPT);
    }
    hr_threads_release();
  }
  hr_stacks_finish();
  hr_threads_finish();
  hr_commit_unlock();
  return good;
}

/* Of the program's thread. CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED: include/linux/posix-timers.h */
static uint64_t cpu_ns(void) {
  clockid_t clock = (clockid_t)((~(unsigned)getpid() << 3) | 4 | 2);
  struct timespec used;

  return clock_gettime(clock, &used) ? 0 : (uint64_t)used.tv_sec * 1000 * MILLISECOND + (uint64_t)used.tv_nsec;
}

static void pause_for(uint64_t *ns) {
  struct timespec pause = {.tv_nsec = (long)*ns};

  nanosleep(&pause, NULL);
  *ns = *ns * 2 < LONGEST_PAUSE_NS ? *ns * 2 : LONGEST_PAUSE_NS;
}

/* ---- on the agent's thread -------------------------------------------------------------------------------- */

/* Before anything but a wait. Afterwards all that the program's thread begins takes locks. */
static void clear_flag(void) {
  while (!moved(OPEN, SHARED) && state() == KEEPING)
    sched_yield();
  if (state() != KEPT)
    return;
  if (!flag_is_set()) { /* the program has got threads of its own */
    single.was_single = false;
    move_to(SHARED);
    return;
  }
  set_flag(0);
  syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
  move_to(DOUBTFUL);
}

/* Waits until the program's thread is in no shortcut any more, at most until `deadline_ns`. What comes before may make
 * system calls, and nothing else that concerns the C library. */
bool hr_single_end(uint64_t deadline_ns) {
  uint64_t pause_ns = SHORTEST_PAUSE_NS;

  single.ran_ns = 0;
  __atomic_store_n(&single.fresh, state() == DOUBTFUL, __ATOMIC_SEQ_CST);
  while (state() == DOUBTFUL) {
    if (sleeps_at_harmless_place()) {
      move_to(SHARED);
    } else if (stands_at_harmless_place(NULL, false)) {
      single.ran_ns = cpu_ns();
      move_to(SHARED);
    } else if (hr_now_ns() > deadline_ns) {
      return false;
    } else {
      pause_for(&pause_ns);
    }
  }
  return true;
}

/* Whether a fork may have begun before the agent's work did, and leaves out malloc's locks. Context: any thread. */
bool hr_single_is_fresh(void) { return __atomic_load_n(&single.fresh, __ATOMIC_SEQ_CST); }

/* Code of the program, too, looks at the flag and then does without atomic operations (libstdc++'s counts of
 * references), and may have been halted in between: it runs on before code of the program is run beside it. */
bool hr_single_settle(uint64_t deadline_ns, struct hr_error *error) {
  uint64_t pause_ns = SHORTEST_PAUSE_NS;

  while (single.ran_ns && cpu_ns() < single.ran_ns + SECTION_NS && !sleeps_at_harmless_place()) {
    if (hr_now_ns() > deadline_ns)
      return hr_refuse(error, HR_DEADLINE, "the program's thread got no time on a CPU");
    pause_for(&pause_ns);
  }
  single.ran_ns = 0;
  return true;
}

/* A thread that sleeps needs no shortcuts, and is not disturbed. */
static bool program_runs(void) {
  char text[32];

  return hr_read_task_file(getpid(), "syscall", text, sizeof text) > 0 && text[0] == 'r';
}

/* No fork may come while the loader's lock is held. */
static bool find_creation(void) {
  bool found = single.creation.end != 0;

  if (found)
    return true;
  hr_fork_forbid();
  found = hr_thread_creation(&single.creation);
  hr_fork_allow();
  return found;
}

/* pthread_create() clears the flag when it begins: it must not be set again before the thread is there to be seen. */
static void try_to_set_flag(void) {
  struct hr_old_code creation = {.at = {0, 0}};
  struct hr_codes codes = {&creation, 1, 1, 0};

  single.try_ms = single.try_ms < INT32_MAX / 2 ? 2 * single.try_ms : INT32_MAX;
  if (!program_runs() || hr_guard_is_on() || hr_helper_was_used() || !find_creation())
    return;
  creation.at = single.creation;
  codes.highest = creation.at.end;
  hr_unwind_forget(); /* the loader's lock, which would keep the tables as they are, must not be held meanwhile */
  stands_at_harmless_place(&codes, true);
}

/* Also if the kernel does not say. */
static bool is_readable(int fd, int ms) {
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * (long)MILLISECOND};
  long n = syscall(SYS_ppoll, &ready, 1, ms < 0 ? NULL : &limit, NULL, 0);

  return n > 0 || (n < 0 && errno != EINTR);
}

/* Takes a client's connection, sleeping until there is one. Returns its descriptor, or -1 with errno as of accept(2).
 * `own_table`: of the agent's descriptors. Else whoever polls loses the listener when the program closes it. */
int hr_single_accept(int listener, bool own_table) {
  int fd, error;

  single.try_ms = FIRST_TRY_MS;
  __atomic_store_n(&single.fresh, false, __ATOMIC_SEQ_CST);
  if (own_table && state() == SHARED && is_allowed())
    while (state() == SHARED && !is_readable(listener, single.try_ms))
      try_to_set_flag();
  fd = (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
  error = errno;
  clear_flag();
  errno = error;
  return fd;
}

/* Before the agent's thread ends. */
void hr_single_leave(void) {
  clear_flag();
  while (!hr_single_end(hr_now_ns() + 1000 * MILLISECOND))
    ;
}
