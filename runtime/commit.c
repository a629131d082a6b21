/* The moment of the change: waits for what the request asks for, then commits, all of it in one step.
 *
 * now        slots are stored while threads run; no thread is stopped.
 * quiescent  all threads are halted for a moment, but for those that sleep behind a gate, and none may be in code that
 * changes. Else they go on, and it is tried again until the deadline.
 * safepoint  every thread has come to a safepoint of the program, or sleeps in a region declared as one.
 *
 * From halt to release nothing is allocated, no lock is taken, nothing can fail: a halted thread may hold any lock of
 * the process. Two locks are taken before, so that no halted thread holds them: the commit lock, which keeps fork()
 * out, and the loader's (by way of dl_iterate_phdr), so that the unwind tables that were looked up stay where they
 * are. */
#include "internal.h"

#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MILLISECOND 1000000ull
#define FIRST_BUDGET (20 * MILLISECOND)   /* that all threads have to arrive; doubled where they need longer */
#define LONGEST_BUDGET (320 * MILLISECOND)
#define FIRST_HOLD (40 * MILLISECOND)     /* that threads stay halted until other processes are ready; doubled too */
#define LONGEST_HOLD (640 * MILLISECOND)
#define PATIENCE (20 * MILLISECOND)       /* with a process where threads come and go, before a round is given up */
#define FIRST_PAUSE_MS 1                  /* between two attempts; doubled each time */
#define LONGEST_PAUSE_MS 64
#define POLL_MODE_MS 100                  /* hotreload_poll() must not hold its thread up for longer */

uint64_t hr_now_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t cpu_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A client that gave up waiting must not be patched behind its back. */
bool hr_client_waits(const struct hr_transaction *t) {
  struct pollfd client = {.fd = t->order->client, .events = 0};

  if (!hr_fault(HR_STEP_CLIENT) && (t->order->client < 0 || poll(&client, 1, 0) == 0))
    return true;
  return hr_refuse(t->error, HR_DEADLINE, "the client went away before the commit");
}

/* ---- commit ---------------------------------------------------------------------------------------- */

/* A futex: 0 free, 1 taken, 2 taken and waited for. The C library's mutexes do without atomic operations while it may
 * assume that there is one thread (single.c). */
static uint32_t commit_lock;

