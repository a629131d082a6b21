/* Several processes take a patch together, all of them or none: they agree by one word of memory that they share.
 *
 * The word holds the decision, the number of the round, and how many processes are ready in it. Round 0 asks who is
 * prepared: all that can fail lies before it. In each later round a process is ready when its own moment has come, and
 * keeps that moment (its threads stay halted) until the word tells what is decided. Whoever finds that its moment has
 * not come begins the next round, and the others let their threads go on at once.
 *
 * Who completes a round decides, in the same step. So there is no time between a first and a last commit at which
 * anybody could still refuse, and nobody who leads and could be lost: the tool that asked may end at any time. A
 * process that can't take the patch, waited too long, or lost its client before the decision, decides against it.
 *
 * Context: threads may be halted, so nothing is allocated and no lock is taken. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 5000000u /* a client that left, and one that withdraws, are noticed after this */
#define ROUNDS (1u << (HR_BALLOT_DECISION_SHIFT - HR_BALLOT_ROUND_SHIFT))

static enum hr_decision decision_of(uint32_t state) { return (enum hr_decision)(state >> HR_BALLOT_DECISION_SHIFT); }
static uint32_t round_of(uint32_t state) { return state >> HR_BALLOT_ROUND_SHIFT & (ROUNDS - 1); }
static uint32_t begin_of(uint32_t round) { return round << HR_BALLOT_ROUND_SHIFT; }
static uint32_t decided(enum hr_decision decision) { return (uint32_t)decision << HR_BALLOT_DECISION_SHIFT; }
static uint32_t state_of(const struct hr_ballot *b) { return __atomic_load_n(&b->state, __ATOMIC_SEQ_CST); }

/* The futex is not private: other processes wait on it. */
static void wait_while(struct hr_ballot *b, uint32_t state, uint64_t ns) {
  struct timespec longest = {.tv_nsec = (long)ns};

  syscall(SYS_futex, &b->state, FUTEX_WAIT, state, &longest, NULL, 0);
}

