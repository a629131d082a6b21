/* Runs the code that initialises objects which a payload brings: once, before the commit, while the program runs and
 * nothing but that code can reach them.
 *
 * It is the program's code, and what it opens or starts must be the program's. The agent's thread has descriptors of
 * its own and all signals blocked, and threads that it starts inherit both. So a helper is started before the agent
 * leaves the program's descriptors: it sleeps, and starts a thread for each payload that wants one. Only programs that
 * run C++ have it. In poll mode the thread that polls does the work. */
#include "internal.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HELPER_STACK (64u << 10)
#define SECOND 1000000000ull

struct job { /* allocated with mmap; left behind if it does not end in time */
  int (*run)(char *said, uint64_t size);
  int result; /* -1: there was no thread to run it */
  char said[512];
  sem_t done;
};

static struct {
  pid_t tid; /* 0: there is none */
  sem_t ready, wanted;
  struct job *job;
  bool was_used;
  sigset_t signals; /* that the program blocked when the agent was started */
} helper;

static bool wait_for(sem_t *event, uint64_t deadline_ns) {
  uint64_t now = hr_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
  struct timespec until;

  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += (time_t)(left / SECOND);
  until.tv_nsec += (long)(left % SECOND);
  until.tv_sec += until.tv_nsec / (long)SECOND;
  until.tv_nsec %= (long)SECOND;
  while (sem_timedwait(event, &until))
    if (errno != EINTR)
      return false;
  return true;
}

static void *run_job(void *at) {
  struct job *job = at;

  pthread_sigmask(SIG_SETMASK, &helper.signals, NULL);
  job->result = job->run(job->said, sizeof job->said);
  sem_post(&job->done);
  return NULL;
}

/* Its threads are like those that the program starts: with the stack that it gives them. Once one is started the job is
 * its own, and may be over and unmapped before pthread_create() returns here. */
static void start_job(struct job *job) {
  pthread_attr_t attributes;
  pthread_t thread;
  bool started = false;

  if (!pthread_attr_init(&attributes)) {
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    started = !pthread_create(&thread, &attributes, run_job, job);
    pthread_attr_destroy(&attributes);
  }
  if (!started)
    sem_post(&job->done);
}

/* One round is made at once: sem_wait() is bound then, and a helper that is not needed never gets into the loader. */
static void *help(void *unused) {
  prctl(PR_SET_NAME, "hotreload");
  sem_post(&helper.wanted);
  sem_wait(&helper.wanted);
  __atomic_store_n(&helper.tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
  sem_post(&helper.ready);
  for (;;)
    if (!sem_wait(&helper.wanted))
      start_job(__atomic_load_n(&helper.job, __ATOMIC_ACQUIRE));
  return unused;
}

/* Called on the agent's thread, all signals blocked, before it leaves the program's descriptor table. */
void hr_helper_start(const sigset_t *program_blocks) {
  helper.tid = 0;
  helper.signals = *program_blocks;
  if (!sem_init(&helper.wanted, 0, 0) && !sem_init(&helper.ready, 0, 0) && hr_thread_start(help, NULL, HELPER_STACK))
    wait_for(&helper.ready, hr_now_ns() + SECOND);
}

bool hr_helper_was_used(void) { return helper.was_used; }

/* It runs nothing of the program, and holds no lock. 0: there is none. */
pid_t hr_helper_tid(void) { return __atomic_load_n(&helper.tid, __ATOMIC_ACQUIRE); }

static bool judge(struct job *job, struct hr_error *error) {
  if (job->result > 0)
    return hr_refuse(error, HR_INITIALISER, "it was left by an exception: %s", job->said);
  return !job->result || hr_refuse(error, HR_NO_MEMORY, "no thread could be started to initialise new objects");
}

static bool run_on_helper(struct job *job, uint64_t deadline_ns, struct hr_error *error) {
  if (!hr_helper_tid())
    return hr_refuse(error, HR_UNSUPPORTED, "new objects are initialised by code, and the program had loaded no C++ "
                                            "library when it started: there is no thread to run that");
  helper.was_used = true;
  if (sem_init(&job->done, 0, 0))
    return hr_refuse(error, HR_NO_MEMORY, "no semaphore");
  __atomic_store_n(&helper.job, job, __ATOMIC_RELEASE);
  sem_post(&helper.wanted);
  if (!wait_for(&job->done, deadline_ns))
    return hr_refuse(error, HR_INITIALISER, "it did not return in time, and goes on");
  return judge(job, error);
}

static bool construct(struct hr_candidate *c, uint64_t deadline_ns, struct hr_error *error) {
  struct job *job = hr_memory(sizeof *job);
  bool done;

  if (!job)
    return hr_refuse(error, HR_NO_MEMORY, "no memory to initialise new objects");
  memcpy(&job->run, (const void *)c->record->header->init_array, sizeof job->run);
  job->result = -1;
  c->constructed = true; /* from here on: its objects may be known to the program */
  if (hr_poller()) {
    job->result = job->run(job->said, sizeof job->said);
    done = judge(job, error);
  } else {
    done = run_on_helper(job, deadline_ns, error);
  }
  if (done)
    hr_memory_free(job, sizeof *job);
  return done;
}

static bool wants_construction(const struct hr_candidate *c) {
  return !c->already && !c->revert && !c->mapped_before && c->record->header->n_init_array;
}

bool hr_brings_objects(const struct hr_transaction *t) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    if (wants_construction(&t->candidates[i]))
      return true;
  return false;
}

/* A payload that was reverted comes back with its objects as they are. */
bool hr_construct(struct hr_transaction *t, uint64_t deadline_ns) {
  unsigned i;

  if (hr_brings_objects(t) && !hr_single_settle(deadline_ns, t->error))
    return false;
  for (i = 0; i < t->n_candidates; i++)
    if (wants_construction(&t->candidates[i]) && !construct(&t->candidates[i], deadline_ns, t->error))
      return false;
  return true;
}

/* After a failure: objects that were made may be known to the program, and have destructors that run at its end. So the
 * payload stays mapped, but as nothing that could be applied: another attempt is another payload. */
void hr_abandon(struct hr_candidate *c) {
  memset(c->record->id, 0, HR_ID_SIZE);
  hr_commit_lock();
  c->record->older = c->loaded.image->reverted;
  c->loaded.image->reverted = c->record;
  hr_commit_unlock();
}
