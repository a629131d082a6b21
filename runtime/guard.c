/* A patch on probation: for a while after the commit, a fatal signal of a thread that has the new code on its stack
 * takes the patch back.
 *
 * What takes it back is planned and its handlers are installed before the commit, since new code may crash the moment
 * it can be called. The handler runs on the thread that crashed: it reads that thread's stack, stores the old slots
 * (as `--when now` does: no other thread is stopped), writes the report, and then resumes at the recovery safepoint
 * that the thread declared, or lets the signal take the course it would have taken without us. The report is a mapped
 * file: it outlives the process, and writing it needs neither a descriptor nor a path, which a process may lose.
 *
 * Handlers are installed only while a guard is on. A program that installs its own meanwhile has it its way. One that
 * calls ours afterwards, because it was there before its own, reaches what was there before ours: hence the layers. */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LAYERS 4              /* handlers of a program, one above the other, that a signal was watched below */
#define REPORT_SIZE (16u << 10)
#define TURN_NS 1000000000ull /* that threads which crash at the same time wait for each other */
#define FORK_NS 200000000ull  /* that a crash waits for a fork under way */
#define END_NS 5000000000ull  /* that the agent waits for a handler at work */
#define RESTORER 0x04000000ul /* SA_RESTORER, asm/signal.h */

