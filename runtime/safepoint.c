/* Threads that come to a safepoint by themselves, and threads that declared that they only sleep.
 *
 * Each thread has an entry in a table, by its id. While a patch waits, a thread that reaches a safepoint stays there;
 * one that leaves a declared region stays at its end. Order matters: the agent first announces the patch, then reads
 * entries; a thread first writes its entry, then reads the announcement. So one of the two always sees the other. */
#include "internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES 8192        /* threads that have ever used safepoints at the same time; a power of two */
#define LEFT_BEHIND (-1)    /* the entry of a thread that ended */
#define SLICE_NS 5000000    /* a client that leaves, and threads that end, are noticed after this */

enum place { RUNNING, AT_SAFEPOINT, IN_REGION };

struct entry {
  int32_t tid;
  uint32_t place;
  struct hotreload_recovery *recovery; /* where the thread goes on after a crash, or null */
};

static struct entry entries[ENTRIES];
static uint32_t wanted;  /* not 0 while a patch waits; a futex */
static uint32_t changes; /* of places, while a patch waits; a futex */
static uint32_t rounds;
static uint64_t since_ns;
static unsigned waited;
static pthread_key_t key;
static bool have_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void wait_while(uint32_t *word, uint32_t value, const struct timespec *longest) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, longest, NULL, 0);
}

static void wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0); }

/* ---- in the program's threads ------------------------------------------------------------------------------ */

/* A thread may end inside a region, by cancellation; its id will be another thread's one day. */
static void end_of_thread(void *value) {
  struct entry *entry = value;

  __atomic_store_n(&entry->recovery, NULL, __ATOMIC_SEQ_CST);
  __atomic_store_n(&entry->place, RUNNING, __ATOMIC_SEQ_CST);
  __atomic_store_n(&entry->tid, LEFT_BEHIND, __ATOMIC_SEQ_CST);
}

static void make_key(void) { have_key = !pthread_key_create(&key, end_of_thread); }

static struct entry *new_entry(int32_t tid) {
  unsigned i, at;

  for (i = 0, at = (unsigned)tid; i < ENTRIES; i++, at++) {
    struct entry *entry = &entries[at % ENTRIES];
    int32_t owner = __atomic_load_n(&entry->tid, __ATOMIC_RELAXED);

    if ((owner == 0 || owner == LEFT_BEHIND) &&
        __atomic_compare_exchange_n(&entry->tid, &owner, tid, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return entry;
  }
  return NULL;
}

/* Of the calling thread; null: no room, so that it counts as running for ever. */
static struct entry *own_entry(void) {
  struct entry *entry;

  pthread_once(&once, make_key);
  entry = have_key ? pthread_getspecific(key) : NULL;
  if (entry || !have_key)
    return entry;
  entry = new_entry((int32_t)syscall(SYS_gettid));
  if (entry && pthread_setspecific(key, entry)) {
    end_of_thread(entry);
    return NULL;
  }
  return entry;
}

static void move_to(struct entry *entry, enum place place) {
  __atomic_store_n(&entry->place, place, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n(&wanted, __ATOMIC_SEQ_CST))
    return;
  __atomic_add_fetch(&changes, 1, __ATOMIC_SEQ_CST);
  wake(&changes);
}

/* Stays as long as a patch waits. */
static void rest(struct entry *entry) {
  uint32_t round;

  do {
    if (__atomic_load_n(&wanted, __ATOMIC_SEQ_CST))
      move_to(entry, AT_SAFEPOINT);
    while ((round = __atomic_load_n(&wanted, __ATOMIC_SEQ_CST)))
      wait_while(&wanted, round, NULL);
    __atomic_store_n(&entry->place, RUNNING, __ATOMIC_SEQ_CST);
  } while (__atomic_load_n(&wanted, __ATOMIC_SEQ_CST));
}

void hr_safepoint(void) {
  int error = errno;
  struct entry *entry = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE) ? own_entry() : NULL;

  if (entry)
    rest(entry);
  errno = error;
}

void hr_blocked(int begins) {
  int error = errno;
  struct entry *entry = own_entry();

  if (entry && begins)
    move_to(entry, IN_REGION);
  else if (entry)
    rest(entry);
  errno = error;
}

/* Null takes it back. */
void hr_recovery(struct hotreload_recovery *place) {
  int error = errno;
  struct entry *entry = own_entry();

  if (entry)
    __atomic_store_n(&entry->recovery, place, __ATOMIC_SEQ_CST);
  errno = error;
}

/* ---- in the agent ------------------------------------------------------------------------------------------------ */

struct pass { /* over all threads */
  unsigned n, at_safepoint;
  uint64_t sum; /* tells one set of threads from another */
  pid_t missing;
};

static struct entry *entry_of(pid_t tid) {
  unsigned i, at;