bool hr_commit_trylock(void) {
  uint32_t expected = 0;

  return __atomic_compare_exchange_n(&commit_lock, &expected, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void hr_commit_lock(void) {
  if (hr_commit_trylock())
    return;
  while (__atomic_exchange_n(&commit_lock, 2, __ATOMIC_SEQ_CST))
    syscall(SYS_futex, &commit_lock, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

void hr_commit_unlock(void) {
  if (__atomic_exchange_n(&commit_lock, 0, __ATOMIC_SEQ_CST) == 2)
    syscall(SYS_futex, &commit_lock, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void hr_commit_lock_reset(void) { __atomic_store_n(&commit_lock, 0, __ATOMIC_SEQ_CST); }

/* Context: commit. Compares and stores in one step where the CPU can, so that no store of the program that
 * comes in between is lost. */
static bool merge(const struct hr_write *write) {
  void *at = (void *)write->address;

#define MERGE_AS(type) \
  if (write->size == sizeof(type) && write->address % sizeof(type) == 0) { \
    type expected, desired; \
    memcpy(&expected, write->from, sizeof expected); \
    memcpy(&desired, write->to, sizeof desired); \
    return __atomic_compare_exchange_n((type *)at, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED); \
  }
  MERGE_AS(uint64_t)
  MERGE_AS(uint32_t)
  MERGE_AS(uint16_t)
  MERGE_AS(uint8_t)
#undef MERGE_AS
  if (memcmp(at, write->from, write->size))
    return false;
  memcpy(at, write->to, write->size);
  return true;
}

/* Context: commit. No allocation, no lock, no failure. */
static void commit_writes(struct hr_candidate *c) {
  size_t i;

  for (i = 0; i < c->n_writes; i++) {
    struct hr_write *write = &c->writes[i];
    bool done = !write->compare || merge(write);

    if (!write->compare)
      memcpy((void *)write->address, write->to, write->size);
    if (done || c->revert)
      *write->applied = write->mark;
    else
      *write->applied = 0;
    c->updates_applied += done;
    c->updates_kept += !done;
  }
}

/* Context: commit. */
static void commit_moves(struct hr_candidate *c) {
  size_t i;

  for (i = 0; i < c->n_moves; i++)
    __atomic_store_n((uint64_t *)c->moves[i].slot, c->moves[i].to, __ATOMIC_RELEASE);
}

/* Context: commit. */
static void unlink_record(struct hr_record **list, const struct hr_record *record) {
  while (*list && *list != record)
    list = &(*list)->older;
  if (*list)
    *list = record->older;
}

/* Context: commit. */
static void exchange_records(struct hr_candidate *c) {
  struct hr_image *image = c->loaded.image;

  if (!c->revert) {
    if (c->mapped_before || c->comes_back)
      unlink_record(&image->reverted, c->record);
    c->record->older = image->records;
    image->records = c->record;
  }
  while (c->revert && image->records != c->down_to) {
    struct hr_record *record = image->records;

    image->records = record->older;
    record->older = image->reverted;
    image->reverted = record;
  }
}

/* Context: commit. */
static void commit_candidate(struct hr_candidate *c) {
  struct hr_image *image = c->loaded.image;

  commit_writes(c); /* before the code that relies on it */
  hr_pass(HR_STEP_HALF);
  commit_moves(c);
  exchange_records(c);
  memset(image->id, 0, HR_ID_SIZE);
  if (image->records)
    memcpy(image->id, image->records->id, HR_ID_SIZE);
  __atomic_store_n(&image->generation, image->records ? image->records->generation : 0, __ATOMIC_RELEASE);
}

/* Context: commit. */
static void commit_keep(struct hr_keep *keep) {
  struct hr_chain *chain = keep->chain;
  uint8_t *entries = chain->entries;
  size_t size = chain->size;

  if (!keep->changes)
    return;
  chain->entries = keep->entries;
  chain->size = keep->size;
  chain->generation = keep->generation;
  keep->entries = entries;
  keep->size = size;
}

/* Context: commit. Returns how many generations are new. */
static int commit_all(struct hr_transaction *t) {
  int generations = 0;
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already) {
      commit_candidate(&t->candidates[i]);
      generations++;
    }
  for (i = 0; i < t->n_keeps; i++)
    commit_keep(&t->keeps[i]);
  return generations;
}

/* What a guard takes back. Context: signal handler, with the commit lock. */
int hr_commit_back(struct hr_transaction *t) { return commit_all(t); }

/* Context: threads may be halted. */
static int timed_commit(struct hr_transaction *t, struct hr_outcome *outcome) {
  uint64_t start = hr_now_ns();
  int generations;

  hr_pass(HR_STEP_COMMIT);
  t->committed = true;
  hr_guard_begin(t);
  generations = commit_all(t);
  hr_pass(HR_STEP_COMMITTED);
  outcome->commit_us = (hr_now_ns() - start + 999) / 1000;
  return generations;
}

/* ---- one attempt at quiescence ---------------------------------------------------------------------------- */

enum result { COMMITTED, IN_THE_WAY, STALE_TABLES, OTHERS_LATE, ABANDONED, OVERTAKEN };

struct attempt {
  struct hr_transaction *t;
  struct hr_outcome *outcome;
  const struct hr_codes *codes;
  struct hr_blocker blocker;
  uint64_t budget_ns, hold_ns;
  uint32_t round; /* of the ballot */
  uint64_t round_begin_ns;
  bool was_clear; /* in some round */
  unsigned interrupted;
  bool gated; /* there is a gate for every slot that changes */
  int *generations;
  bool only_look; /* nothing is committed: whether it could be */
  enum result result;
};

/* Context: threads are halted. */
void hr_view_of(const struct hr_thread *thread, struct hr_view *view) {
  const stack_t *signal_stack = &thread->context->uc_stack;

  *view = (struct hr_view){.tid = thread->tid, .is_main = thread->tid == getpid(), .thread_pointer = thread->pointer};
  hr_take_registers(&view->registers, thread->context);
  if (!(signal_stack->ss_flags & SS_DISABLE))
    view->signal_stack = (struct hr_range){(uintptr_t)signal_stack->ss_sp,
                                           (uintptr_t)signal_stack->ss_sp + signal_stack->ss_size};
}

/* Context: threads are halted. */
static bool look_at_thread(const struct hr_thread *thread, void *context) {
  struct attempt *a = context;
  struct hr_view view;

  hr_view_of(thread, &view);
  a->interrupted += (unsigned)hr_was_in_call(&view.registers);
  return hr_stack_is_clear(a->codes, &view, &a->blocker);
}

/* Context: threads are halted, or this is the only one. In poll mode it runs on a stack of the program. */
static bool look_at_self(struct attempt *a) {
  const struct hr_view *view = hr_poller();

  return !view || hr_stack_is_clear(a->codes, view, &a->blocker);
}

/* Context: threads are halted. */
static void give_value(uintptr_t thread_pointer, const struct hr_write *write) {
  memcpy((void *)(thread_pointer - write->below), write->to, write->size);
}

/* Context: threads are halted. */
static bool give_value_to(const struct hr_thread *thread, void *context) {
  give_value(thread->pointer, context);
  return true;
}

/* New thread-locals, in all threads that run; this one is not among the halted. (The helper of construct.c runs nothing
 * of the program.) Nothing knows of them before the commit.
 * Context: threads are halted. */
static void give_values(struct hr_transaction *t) {
  unsigned i;
  size_t j;

  for (i = 0; i < t->n_candidates; i++)
    for (j = 0; j < t->candidates[i].n_writes; j++)
      if (t->candidates[i].writes[j].below) {
        hr_threads_visit(give_value_to, &t->candidates[i].writes[j]);
        give_value((uintptr_t)__builtin_thread_pointer(), &t->candidates[i].writes[j]);
      }
}

/* Shuts the gates before those asleep whom they keep out. */
static void shut_gates(struct attempt *a) {
  if (!a->gated)
    return;
  hr_gates_close(a->t);
  hr_sleepers_look_again();
  a->outcome->threads_asleep = hr_sleepers();
}

static void open_gates(struct attempt *a, uint64_t shut) {
  if (!a->gated)
    return;
  hr_gates_open(a->t);
  a->outcome->gates_us = (hr_now_ns() - shut + 999) / 1000;
}

/* Context: threads are halted. */
static enum result agree(struct attempt *a) {
  struct hr_ballot *ballot = a->t->ballot;
  enum hr_vote vote = HR_VOTE_COMMIT;

  if (ballot)
    vote = hr_ballot_vote(ballot, a->round, hr_now_ns() + a->hold_ns, a->t->order->client);
  if (vote == HR_VOTE_LATE && a->hold_ns < LONGEST_HOLD)
    a->hold_ns *= 2;
  return vote == HR_VOTE_COMMIT ? COMMITTED : vote == HR_VOTE_ABANDONED ? ABANDONED : OTHERS_LATE;
}

/* Context: both locks held. */
static void halt_and_commit(struct attempt *a) {
  uint64_t shut = hr_now_ns(), start, ready, cpu;

  shut_gates(a);
  start = hr_now_ns();
  if (!hr_threads_halt(a->budget_ns, &a->blocker)) {
    open_gates(a, shut);
    return;
  }
  a->interrupted = 0;
  hr_coroutines_begin();
  if (hr_threads_visit(look_at_thread, a) && look_at_self(a) && hr_coroutines_are_clear(a->codes, &a->blocker)) {
    a->was_clear = true;
    a->result = a->only_look ? COMMITTED : agree(a);
  }
  if (a->result == COMMITTED && !a->only_look) {
    give_values(a->t);
    *a->generations = timed_commit(a->t, a->outcome);
  }
  ready = hr_now_ns();
  cpu = cpu_ns();
  open_gates(a, shut);
  hr_threads_release();
  a->outcome->threads_stopped = hr_threads_stopped();
  a->outcome->threads_interrupted = a->interrupted;
  /* Of the release the time it took, not the time that the threads it woke kept this one from running. */
  a->outcome->pause_us = a->outcome->threads_stopped ? (ready - start + cpu_ns() - cpu + 999) / 1000 : 0;
}

static int with_loader_locked(struct dl_phdr_info *info, size_t size, void *context) {
  struct attempt *a = context;

  (void)size;
  if (hr_unwind_is_current(info))
    halt_and_commit(a);
  else
    a->result = STALE_TABLES;
  return 1;
}

/* Signals are blocked: a handler that forks must not find the lock held by the thread it runs on. */
static void try_once(struct attempt *a) {
  sigset_t all, before;

  a->result = IN_THE_WAY;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  hr_commit_lock();
  if (hr_late_is_current(a->t))
    dl_iterate_phdr(with_loader_locked, a);
  else
    a->result = OVERTAKEN;
  hr_commit_unlock();
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  a->outcome->attempts++;
}

/* ---- until the deadline ---------------------------------------------------------------------------------------- */

static bool open_all(struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!hr_open_pages(&t->candidates[i], t->error))
      return false;
  return true;
}

static bool prepare_attempt(struct attempt *a) {
  if (!open_all(a->t) || !hr_stacks_prepare(a->t->error) || !hr_unwind_prepare(a->t->error))
    return false;
  a->gated = !hr_coroutines_exist() && hr_gates_prepare(a->t); /* who is asleep may switch to one meanwhile */
  if (a->gated)
    hr_sleepers_look(a->codes);
  else
    hr_sleepers_wake();
  return true;
}

static bool close_all(struct hr_transaction *t) {
  bool done = true;
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    done &= hr_close_pages(&t->candidates[i]);
  return done;
}

/* Waits, unless the client goes away. */
bool hr_pause_between(const struct hr_transaction *t, int ms) {
  struct pollfd client = {.fd = t->order->client, .events = 0};
  int ready;

  hr_fork_allow();
  ready = poll(&client, t->order->client >= 0, ms);
  hr_fork_forbid();
  if (ready <= 0)
    return true;
  return hr_refuse(t->error, HR_DEADLINE, "the client went away before the commit");
}

static void note_blocker(struct hr_blocker *known, const struct hr_blocker *seen, uint64_t *first_seen) {
  if (known->tid != seen->tid || known->obstacle != seen->obstacle || known->function != seen->function ||
      known->stack != seen->stack)
    *first_seen = hr_now_ns();
  *known = *seen;
}

static bool is_abandoned(const struct attempt *a) {
  return a->result == ABANDONED || (a->t->ballot && hr_ballot_is_lost(a->t->ballot, a->t->order->client));
}

static void begin_round(struct attempt *a) {
  uint32_t round = a->t->ballot ? hr_ballot_round(a->t->ballot) : 0;

  if (round != a->round)
    a->round_begin_ns = hr_now_ns();
  a->round = round;
}

/* Whoever is in the way in one process keeps the threads of the others halted no longer. Only where they come and go is
 * it tried again within the round: many processes with a busy thread each are hardly ever clear at the same time. True:
 * the round goes on. */
static bool end_round(struct attempt *a) {
  if (!a->t->ballot)
    return false;
  if (a->was_clear && a->result == IN_THE_WAY && hr_ballot_round(a->t->ballot) == a->round &&
      hr_now_ns() < a->round_begin_ns + PATIENCE)
    return true;
  hr_ballot_next_round(a->t->ballot, a->round);
  return false;
}

static bool refuse_for(struct hr_error *error, const struct hr_blocker *blocker) {
  char name[32], words[256] = "";
  unsigned long long ms = blocker->since_ms;

  hr_thread_name(blocker->tid, name, sizeof name);
  error->blocker = *blocker;
  switch (blocker->obstacle) {
  case HR_OBSTACLE_CODE:
    return hr_refuse(error, HR_DEADLINE, "thread %d (%s) is in code that changes, for %llu ms now", blocker->tid,
                     name, ms);
  case HR_OBSTACLE_STALE:
    return hr_refuse(error, HR_DEADLINE,
                     "the stack of thread %d (%s) holds an address in code that changes, for %llu ms now, "
                     "and cannot be unwound to its end to tell whether it is a call", blocker->tid, name, ms);
  case HR_OBSTACLE_COROUTINE:
    return hr_refuse(error, HR_DEADLINE, "the coroutine on the stack at 0x%" PRIxPTR
                     " is in code that changes, for %llu ms now", blocker->stack, ms);
  case HR_OBSTACLE_COROUTINE_STALE:
    return hr_refuse(error, HR_DEADLINE, "the coroutine's stack at 0x%" PRIxPTR
                     " holds an address in code that changes, for %llu ms now, and it cannot be told whether it is "
                     "a call", blocker->stack, ms);
  case HR_OBSTACLE_ELSEWHERE:
    if (!blocker->tid)
      return hr_refuse(error, HR_DEADLINE, "the list of threads can't be read");
    return hr_refuse(error, HR_DEADLINE, "thread %d (%s) did not come to a safepoint", blocker->tid, name);
  default:
    if (!blocker->tid) {
      hr_threads_problem(words, sizeof words);
      return hr_refuse(error, HR_DEADLINE, "the threads could not be stopped: %s", words);
    }
    hr_thread_describe(blocker->tid, words, sizeof words);
    return hr_refuse(error, HR_DEADLINE, "thread %d (%s) could not be stopped: %s", blocker->tid, name, words);
  }
}

/* Whoever was in the way here is named, also where another process gave up first. */
static bool give_up(const struct attempt *a, const struct hr_blocker *known) {
  bool abandoned = is_abandoned(a);

  if (a->t->ballot && known->obstacle == HR_OBSTACLE_NONE)
    return hr_ballot_refuse(a->t->error, !abandoned);
  refuse_for(a->t->error, known);
  if (abandoned && hr_now_ns() < a->t->deadline_ns)
    a->t->error->code = HR_ABANDONED_BY_OTHERS;
  return false;
}

uint64_t hr_deadline_of(const struct hr_transaction *t) {
  uint64_t ms = t->order->request->timeout_ms;

  if (hr_poller() && ms > POLL_MODE_MS)
    ms = POLL_MODE_MS;
  return hr_now_ns() + ms * MILLISECOND;
}

static bool retry_until_deadline(struct attempt *a) {
  uint64_t deadline = a->t->deadline_ns, first_seen = hr_now_ns(), now;
  struct hr_blocker known = {.obstacle = HR_OBSTACLE_NONE};
  uint64_t budget = FIRST_BUDGET;
  int pause_ms = FIRST_PAUSE_MS;
  bool goes_on;

  for (a->hold_ns = FIRST_HOLD;;) {
    if (!prepare_attempt(a))
      return false;
    begin_round(a);
    now = hr_now_ns();
    a->budget_ns = now + budget < deadline || budget == FIRST_BUDGET ? budget : FIRST_BUDGET;
    try_once(a);
    if (a->result == COMMITTED || a->result == OVERTAKEN)
      return a->result == COMMITTED;
    goes_on = end_round(a);
    if (a->result == IN_THE_WAY)
      note_blocker(&known, &a->blocker, &first_seen);
    now = hr_now_ns();
    if (a->result == OTHERS_LATE)
      known.obstacle = HR_OBSTACLE_NONE;
    known.since_ms = (now - first_seen) / MILLISECOND;
    if (now >= deadline || is_abandoned(a))
      return give_up(a, &known);
    close_all(a->t); /* not writable while we wait */
    if (!hr_pause_between(a->t, goes_on ? FIRST_PAUSE_MS : pause_ms))
      return false;
    pause_ms = pause_ms < LONGEST_PAUSE_MS && !goes_on ? 2 * pause_ms : pause_ms;
    if (known.obstacle == HR_OBSTACLE_DEAF && budget < LONGEST_BUDGET)
      budget *= 2;
  }
}

/* ---- the three ways ------------------------------------------------------------------------------------------- */

static bool changes_anything(const struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (t->candidates[i].n_moves || t->candidates[i].n_writes)
      return true;
  return false;
}

/* New functions and data alone become reachable by nobody: there is nothing to wait for. */
static bool bring_in_quiescent(struct hr_transaction *t, struct hr_outcome *outcome, int *generations) {
  struct hr_codes codes = {0};
  struct attempt a = {.t = t, .outcome = outcome, .codes = &codes, .generations = generations};
  bool done = hr_codes_find(t, &codes) && hr_threads_prepare(t->error) && hr_threads_unconfined(t->error);

  a.only_look = hr_brings_objects(t); /* before code of the program runs for a patch that then cannot go in */
  done = done && (!a.only_look || retry_until_deadline(&a));
  done = done && hr_construct(t, t->deadline_ns);
  a.only_look = false;
  done = done && retry_until_deadline(&a);
  outcome->stacks_checked = done;
  hr_sleepers_wake(); /* what was found holds for these codes and these gates only */
  hr_stacks_finish();
  hr_threads_finish();
  hr_memory_free(codes.code, codes.capacity * sizeof *codes.code);
  return done;
}

/* What the other processes say, if there are any. While they are waited for no library can be loaded that this process
 * would have to take along, and no child be made: a moment at a time. Context: the commit lock is held. */
static enum hr_vote vote_now(struct hr_transaction *t, uint64_t hold_ns) {
  uint64_t until = hr_now_ns() + hold_ns;

  if (!t->ballot)
    return HR_VOTE_COMMIT;
  return hr_ballot_vote(t->ballot, hr_ballot_round(t->ballot), until < t->deadline_ns ? until : t->deadline_ns,
                        t->order->client);
}

/* False: libraries came meanwhile, and nothing was voted. */
static bool try_now(struct hr_transaction *t, struct hr_outcome *outcome, int *generations, uint64_t hold_ns,
                    enum hr_vote *vote) {
  sigset_t all, before;
  bool current;

  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  hr_commit_lock();
  current = hr_late_is_current(t);
  if (current)
    *vote = vote_now(t, hold_ns);
  if (current && *vote == HR_VOTE_COMMIT)
    *generations = timed_commit(t, outcome);
  hr_commit_unlock();
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return current;
}

static bool bring_in_now(struct hr_transaction *t, struct hr_outcome *outcome, int *generations) {
  uint64_t hold_ns = FIRST_HOLD;
  enum hr_vote vote;
  bool late = false;

  if (t->ballot && !open_all(t))
    return false;
  do {
    if (!try_now(t, outcome, generations, hold_ns, &vote))
      return false;
    late = vote == HR_VOTE_LATE && hr_now_ns() >= t->deadline_ns;
    hold_ns = hold_ns < LONGEST_HOLD ? 2 * hold_ns : hold_ns;
  } while (vote == HR_VOTE_ANEW || (vote == HR_VOTE_LATE && !late));
  if (late)
    hr_ballot_abandon(t->ballot);
  return vote == HR_VOTE_COMMIT || hr_ballot_refuse(t->error, late);
}

/* For an image that is being loaded: no thread is in its code. */
bool hr_commit_alone(struct hr_transaction *t) {
  struct hr_outcome outcome;
  int generations;
  bool done = bring_in_now(t, &outcome, &generations);

  return close_all(t) && done;
}

static bool bring_in_at_safepoints(struct hr_transaction *t, struct hr_outcome *outcome, int *generations) {
  struct hr_blocker blocker;
  uint64_t start = hr_now_ns();
  bool met, done = false;

  if (!hr_construct(t, t->deadline_ns) || !hr_threads_prepare(t->error))
    return false;
  hr_fork_allow();
  met = hr_safepoints_gather(t->deadline_ns, t->order->client, &blocker);
  hr_fork_forbid();
  blocker.since_ms = (hr_now_ns() - start) / MILLISECOND;
  if (met)
    done = bring_in_now(t, outcome, generations);
  hr_safepoints_release();
  outcome->threads_stopped = hr_safepoints_waited();
  outcome->pause_us = (hr_now_ns() - hr_safepoints_since()) / 1000;
  if (!met && hr_pause_between(t, 0))
    refuse_for(t->error, &blocker);
  hr_threads_finish();
  return done;
}

/* Not while a crash in the new code takes it back: that needs the pages open. */
static bool close_alone(struct hr_transaction *t) {
  bool done;

  hr_commit_lock();
  done = close_all(t);
  hr_commit_unlock();
  return done;
}

/* Until all the processes that take it together are prepared, and hooks have said yes. */
static bool wait_for_others(struct hr_transaction *t) {
  if (!t->ballot)
    return true;
  close_all(t);
  return hr_ballot_prepared(t);
}

/* Under quiescence nobody was in what the new generations took out of use, nor can anybody come back to it. */
static void note_settled(struct hr_transaction *t, bool checked) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already && !t->candidates[i].revert)
      t->candidates[i].record->settled = checked;
}

/* Waits for the moment, commits, and closes the pages again. False: nothing was changed, and t->error says why. */
bool hr_commit(struct hr_transaction *t, struct hr_outcome *outcome, int *generations) {
  uint32_t when = t->order->request->when;
  bool done;

  if (when > HR_WHEN_SAFEPOINT)
    return hr_refuse(t->error, HR_BAD_REQUEST, "there is no consistency %u", when);
  if (when != HR_WHEN_QUIESCENT && hr_sets_threads(t))
    return hr_refuse(t->error, HR_UNSUPPORTED,
                     "a new thread-local has an initial value, which threads that run can take only while they are "
                     "halted: ask for --when quiescent");
  t->deadline_ns = hr_deadline_of(t);
  if (!hr_hooks_before(t) || !hr_client_waits(t) || !hr_guard_prepare(t) || !wait_for_others(t)) {
    hr_guard_end();
    return false;
  }
  if (when == HR_WHEN_NOW || !changes_anything(t))
    done = hr_construct(t, t->deadline_ns) && bring_in_now(t, outcome, generations);
  else if (when == HR_WHEN_QUIESCENT)
    done = bring_in_quiescent(t, outcome, generations);
  else
    done = bring_in_at_safepoints(t, outcome, generations);
  outcome->protections_restored = close_alone(t);
  if (done) {
    note_settled(t, outcome->stacks_checked);
    hr_hooks_after(t);
  } else {
    hr_guard_end();
  }
  return done;
}