static const int watched[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
#define N_WATCHED (sizeof watched / sizeof *watched)

enum state { OFF, WAITING /* for the commit */, ARMED, FIRED };

static struct {
  uint32_t state;
  int32_t busy; /* the thread that uses what follows, and the runtime's one unwinder; 0: none */
  uint64_t until_ns;
  const struct hr_transaction *of; /* while it is WAITING */
  struct hr_transaction *plan;     /* what takes the patch back */
  struct hr_codes codes;           /* the new code */
  struct hr_kernel_action former[LAYERS][N_WATCHED]; /* what handlers of a layer pass on to; kept for good */
  bool used[LAYERS][N_WATCHED];
  struct hr_guard_report report;
  char *file; /* REPORT_SIZE bytes, mapped; kept until the next guard */
  char text[sizeof(struct hr_reply) + REPORT_SIZE]; /* what it should hold, behind the reply that nobody gets */
  size_t text_size;
  char path[HR_PATH_MAX];
  jmp_buf escape; /* out of reading what turned out to be unreadable */
  volatile bool may_escape;
  volatile enum hr_trace trace;
  uintptr_t hit;
} guard;

static uint32_t state(void) { return __atomic_load_n(&guard.state, __ATOMIC_SEQ_CST); }

static pid_t own_tid(void) { return (pid_t)syscall(SYS_gettid); }

/* Context: also signal handlers. */
static bool take_turn(pid_t tid, uint64_t longest_ns) {
  uint64_t until = hr_now_ns() + longest_ns;
  int32_t none = 0;

  while (!__atomic_compare_exchange_n(&guard.busy, &none, tid, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    if (none == tid || hr_now_ns() > until)
      return false;
    none = 0;
    sched_yield();
  }
  return true;
}

static void end_turn(void) { __atomic_store_n(&guard.busy, 0, __ATOMIC_SEQ_CST); }

/* ---- the report ----------------------------------------------------------------------------------------- */

static uint64_t wall_ms(void) {
  struct timespec now;

  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* By the kernel: if somebody cut the file, that is an error here, and touching the page a SIGBUS.
 * Context: also signal handlers. */
static bool copy_out(void) {
  struct iovec from = {guard.text + sizeof(struct hr_reply), REPORT_SIZE}, to = {guard.file, REPORT_SIZE};

  return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == REPORT_SIZE;
}

/* Context: also signal handlers, with the turn. */
static void write_report(const char *word) {
  struct hr_text text = {.data = guard.text, .size = sizeof(struct hr_reply), .capacity = sizeof guard.text - 1};

  guard.report.state = word;
  guard.report.plan = guard.plan;
  hr_report_guard(&text, &guard.report);
  guard.text_size = text.size - sizeof(struct hr_reply);
  memset(guard.text + text.size, ' ', sizeof guard.text - text.size); /* JSON may end in white space */
  guard.text[sizeof guard.text - 1] = '\n';
  copy_out();
}

static void unmap_report(void) {
  if (guard.file)
    munmap(guard.file, REPORT_SIZE);
  guard.file = NULL;
}

/* A new file each time: who has the old one open reads the old one to its end. Written, not extended: a full disk
 * shows here, and not when the page is touched. */
static bool make_report(struct hr_error *error) {
  static const char blank[REPORT_SIZE] = "{}";
  void *at = MAP_FAILED;
  int file = -1;

  if (hr_agent_path(guard.path, ".guard")) {
    unlink(guard.path);
    file = open(guard.path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  }
  if (!hr_fault(HR_STEP_GUARD) && file >= 0 && write(file, blank, sizeof blank) == (ssize_t)sizeof blank)
    at = mmap(NULL, REPORT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  guard.file = at == MAP_FAILED ? NULL : at;
  guard.text_size = 0;
  memset(guard.text, ' ', sizeof guard.text);
  if (guard.file && !copy_out())
    unmap_report();
  if (!guard.file)
    hr_refuse(error, HR_NO_MEMORY, "the report file of the guard, %s, can't be made: %s", guard.path, strerror(errno));
  if (file >= 0)
    close(file);
  if (!guard.file && file >= 0)
    unlink(guard.path);
  if (guard.file)
    madvise(guard.file, REPORT_SIZE, MADV_DONTFORK);
  return guard.file != NULL;
}

/* ---- handlers --------------------------------------------------------------------------------------------- */

static void on_fault(unsigned layer, int number, siginfo_t *info, void *context);

#define HANDLER(layer) \
  static void on_fault_##layer(int number, siginfo_t *info, void *context) { on_fault(layer, number, info, context); }
HANDLER(0)
HANDLER(1)
HANDLER(2)
HANDLER(3)
#undef HANDLER

static void (*const handlers[LAYERS])(int, siginfo_t *, void *) = {on_fault_0, on_fault_1, on_fault_2, on_fault_3};

static bool read_action(int number, struct hr_kernel_action *now) {
  return !syscall(SYS_rt_sigaction, number, NULL, now, sizeof now->mask);
}

static bool set_action(int number, const struct hr_kernel_action *action) {
  return !syscall(SYS_rt_sigaction, number, action, NULL, sizeof action->mask);
}

/* LAYERS: it is not ours. */
static unsigned layer_of(const struct hr_kernel_action *action) {
  unsigned layer;

  for (layer = 0; layer < LAYERS && action->handler != handlers[layer]; layer++)
    ;
  return layer;
}

static bool is_function(const struct hr_kernel_action *action) {
  return (uintptr_t)action->handler > (uintptr_t)SIG_IGN;
}

/* As the one it stands before: on the same stack, with the same signals blocked. */
static struct hr_kernel_action in_front_of(const struct hr_kernel_action *former, unsigned layer) {
  struct hr_kernel_action mine = {.handler = handlers[layer], .restorer = hr_restore_context,
                                  .flags = SA_ONSTACK | SA_RESTART | SA_SIGINFO | RESTORER};

  if (is_function(former)) {
    mine.flags = (former->flags & ~(unsigned long)SA_RESETHAND) | SA_SIGINFO | RESTORER;
    mine.mask = former->mask;
  }
  return mine;
}

/* A layer that passes on to the very action that is there, else a fresh one: a handler of the program that calls one
 * of ours, as what was there before, must not come back to itself. */
static unsigned find_layer(size_t i, const struct hr_kernel_action *now) {
  unsigned layer;

  for (layer = 0; layer < LAYERS; layer++)
    if (!guard.used[layer][i] || !memcmp(&guard.former[layer][i], now, sizeof *now))
      break;
  return layer;
}

/* False: the kernel refused, or all layers are used up. */
static bool watch(size_t i) {
  struct hr_kernel_action now, mine;
  unsigned layer;

  if (!read_action(watched[i], &now))
    return false;
  if (layer_of(&now) < LAYERS)
    return true;
  layer = find_layer(i, &now);
  if (layer == LAYERS)
    return false;
  guard.former[layer][i] = now;
  guard.used[layer][i] = true;
  mine = in_front_of(&now, layer);
  return set_action(watched[i], &mine);
}

/* Only where ours still is installed: else the program has its own now. */
static void unwatch_all(void) {
  struct hr_kernel_action now;
  size_t i;

  for (i = 0; i < N_WATCHED; i++)
    if (read_action(watched[i], &now) && layer_of(&now) < LAYERS)
      set_action(watched[i], &guard.former[layer_of(&now)][i]);
}

static bool watch_all(struct hr_error *error) {
  size_t i;

  for (i = 0; i < N_WATCHED; i++)
    if (!watch(i)) {
      unwatch_all();
      return hr_refuse(error, HR_UNSUPPORTED,
                       "no guard can be set: signal %d can't be watched, the program has changed its handler too often "
                       "or may not change it at all", watched[i]);
    }
  return true;
}

/* ---- what takes the patch back ------------------------------------------------------------------------------- */

static bool invert(struct hr_candidate *back, const struct hr_candidate *c) {
  size_t i;

  *back = *c;
  back->handle = NULL;
  back->revert = true;
  back->down_to = c->loaded.image->records;
  back->loaded.name = back->name;
  back->opened = hr_memory(c->max_opened * sizeof *back->opened);
  back->moves = hr_memory(c->max_moves * sizeof *back->moves);
  back->writes = hr_memory(c->max_writes * sizeof *back->writes);
  if (!back->opened || !back->moves || !back->writes)
    return false;
  memcpy(back->opened, c->opened, c->n_opened * sizeof *back->opened);
  for (i = 0; i < c->n_opened; i++)
    back->opened[i].open = false;
  for (i = 0; i < c->n_moves; i++)
    back->moves[i] = (struct hr_move){c->moves[i].slot, c->moves[i].to, c->moves[i].from};
  back->n_writes = 0;
  for (i = c->n_writes; i-- > 0;) { /* what was written last goes first */
    const struct hr_write *write = &c->writes[i];

    if (!write->below) /* as in a revert: threads keep their thread-locals */
      back->writes[back->n_writes++] = (struct hr_write){write->address, write->to, write->from, write->size, true, 0,
                                                         write->applied, 0};
  }
  if (!c->loaded.is_main) /* so that it stays loaded */
    back->handle = dlopen(c->name, RTLD_LAZY | RTLD_NOLOAD);
  return c->loaded.is_main || back->handle;
}

static void list_code(const struct hr_candidate *c) {
  const struct hr_record *record = c->record;
  uint32_t i;

  for (i = 0; i < record->n_segments; i++)
    if (record->segments[i].prot & PROT_EXEC) {
      const struct hr_range at = record->segments[i].at;

      guard.codes.code[guard.codes.n++] = (struct hr_old_code){at, at.start, c->loaded.image};
    }
}

static bool make_plan(const struct hr_transaction *t, struct hr_error *error) {
  struct hr_candidate *back;
  unsigned i;

  guard.codes = (struct hr_codes){.capacity = (size_t)t->n_candidates * HR_MAX_SEGMENTS};
  guard.codes.code = hr_memory(guard.codes.capacity * sizeof *guard.codes.code);
  guard.plan = hr_memory(sizeof *guard.plan);
  if (!guard.codes.code || !guard.plan)
    return hr_refuse(error, HR_NO_MEMORY, "no memory to plan what a guard takes back");
  for (i = 0; i < t->n_candidates; i++) {
    if (t->candidates[i].already)
      continue;
    back = &guard.plan->candidates[guard.plan->n_candidates++];
    if (!invert(back, &t->candidates[i]))
      return hr_refuse(error, HR_NO_MEMORY, "no memory to plan what a guard takes back");
    list_code(back);
  }
  hr_codes_sort(&guard.codes);
  return hr_late_invert(guard.plan, t) || hr_refuse(error, HR_NO_MEMORY, "no memory to plan what a guard takes back");
}

static void free_plan(void) {
  unsigned i;

  for (i = 0; guard.plan && i < guard.plan->n_candidates; i++) {
    hr_close_pages(&guard.plan->candidates[i]); /* what could not be closed at the crash */
    hr_plan_free(&guard.plan->candidates[i]);
    if (guard.plan->candidates[i].handle)
      dlclose(guard.plan->candidates[i].handle);
  }
  if (guard.plan)
    hr_late_free(guard.plan);
  hr_memory_free(guard.plan, sizeof *guard.plan);
  hr_memory_free(guard.codes.code, guard.codes.capacity * sizeof *guard.codes.code);
  guard.plan = NULL;
  guard.codes = (struct hr_codes){0};
}

/* Contents that the program did not take over, or has changed since, stay. */
static void drop_unapplied(struct hr_candidate *c) {
  size_t i, n = 0;

  for (i = 0; i < c->n_writes; i++)
    if (*c->writes[i].applied)
      c->writes[n++] = c->writes[i];
  c->n_writes = n;
}

/* Not if a library took the patch since, by being loaded: it would keep it. Context: signal handler, with the turn and
 * the commit lock. */
static bool revert(struct hr_error *error) {
  bool done;
  unsigned i;

  guard.plan->error = error;
  done = hr_late_is_current(guard.plan);
  for (i = 0; i < guard.plan->n_candidates && done; i++)
    done = hr_open_pages(&guard.plan->candidates[i], error);
  for (i = 0; i < guard.plan->n_candidates && done; i++)
    drop_unapplied(&guard.plan->candidates[i]);
  if (done)
    hr_commit_back(guard.plan);
  for (i = 0; i < guard.plan->n_candidates; i++)
    hr_close_pages(&guard.plan->candidates[i]);
  return done;
}

/* ---- a crash --------------------------------------------------------------------------------------------------- */

/* Signals other than those that reading the stack may raise itself. Context: signal handler. */
static void block_others(uint64_t *before) {
  uint64_t most = ~(1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1));

  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &most, before, sizeof most);
}

/* Whether the new code is on this thread's stack. *perhaps: it could not be unwound, and holds an address in there.
 * Context: signal handler, with the turn and the commit lock. */
static bool find_new_code(pid_t tid, const ucontext_t *context, bool *perhaps) {
  struct hr_view view = {.tid = tid, .is_main = tid == getpid(),
                         .thread_pointer = (uintptr_t)__builtin_thread_pointer()};

  hr_take_registers(&view.registers, context);
  if (!(context->uc_stack.ss_flags & SS_DISABLE))
    view.signal_stack = (struct hr_range){(uintptr_t)context->uc_stack.ss_sp,
                                          (uintptr_t)context->uc_stack.ss_sp + context->uc_stack.ss_size};
  guard.hit = 0;
  guard.trace = HR_TRACE_UNSURE;
  guard.may_escape = true;
  if (!setjmp(guard.escape))
    guard.trace = hr_stack_blame(&guard.codes, &view, &guard.hit);
  guard.may_escape = false;
  *perhaps = guard.trace == HR_TRACE_UNSURE;
  return guard.hit && guard.trace != HR_TRACE_CLEAR;
}

/* Context: signal handler, with the turn and the commit lock. */
static void fire(pid_t tid, int number, const siginfo_t *info, bool perhaps, bool resumes) {
  struct hr_error error = {.code = HR_OK};
  const struct hr_old_code *code = hr_code_at(&guard.codes, guard.hit);

  guard.report.signal = number;
  guard.report.signal_code = info->si_code;
  guard.report.tid = tid;
  guard.report.fault = info->si_code > 0 ? (uintptr_t)info->si_addr : 0;
  guard.report.hit = guard.hit;
  guard.report.image = code ? code->image : NULL;
  guard.report.certain = !perhaps;
  guard.report.resumed = resumes;
  guard.report.at_ms = wall_ms();
  hr_thread_name(tid, guard.report.thread, sizeof guard.report.thread);
  guard.report.reverted = revert(&error);
  strcpy(guard.report.problem, error.code == HR_OK ? "" : error.detail);
  write_report("fired");
  __atomic_store_n(&guard.state, FIRED, __ATOMIC_SEQ_CST);
}

/* Where this thread goes on, if it has declared a place and that is further up on this stack. A thread that is inside
 * hotreload_poll() holds locks of ours. */
static struct hotreload_recovery *way_out(pid_t tid, const ucontext_t *context) {
  struct hotreload_recovery *place = hr_recovery_of(tid);
  struct hr_registers registers;

  hr_take_registers(&registers, context);
  if (!place || (hr_poller() && hr_poller()->tid == tid))
    return NULL;
  return place->stack >= registers.r[HR_REGISTER_SP] && hr_same_map(place->stack, registers.r[HR_REGISTER_SP]) ? place
                                                                                                         : NULL;
}

/* Context: signal handler, with the turn and the commit lock. */
static struct hotreload_recovery *examine(pid_t tid, int number, const siginfo_t *info, const ucontext_t *context) {
  struct hotreload_recovery *place;
  bool perhaps;

  if (state() < ARMED || !find_new_code(tid, context, &perhaps))
    return NULL;
  place = way_out(tid, context);
  if (state() == ARMED)
    fire(tid, number, info, perhaps, place != NULL);
  if (place)
    place->signal = number;
  return place;
}

/* The lock also is held while a commit or a fork is under way; the thread that crashed may be the one that forks. */
static bool lock_commit(void) {
  uint64_t until = hr_now_ns() + FORK_NS;

  while (!hr_commit_trylock()) {
    if (hr_now_ns() > until)
      return false;
    sched_yield();
  }
  return true;
}

/* Context: signal handler. */
static struct hotreload_recovery *judge(int number, const siginfo_t *info, const ucontext_t *context) {
  struct hotreload_recovery *place = NULL;
  pid_t tid = own_tid();
  uint64_t mask;

  if (__atomic_load_n(&guard.busy, __ATOMIC_SEQ_CST) == tid) {
    if (guard.may_escape)
      longjmp(guard.escape, 1);
    return NULL;
  }
  if (!take_turn(tid, TURN_NS))
    return NULL;
  if (lock_commit()) {
    block_others(&mask);
    place = examine(tid, number, info, context);
    hr_commit_unlock();
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
  }
  end_turn();
  return place;
}

/* What the kernel would have done: by doing it. The signal comes once more, with all that it said. */
static void take_default_course(int number, siginfo_t *info) {
  struct hr_kernel_action none = {.handler = NULL};

  set_action(number, &none);
  syscall(SYS_rt_tgsigqueueinfo, getpid(), own_tid(), number, info);
}

/* Context: signal handler. */
static void pass_on(unsigned layer, int number, siginfo_t *info, void *context) {
  const struct hr_kernel_action *former;
  struct hr_kernel_action none = {.handler = NULL};
  size_t i = 0;

  while (i + 1 < N_WATCHED && watched[i] != number)
    i++;
  former = &guard.former[layer][i];
  if (is_function(former)) {
    if (former->flags & (unsigned long)SA_RESETHAND)
      set_action(number, &none);
    former->handler(number, info, context);
  } else if ((uintptr_t)former->handler != (uintptr_t)SIG_IGN || info->si_code > 0) {
    take_default_course(number, info); /* the kernel ignores no fault */
  }
}

/* A thread's own doing: the kernel's, or abort() and raise(). What others send says nothing about the code it met. */
static bool is_own_fault(const siginfo_t *info) { return info->si_code > 0 || info->si_pid == getpid(); }

static void on_fault(unsigned layer, int number, siginfo_t *info, void *context) {
  struct hotreload_recovery *place = NULL;
  int error = errno;

  if (state() >= ARMED && is_own_fault(info) && hr_now_ns() < guard.until_ns)
    place = judge(number, info, context);
  errno = error;
  if (place)
    longjmp(place->at, 1);
  pass_on(layer, number, info, context);
}

/* ---- from outside ------------------------------------------------------------------------------------------------ */

/* Readies a guard for what `t` is about to commit; without a request for one, nothing. May allocate and fail. */
bool hr_guard_prepare(const struct hr_transaction *t) {
  uint64_t ms = t->order->request->guard_ms;
  bool done;

  if (!ms)
    return true;
  memset(&guard.report, 0, sizeof guard.report);
  unmap_report();
  done = make_plan(t, t->error) && make_report(t->error) && hr_stacks_prepare(t->error) &&
         hr_unwind_prepare(t->error) && watch_all(t->error);
  hr_stacks_finish();
  if (!done) {
    hr_guard_end();
    return false;
  }
  guard.of = t;
  __atomic_store_n(&guard.state, WAITING, __ATOMIC_SEQ_CST);
  return true;
}

/* Just before the commit. Context: threads may be halted. */
void hr_guard_begin(const struct hr_transaction *t) {
  uint64_t ms;

  if (state() != WAITING || guard.of != t)
    return;
  ms = t->order->request->guard_ms;
  guard.of = NULL;
  guard.until_ns = hr_now_ns() + ms * 1000000;
  guard.report.begun_ms = wall_ms();
  guard.report.ends_ms = guard.report.begun_ms + ms;
  write_report("armed");
  __atomic_store_n(&guard.state, ARMED, __ATOMIC_SEQ_CST);
}

/* Ends what there is of a guard: handlers are what they were. False: a handler is at work and does not finish. */
bool hr_guard_end(void) {
  uint32_t was = state();

  if (was == OFF && !guard.plan && !guard.codes.code)
    return true;
  if (!take_turn(own_tid(), END_NS))
    return false;
  was = state();
  __atomic_store_n(&guard.state, OFF, __ATOMIC_SEQ_CST);
  unwatch_all();
  if (was == ARMED)
    write_report(hr_now_ns() >= guard.until_ns ? "passed" : "ended");
  if (was < ARMED && guard.file) {
    unlink(guard.path);
    unmap_report();
    guard.text_size = 0;
  }
  guard.report.plan = NULL;
  end_turn();
  free_plan();
  return true;
}

/* Ends a guard whose time is over. */
void hr_guard_tick(void) {
  if (state() >= ARMED && hr_now_ns() >= guard.until_ns)
    hr_guard_end();
}

/* Milliseconds until a guard has to be ended; -1: there is none. */
int hr_guard_left_ms(void) {
  uint64_t now = hr_now_ns();

  if (state() < ARMED)
    return -1;
  return now >= guard.until_ns ? 0 : (int)((guard.until_ns - now) / 1000000 + 1);
}

/* What the last guard has to say, as JSON of *size bytes; null: there was none. */
const char *hr_guard_text(size_t *size) {
  static char copy[REPORT_SIZE];

  if (!guard.text_size || !take_turn(own_tid(), TURN_NS))
    return NULL;
  *size = guard.text_size;
  memcpy(copy, guard.text + sizeof(struct hr_reply), *size);
  end_turn();
  return copy;
}

bool hr_guard_is_on(void) { return state() == ARMED || state() == FIRED; }

/* The process ends by itself: only a report of a crash is worth keeping. */
void hr_guard_leave(void) {
  if (guard.file && guard.report.state && strcmp(guard.report.state, "fired"))
    unlink(guard.path);
}

/* Context: the child of a fork, which has no guard; the report is its parent's. */
void hr_guard_forget(void) {
  if (state() != OFF)
    unwatch_all();
  guard.state = OFF;
  guard.busy = 0;
  guard.file = NULL;
  guard.text_size = 0;
  guard.plan = NULL; /* what it holds may be in use by a thread that is not here */
  guard.codes = (struct hr_codes){0};
}
