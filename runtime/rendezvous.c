/* Brings all other threads of the process to a halt for a moment, and lets them go on.
 *
 * Each thread gets a signal; its handler notes where it is and waits on a futex. The signal is the one that glibc
 * keeps for setuid() and friends: a program cannot use it, cannot block it by sigfillset() and pthread_sigmask(), and
 * a stray one is ignored by glibc. What glibc sends by it still reaches glibc's handler, by way of ours.
 *
 * A thread that is not stopped might run into code that is about to change, so there is one exception only: a thread
 * that is known to sleep behind a gate (asleep.c). Others that are asleep in the kernel are woken. SA_RESTART makes
 * most system calls go on as if nothing had been, and most of the rest are made anew by the handler;
 * docs/consistency.md has the list. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PARK_SIGNAL 33 /* glibc: SIGSETXID; nptl/internal-signals.h */
#define MARK 0x48525031u /* si_uid of our signals, which tells them from glibc's */
#define RESTORER 0x04000000ul /* SA_RESTORER, asm/signal.h */
#define LISTING (32u << 10)
#define SPARE_THREADS 256 /* that may be born between the count and the halt */
#define LOOK_NS 2000000 /* how long a thread may take before it is looked at */
#define KERNEL_WORKER 0x4010 /* PF_USER_WORKER, PF_IO_WORKER (linux/sched.h): they never run the program's code */

enum thread_state { FREE, SENT, ARRIVING, PARKED, LEFT, GONE };

static struct {
  struct hr_thread *threads; /* never unmapped: a late handler may look at it */
  unsigned n, capacity, next; /* entries in use, in all, and where to look for a free one */
  uint32_t epoch;    /* of the last rendezvous */
  uint32_t halt;     /* the epoch while threads wait in the handler, else 0; a futex */
  uint32_t arrived;  /* a futex */
  uint32_t expected;
  uint32_t stopped;  /* have been, in this rendezvous */
  pid_t pid, self, highest; /* the process, this thread, the last of those called */
  int listing;       /* descriptor of /proc/self/task */
  int send_error;    /* errno of a signal that could not be sent, in this rendezvous; else 0 */
  char buffer[LISTING] __attribute__((aligned(8)));
  struct hr_kernel_action former;
} meeting = {.listing = -1};

/* The bytes by which unwinders and debuggers know that a signal's frame comes next. */
__asm__(
  ".pushsection .text.hr_restore_context,\"ax\",@progbits\n.balign 16\n.hidden hr_restore_context\n"
  ".globl hr_restore_context\n.type hr_restore_context,@function\nnop\nhr_restore_context:\n"
  "movq $15, %rax\nsyscall\n.size hr_restore_context, . - hr_restore_context\n.popsection\n");

static int wait_while(uint32_t *word, uint32_t value, const struct timespec *longest) {
  return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, longest, NULL, 0);
}

static void wake(uint32_t *word, int n) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0); }

static uint64_t state_of(enum thread_state state) { return (uint64_t)meeting.epoch << 8 | state; }

/* ---- system calls that SA_RESTART leaves out ------------------------------------------------------------ */

/* Whether the call may be made anew and ends when it would have ended: it waits without limit, or until a point in
 * time, or the kernel has stored how much of the time is left (select(2), ppoll(2); nanosleep(2) where both pointers
 * are one). */
static bool may_be_repeated(const ucontext_t *context, long number) {
  uintptr_t a[6];
  int i;

  for (i = 0; i < 6; i++)
    a[i] = hr_call_argument(context, i);
  switch (number) {
  case SYS_poll: return (int)a[2] < 0;
  case SYS_epoll_wait: case SYS_epoll_pwait: return (int)a[3] < 0;
  case SYS_nanosleep: return a[0] == a[1];
  case SYS_clock_nanosleep: return a[1] & 1 /* TIMER_ABSTIME */ || a[2] == a[3];
  case SYS_futex: return (a[1] & 127) == FUTEX_WAIT_BITSET;
  case SYS_rt_sigtimedwait: return !a[2];
  case SYS_select: case SYS_pselect6: case SYS_ppoll: case SYS_pause: case SYS_rt_sigsuspend: case SYS_semop:
  case SYS_msgsnd: case SYS_msgrcv: return true;
  default: return false;
  }
}