static bool change(struct hr_ballot *b, uint32_t from, uint32_t to) {
  if (!__atomic_compare_exchange_n(&b->state, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    return false;
  syscall(SYS_futex, &b->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
  return true;
}

static bool is_given_up(const struct hr_ballot *b, int client) {
  struct pollfd waiting = {.fd = client, .events = 0};

  return __atomic_load_n(&b->withdrawn, __ATOMIC_SEQ_CST) || (client >= 0 && poll(&waiting, 1, 0) != 0);
}

/* Decides against the patch, unless it is decided. */
void hr_ballot_abandon(struct hr_ballot *b) {
  uint32_t state;

  do
    state = state_of(b);
  while (decision_of(state) == HR_UNDECIDED && !change(b, state, decided(HR_ABANDONED)));
}

/* Whether it is decided against the patch, or is now because the client left or the tool withdrew it. */
bool hr_ballot_is_lost(struct hr_ballot *b, int client) {
  if (is_given_up(b, client))
    hr_ballot_abandon(b);
  return decision_of(state_of(b)) == HR_ABANDONED;
}

uint32_t hr_ballot_round(const struct hr_ballot *b) { return round_of(state_of(b)); }

/* Ends `round`, if it still is on: nobody is ready any more, and all try again. */
void hr_ballot_next_round(struct hr_ballot *b, uint32_t round) {
  uint32_t state;

  do {
    state = state_of(b);
    if (decision_of(state) != HR_UNDECIDED || round_of(state) != round)
      return;
    if (round + 1 == ROUNDS) {
      hr_ballot_abandon(b);
      return;
    }
  } while (!change(b, state, begin_of(round + 1)));
}

/* What a state means to one who is, or wants to be, ready in `round`. */
static enum hr_vote seen_as(uint32_t state, uint32_t round) {
  if (decision_of(state) == HR_UNDECIDED)
    return round_of(state) == round ? HR_VOTE_WAITS : HR_VOTE_ANEW;
  return decision_of(state) == HR_COMMITTED ? HR_VOTE_COMMIT : HR_VOTE_ABANDONED;
}

static uint32_t with_one_more(const struct hr_ballot *b, uint32_t state) {
  if ((state & HR_BALLOT_READY) + 1 < b->members)
    return state + 1;
  return round_of(state) ? decided(HR_COMMITTED) : begin_of(1);
}

/* This process is ready in `round`; waits for what becomes of it, until `until_ns` at most. HR_VOTE_LATE: the others
 * did not come, and `round` is over. */
enum hr_vote hr_ballot_vote(struct hr_ballot *b, uint32_t round, uint64_t until_ns, int client) {
  enum hr_vote vote;
  uint32_t state;
  uint64_t now;

  do {
    if (is_given_up(b, client))
      hr_ballot_abandon(b);
    state = state_of(b);
    if ((vote = seen_as(state, round)) != HR_VOTE_WAITS)
      return vote;
  } while (!change(b, state, with_one_more(b, state)));
  while ((vote = seen_as(state = state_of(b), round)) == HR_VOTE_WAITS) {
    now = hr_now_ns();
    if (is_given_up(b, client) || (now >= until_ns && !round))
      hr_ballot_abandon(b);
    else if (now >= until_ns && change(b, state, round + 1 < ROUNDS ? begin_of(round + 1) : decided(HR_ABANDONED)))
      return HR_VOTE_LATE;
    else if (now < until_ns)
      wait_while(b, state, until_ns - now < SLICE_NS ? until_ns - now : SLICE_NS);
  }
  return vote;
}

bool hr_ballot_refuse(struct hr_error *error, bool late) {
  if (late)
    return hr_refuse(error, HR_DEADLINE, "the other processes that were to take it too were not ready in time");
  return hr_refuse(error, HR_ABANDONED_BY_OTHERS, "all take it or none; this one could have");
}

/* Waits until all are prepared. */
bool hr_ballot_prepared(struct hr_transaction *t) {
  enum hr_vote vote;

  hr_fork_allow();
  vote = hr_ballot_vote(t->ballot, 0, t->deadline_ns, t->order->client);
  hr_fork_forbid();
  if (vote == HR_VOTE_ANEW)
    return true;
  return hr_ballot_refuse(t->error, hr_now_ns() >= t->deadline_ns);
}

/* For one whose moment lasts: it is ready in each round. True: commit. */
bool hr_ballot_agree(struct hr_transaction *t) {
  enum hr_vote vote;

  hr_fork_allow();
  do
    vote = hr_ballot_vote(t->ballot, hr_ballot_round(t->ballot), t->deadline_ns, t->order->client);
  while (vote == HR_VOTE_ANEW);
  hr_fork_forbid();
  if (vote == HR_VOTE_LATE)
    hr_ballot_abandon(t->ballot);
  return vote == HR_VOTE_COMMIT || hr_ballot_refuse(t->error, vote == HR_VOTE_LATE);
}

/* ---- the memory that is shared --------------------------------------------------------------------------- */

/* Null: refused. The file is sealed against shrinking, so that reading it can't fail later; a child of fork() does not
 * get it, since it takes no part. */
struct hr_ballot *hr_ballot_open(int file, struct hr_error *error) {
  struct hr_ballot *b;
  struct stat stat;
  int seals = fcntl(file, F_GET_SEALS);

  if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(file, &stat) || stat.st_size < (off_t)sizeof *b) {
    hr_refuse(error, HR_BAD_REQUEST, "what is to be shared with other processes is no sealed memory");
    return NULL;
  }
  b = hr_fault(HR_STEP_BALLOT) ? MAP_FAILED : mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (b == MAP_FAILED) {
    hr_refuse(error, HR_NO_MEMORY, "what is shared with other processes can't be mapped: %s", strerror(errno));
    return NULL;
  }
  madvise(b, sizeof *b, MADV_DONTFORK);
  if (b->magic == HR_BALLOT_MAGIC && b->members >= 1 && b->members <= HR_BALLOT_READY)
    return b;
  hr_refuse(error, HR_BAD_REQUEST, "what is shared with other processes is no ballot");
  hr_ballot_close(b);
  return NULL;
}

void hr_ballot_close(struct hr_ballot *b) {
  if (b)
    munmap(b, sizeof *b);
}