  for (i = 0, at = (unsigned)tid; i < ENTRIES; i++, at++) {
    struct entry *entry = &entries[at % ENTRIES];
    int32_t owner = __atomic_load_n(&entry->tid, __ATOMIC_SEQ_CST);

    if (owner == tid)
      return entry;
    if (!owner)
      break;
  }
  return NULL;
}

static enum place place_of(pid_t tid) {
  const struct entry *entry = entry_of(tid);

  return entry ? (enum place)__atomic_load_n(&entry->place, __ATOMIC_SEQ_CST) : RUNNING;
}

/* Context: also signal handlers. */
struct hotreload_recovery *hr_recovery_of(pid_t tid) {
  const struct entry *entry = entry_of(tid);

  return entry ? __atomic_load_n(&entry->recovery, __ATOMIC_SEQ_CST) : NULL;
}

static bool look(pid_t tid, void *context) {
  struct pass *pass = context;
  enum place place = place_of(tid);

  if (place == RUNNING && hr_thread_runs_no_code(tid))
    return true;
  pass->n++;
  pass->sum += (uint64_t)tid * 0x9e3779b97f4a7c15u;
  pass->at_safepoint += place == AT_SAFEPOINT;
  if (place == RUNNING && !pass->missing)
    pass->missing = tid;
  return true;
}

static bool client_left(int client) {
  struct pollfd ready = {.fd = client, .events = 0};

  return client >= 0 && poll(&ready, 1, 0) != 0;
}

/* Announces the patch and waits until all threads rest. They go on resting until hr_safepoints_release(). False: one
 * did not come in time, or the client left. */
bool hr_safepoints_gather(uint64_t deadline_ns, int client, struct hr_blocker *blocker) {
  struct timespec slice = {.tv_nsec = SLICE_NS};
  struct pass before = {0};
  bool complete = false;

  since_ns = hr_now_ns();
  rounds += 1 + (rounds == UINT32_MAX);
  __atomic_store_n(&wanted, rounds, __ATOMIC_SEQ_CST);
  for (;;) {
    uint32_t seen = __atomic_load_n(&changes, __ATOMIC_SEQ_CST);
    struct pass pass = {0};
    bool listed = hr_threads_each(look, &pass);

    /* A thread may have started another one before it came here: the same set twice, and all at rest, is all. */
    if (listed && !pass.missing && complete && pass.n == before.n && pass.sum == before.sum) {
      waited = pass.at_safepoint;
      return true;
    }
    complete = listed && !pass.missing;
    before = pass;
    if (complete)
      continue;
    *blocker = (struct hr_blocker){.obstacle = HR_OBSTACLE_ELSEWHERE, .tid = pass.missing};
    if (hr_now_ns() > deadline_ns || client_left(client))
      return false;
    wait_while(&changes, seen, &slice);
  }
}

void hr_safepoints_release(void) {
  __atomic_store_n(&wanted, 0, __ATOMIC_SEQ_CST);
  wake(&wanted);
}

unsigned hr_safepoints_waited(void) { return waited; }
uint64_t hr_safepoints_since(void) { return since_ns; }

/* Context: the child of a fork. The one thread there is runs. */
void hr_safepoints_reset(void) {
  unsigned i;

  for (i = 0; i < ENTRIES; i++)
    if (entries[i].tid)
      entries[i] = (struct entry){LEFT_BEHIND, RUNNING, NULL};
  if (have_key)
    pthread_setspecific(key, NULL);
  wanted = 0;
}