/* A signal of the program that came meanwhile ends the call, as it would have without us.
 * Context: signal handler, all signals blocked. */
static bool signal_waits(const ucontext_t *context) {
  uint64_t pending = 0, blocked;

  memcpy(&blocked, &context->uc_sigmask, sizeof blocked);
  return syscall(SYS_rt_sigpending, &pending, sizeof pending) || pending & ~blocked;
}

/* Context: signal handler, all signals blocked. */
static void repeat_call(ucontext_t *context) {
  long number = hr_ended_call(context);

  if (number >= 0 && may_be_repeated(context, number) && !signal_waits(context))
    hr_call_again(context, number);
}

/* Waits for the release. A thread that was released but did not run yet may be taken into the next rendezvous as it is
 * (see keep_parked): then it waits on. Its last access to `thread` is the one that says LEFT.
 * Context: signal handler, all signals blocked. */
static void leave(struct hr_thread *thread) {
  for (;;) {
    uint64_t state = __atomic_load_n(&thread->state, __ATOMIC_SEQ_CST);
    uint32_t halt = __atomic_load_n(&meeting.halt, __ATOMIC_SEQ_CST);

    if (halt)
      wait_while(&meeting.halt, halt, NULL);
    else if (__atomic_compare_exchange_n(&thread->state, &state, (state & ~(uint64_t)255) | LEFT, false,
                                         __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return;
  }
}

/* ---- the handler -------------------------------------------------------------------------------------------- */

/* Context: signal handler, all signals blocked. */
static void park(struct hr_thread *thread, uint32_t epoch, void *context) {
  uint64_t sent = (uint64_t)epoch << 8 | SENT;
  uint32_t n;

  if (!__atomic_compare_exchange_n(&thread->state, &sent, (uint64_t)epoch << 8 | ARRIVING, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_RELAXED))
    return;
  thread->context = context;
  thread->pointer = (uintptr_t)__builtin_thread_pointer();
  __atomic_store_n(&thread->state, (uint64_t)epoch << 8 | PARKED, __ATOMIC_SEQ_CST);
  n = __atomic_add_fetch(&meeting.arrived, 1, __ATOMIC_SEQ_CST);
  if (n >= __atomic_load_n(&meeting.expected, __ATOMIC_SEQ_CST))
    wake(&meeting.arrived, 1);
  leave(thread);
  repeat_call(context);
}

/* Context: signal handler. */
static void pass_on(int number, siginfo_t *info, void *context) {
  if ((uintptr_t)meeting.former.handler > (uintptr_t)SIG_IGN)
    meeting.former.handler(number, info, context);
}

/* Context: signal handler. The table is read only while a rendezvous of the signal's own epoch is on. */
static void on_signal(int number, siginfo_t *info, void *context) {
  uint64_t value = (uint64_t)(uintptr_t)info->si_value.sival_ptr;
  uint32_t epoch = (uint32_t)(value >> 32);
  int error = errno;

  if (info->si_code != SI_QUEUE || info->si_uid != MARK || info->si_pid != meeting.pid)
    pass_on(number, info, context);
  else if (__atomic_load_n(&meeting.halt, __ATOMIC_ACQUIRE) == epoch)
    park(&meeting.threads[(uint32_t)value], epoch, context);
  else
    repeat_call(context); /* too late for its rendezvous */
  errno = error;
}

/* ---- prepare ----------------------------------------------------------------------------------------- */

static bool is_installed(const struct hr_kernel_action *action) { return action->handler == on_signal; }

/* Stays installed: a signal that reaches its thread late must find a handler. */
static bool install_handler(void) {
  struct hr_kernel_action mine = {.handler = on_signal, .flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | RESTORER,
                               .restorer = hr_restore_context, .mask = ~0ull}, now;

  if (syscall(SYS_rt_sigaction, PARK_SIGNAL, NULL, &now, sizeof now.mask))
    return false;
  if (is_installed(&now))
    return true;
  meeting.former = now;
  return !syscall(SYS_rt_sigaction, PARK_SIGNAL, &mine, NULL, sizeof mine.mask);
}

static bool make_table(unsigned wanted) {
  unsigned capacity = meeting.capacity ? meeting.capacity : SPARE_THREADS;
  void *at;

  while (capacity < wanted + SPARE_THREADS)
    capacity *= 2;
  if (capacity == meeting.capacity)
    return true;
  at = hr_fault(HR_STEP_TABLE) ? MAP_FAILED
                               : mmap(NULL, capacity * sizeof *meeting.threads, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED)
    return false;
  meeting.threads = at;
  meeting.n = 0; /* whoever still is on the way out of the old table is met when it has left */
  meeting.capacity = capacity;
  return true;
}

struct entry { /* struct linux_dirent64 */
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

typedef bool thread_visit(pid_t tid, void *context); /* false: enough */

/* Visits every thread but the calling one and the helper, which sleeps (construct.c).
 * False if the list could not be read, or is not about this process.
 * Context: also while threads are halted. */
static bool each_thread(thread_visit *visit, void *context) {
  bool self_seen = false, goes_on = true;
  long n, at;

  if (hr_fault(HR_STEP_LIST) || lseek(meeting.listing, 0, SEEK_SET))
    return false;
  while ((n = syscall(SYS_getdents64, meeting.listing, meeting.buffer, sizeof meeting.buffer)) > 0)
    for (at = 0; at < n;) {
      const struct entry *entry = (const struct entry *)(meeting.buffer + at);
      const char *digit = entry->name;
      pid_t tid = 0;

      at += entry->length;
      while (*digit >= '0' && *digit <= '9')
        tid = 10 * tid + (*digit++ - '0');
      if (*digit || !tid)
        continue;
      if (tid == meeting.self)
        self_seen = true;
      else if (goes_on && tid != hr_helper_tid())
        goes_on = visit(tid, context);
    }
  return n == 0 && self_seen;
}

static bool count_thread(pid_t tid, void *context) {
  (void)tid;
  ++*(unsigned *)context;
  return true;
}

/* Readies what a halt needs; may allocate and fail. Threads run on. */
bool hr_threads_prepare(struct hr_error *error) {
  unsigned n = 0;

  meeting.pid = getpid();
  meeting.self = (pid_t)syscall(SYS_gettid);
  meeting.listing = hr_fault(HR_STEP_THREADS) ? -1 : open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (meeting.listing < 0 || !each_thread(count_thread, &n)) {
    hr_threads_finish();
    return hr_refuse(error, HR_UNSUPPORTED,
                     "the threads can't be listed: /proc/self/task is not this process's; ask for "
                     "--when now, with which no thread is stopped");
  }
  if (!make_table(n)) {
    hr_threads_finish();
    return hr_refuse(error, HR_NO_MEMORY, "no memory to stop %u threads", n);
  }
  if (hr_fault(HR_STEP_HANDLER) || !install_handler()) {
    hr_threads_finish();
    return hr_refuse(error, HR_UNSUPPORTED,
                     "no handler can be installed for the signal that stops threads (%s); ask for --when now, with "
                     "which no thread is stopped", strerror(errno));
  }
  return true;
}

void hr_threads_finish(void) {
  if (meeting.listing >= 0)
    close(meeting.listing);
  meeting.listing = -1;
}

/* Context: the child of a fork. The descriptor, if it is in this table at all, may be another's by now. */
void hr_threads_forked(void) { meeting.listing = -1; }

bool hr_threads_each(bool (*visit)(pid_t tid, void *context), void *context) { return each_thread(visit, context); }

/* ---- what a thread is doing, from /proc ---------------------------------------------------------------- */

static long read_file(const char *path, char *to, size_t size) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  long n = file < 0 ? -1 : read(file, to, size - 1);

  if (file >= 0)
    close(file);
  to[n > 0 ? n : 0] = 0;
  return n;
}

static void append(char *to, const char *text) { strcpy(to + strlen(to), text); }

/* /proc/self/task/TID/NAME. No stdio: also while threads are halted. */
long hr_read_task_file(pid_t tid, const char *name, char *to, size_t size) {
  char path[64] = "/proc/self/task/", digits[16];
  int i = sizeof digits - 1;

  digits[i] = 0;
  do {
    digits[--i] = (char)('0' + tid % 10);
    tid /= 10;
  } while (tid);
  append(path, digits + i);
  append(path, "/");
  append(path, name);
  return read_file(path, to, size);
}

/* State letter and flags (proc(5): fields 3 and 9 of stat); the command in field 2 may hold anything but ends at the
 * last ')'. */
static char stat_of(pid_t tid, unsigned long *flags) {
  char text[512];
  const char *at;
  int field;

  if (hr_read_task_file(tid, "stat", text, sizeof text) <= 0 || !(at = strrchr(text, ')')) || !at[1])
    return 0;
  at += 2;
  *flags = 0;
  for (field = 3; field < 9 && *at; at++)
    field += *at == ' ';
  while (*at >= '0' && *at <= '9')
    *flags = 10 * *flags + (unsigned long)(*at++ - '0');
  return text[strrchr(text, ')') - text + 2];
}

/* Threads that are over, and the kernel's own, run no code of the program. */
bool hr_thread_runs_no_code(pid_t tid) {
  unsigned long flags;
  char state = stat_of(tid, &flags);

  return state == 'Z' || state == 'X' || state == 'x' || (state && flags & KERNEL_WORKER);
}

void hr_thread_name(pid_t tid, char *name, size_t size) {
  long n = hr_read_task_file(tid, "comm", name, size);

  if (n > 0 && name[n - 1] == '\n')
    name[n - 1] = 0;
  if (n <= 0)
    strcpy(name, "?");
}

static bool blocks_signal(pid_t tid) {
  char text[2048];
  const char *blocked;

  hr_read_task_file(tid, "status", text, sizeof text);
  blocked = strstr(text, "SigBlk:\t");
  return blocked && strtoull(blocked + 8, NULL, 16) >> (PARK_SIGNAL - 1) & 1;
}

/* Whether there is no point in waiting for it while all others stand still. */
static bool is_deaf(pid_t tid) {
  unsigned long flags;
  char state = stat_of(tid, &flags);

  return state == 'D' || state == 't' || state == 'T' || blocks_signal(tid);
}

/* Why a thread can't be stopped, in words. */
void hr_thread_describe(pid_t tid, char *words, size_t size) {
  char wchan[64], call[32];
  unsigned long flags;
  char state = stat_of(tid, &flags);

  hr_read_task_file(tid, "wchan", wchan, sizeof wchan);
  hr_read_task_file(tid, "syscall", call, sizeof call);
  call[strcspn(call, " \n")] = 0;
  if (state != 'D' && blocks_signal(tid))
    snprintf(words, size, "it blocks every signal (state %c, system call %s)", state, call);
  else if (state == 'D')
    snprintf(words, size, "it waits in the kernel and can't be interrupted (state D, system call %s, %s)", call, wchan);
  else if (state == 't' || state == 'T')
    snprintf(words, size, "it is stopped by a debugger or a signal");
  else
    snprintf(words, size, "it did not react (state %c, system call %s, %s)", state ? state : '?', call, wchan);
}

/* ---- halt ------------------------------------------------------------------------------------------------ */

static enum thread_state present(const struct hr_thread *thread) {
  uint64_t state = __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE);

  return state >> 8 == meeting.epoch ? (enum thread_state)(state & 255) : FREE;
}

/* A handler that was about to wait when the rendezvous before was given up must be done with its entry. */
static bool none_arriving(uint64_t until) {
  unsigned i;

  for (i = 0; i < meeting.n; i++)
    while ((__atomic_load_n(&meeting.threads[i].state, __ATOMIC_SEQ_CST) & 255) == ARRIVING) {
      if (hr_now_ns() > until)
        return false;
      sched_yield();
    }
  return true;
}

/* Threads that were released but have not run yet (there are more of them than CPUs) still are where they were: they
 * need no second signal. `halt` is set before, so one that finds its entry changed goes on waiting.
 * Returns how many. */
static unsigned keep_parked(void) {
  unsigned kept = 0, i;

  for (i = 0; i < meeting.n; i++) {
    struct hr_thread *thread = &meeting.threads[i];
    uint64_t state = __atomic_load_n(&thread->state, __ATOMIC_SEQ_CST);

    if ((state & 255) != PARKED || !__atomic_compare_exchange_n(&thread->state, &state, state_of(PARKED), false,
                                                                __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      continue;
    meeting.highest = thread->tid > meeting.highest ? thread->tid : meeting.highest;
    kept++;
  }
  return kept;
}

/* An entry for a thread that is called now. Null: there is none left. */
static struct hr_thread *free_entry(void) {
  for (; meeting.next < meeting.n; meeting.next++)
    if (present(&meeting.threads[meeting.next]) == FREE)
      return &meeting.threads[meeting.next++];
  if (meeting.n == meeting.capacity)
    return NULL;
  meeting.next = meeting.n + 1;
  return &meeting.threads[meeting.n++];
}

struct calling { /* one pass over the list of threads */
  unsigned seen;
  bool new_ones, full;
};

static struct hr_thread *find_thread(pid_t tid, unsigned guess) {
  unsigned i;

  if (guess < meeting.n && meeting.threads[guess].tid == tid && present(&meeting.threads[guess]) != FREE)
    return &meeting.threads[guess];
  if (tid > meeting.highest)
    return NULL;
  for (i = 0; i < meeting.n; i++)
    if (meeting.threads[i].tid == tid && present(&meeting.threads[i]) != FREE)
      return &meeting.threads[i];
  return NULL;
}

/* Returns 0 or an errno value. ESRCH: the thread has ended. */
static int send(pid_t tid, unsigned index) {
  siginfo_t info;

  memset(&info, 0, sizeof info);
  info.si_signo = PARK_SIGNAL;
  info.si_code = SI_QUEUE;
  info.si_pid = meeting.pid;
  info.si_uid = MARK;
  info.si_value.sival_ptr = (void *)(uintptr_t)((uint64_t)meeting.epoch << 32 | index);
  if (hr_fault(HR_STEP_SIGNAL))
    return EAGAIN;
  return syscall(SYS_rt_tgsigqueueinfo, meeting.pid, tid, PARK_SIGNAL, &info) ? errno : 0;
}

/* The list keeps its order, which is mostly that of the ids: so nearly every search ends at its first look. */
static bool call_thread(pid_t tid, void *context) {
  struct calling *calling = context;
  struct hr_thread *thread = find_thread(tid, calling->seen++);
  int failure;

  if (thread || hr_sleeps(tid))
    return true;
  thread = free_entry();
  if (!thread) {
    calling->full = true;
    return false;
  }
  calling->new_ones = true;
  meeting.highest = tid > meeting.highest ? tid : meeting.highest;
  thread->tid = tid;
  thread->context = NULL;
  __atomic_store_n(&thread->state, state_of(SENT), __ATOMIC_RELEASE);
  __atomic_add_fetch(&meeting.expected, 1, __ATOMIC_SEQ_CST);
  failure = send(tid, (unsigned)(thread - meeting.threads));
  if (failure) {
    __atomic_store_n(&thread->state, state_of(FREE), __ATOMIC_RELEASE);
    __atomic_sub_fetch(&meeting.expected, 1, __ATOMIC_SEQ_CST);
  }
  if (failure && failure != ESRCH) /* else it ended; if it is listed again, it is called again */
    meeting.send_error = failure;
  return !meeting.send_error;
}

/* Takes threads out of the count that will never arrive. Returns one that still may, or null; *deaf: but not soon. */
static struct hr_thread *look_at_missing(bool *deaf) {
  struct hr_thread *missing = NULL;
  unsigned i;

  *deaf = false;
  for (i = 0; i < meeting.n && !*deaf; i++) {
    struct hr_thread *thread = &meeting.threads[i];
    uint64_t sent = state_of(SENT);
    bool over, ended;

    if (present(thread) != SENT)
      continue;
    ended = syscall(SYS_tgkill, meeting.pid, thread->tid, 0) && errno == ESRCH;
    over = ended || hr_thread_runs_no_code(thread->tid);
    if (!over) {
      missing = thread;
      *deaf = is_deaf(thread->tid);
    } else if (__atomic_compare_exchange_n(&thread->state, &sent, state_of(ended ? FREE : GONE), false,
                                           __ATOMIC_ACQ_REL,
                                           __ATOMIC_RELAXED)) {
      __atomic_sub_fetch(&meeting.expected, 1, __ATOMIC_SEQ_CST);
    }
  }
  return missing;
}

/* The count may run ahead: a handler of the rendezvous before counts itself a little late. */
static bool none_missing(void) {
  unsigned i;

  for (i = 0; i < meeting.n; i++) {
    enum thread_state state = present(&meeting.threads[i]);

    if (state == SENT || state == ARRIVING)
      return false;
  }
  return true;
}

static bool all_arrived(uint64_t until, struct hr_blocker *blocker) {
  struct timespec slice = {.tv_nsec = LOOK_NS};
  struct hr_thread *missing;
  uint32_t n;
  bool deaf;

  while ((n = __atomic_load_n(&meeting.arrived, __ATOMIC_SEQ_CST)) <
             __atomic_load_n(&meeting.expected, __ATOMIC_SEQ_CST) || !none_missing()) {
    if (!wait_while(&meeting.arrived, n, &slice) || errno != ETIMEDOUT)
      continue;
    missing = look_at_missing(&deaf);
    if (missing && (deaf || hr_now_ns() > until)) {
      *blocker = (struct hr_blocker){.obstacle = HR_OBSTACLE_DEAF, .tid = missing->tid};
      return false;
    }
  }
  return true;
}

/* Whoever has not arrived yet passes through when the signal reaches it. */
static void withdraw(void) {
  unsigned i;

  for (i = 0; i < meeting.n; i++) {
    uint64_t sent = state_of(SENT);

    __atomic_compare_exchange_n(&meeting.threads[i].state, &sent, state_of(FREE), false, __ATOMIC_ACQ_REL,
                                __ATOMIC_RELAXED);
  }
}

/* Halts every thread but the calling one and those that hr_sleeps() knows, also those born meanwhile. False: not all
 * came within `budget_ns`, and none is halted any more. Context: prepared. Allocates nothing, takes no lock. */
bool hr_threads_halt(uint64_t budget_ns, struct hr_blocker *blocker) {
  uint64_t until = hr_now_ns() + budget_ns;
  struct calling calling;
  unsigned kept;

  *blocker = (struct hr_blocker){.obstacle = HR_OBSTACLE_DEAF};
  if (!none_arriving(until))
    return false;
  meeting.epoch++;
  meeting.epoch += !meeting.epoch;
  meeting.next = 0;
  meeting.highest = 0;
  meeting.send_error = 0;
  __atomic_store_n(&meeting.arrived, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&meeting.expected, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&meeting.halt, meeting.epoch, __ATOMIC_SEQ_CST);
  kept = keep_parked();
  do { /* with all that are known at a halt, a list without new names is complete */
    calling = (struct calling){0};
    if (!each_thread(call_thread, &calling) || calling.full || meeting.send_error || !all_arrived(until, blocker)) {
      hr_threads_release();
      return false;
    }
  } while (calling.new_ones);
  meeting.stopped = kept + meeting.expected;
  blocker->obstacle = HR_OBSTACLE_NONE;
  return true;
}

/* Lets all go on. */
void hr_threads_release(void) {
  __atomic_store_n(&meeting.halt, 0, __ATOMIC_SEQ_CST);
  wake(&meeting.halt, INT32_MAX);
  withdraw();
}

/* Why hr_threads_halt() came to nothing though no thread was in its way. */
void hr_threads_problem(char *words, size_t size) {
  if (meeting.send_error)
    snprintf(words, size, "one of them can't be sent a signal (%s)%s", strerror(meeting.send_error),
             meeting.send_error == EAGAIN ? "; raise the limit of pending signals (ulimit -i)" : "");
  else
    snprintf(words, size, "too many are being started, or their list can't be read");
}

unsigned hr_threads_stopped(void) { return meeting.stopped; }

/* Visits the halted threads. */
bool hr_threads_visit(bool (*visit)(const struct hr_thread *thread, void *context), void *context) {
  unsigned i;

  for (i = 0; i < meeting.n; i++)
    if (present(&meeting.threads[i]) == PARKED && !visit(&meeting.threads[i], context))
      return false;
  return true;
}
