/* Gates: while they are shut, calls of the functions that change wait at the entry.
 *
 * A quiescent patch must know that no thread is in old code. A thread that sleeps in the kernel, outside of it, need
 * not be woken to be sure of that, if it can't walk in when it wakes up by itself: so the slots lead to gates for that
 * moment.
 *
 * A gate belongs to one slot for ever: a thread that was in it when the gates opened may go on much later, and must
 * find the way of its own function. Where there are no gates left, all threads are halted. */
#include "internal.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

struct hr_gate { /* known to HR_GATE_BODY */
  uintptr_t slot;
  uint64_t target; /* where the slot led before the gates were shut */
};

struct hr_gate hr_gates[HR_N_GATES];
uint32_t hr_gates_shut;    /* a futex */
uintptr_t hr_gate_keeper;  /* thread pointer of who shut them */
pid_t hr_gate_pid;

extern const char hr_gate_entries[];
__asm__(".pushsection .text.hr_gate,\"ax\",@progbits\n" HR_GATE_ENTRIES HR_GATE_BODY ".popsection\n");

_Static_assert(sizeof(struct hr_gate) == 16 && HR_N_GATES == 512, "as in HR_GATE_ENTRIES and HR_GATE_BODY");

static unsigned n_gates;

struct hr_range hr_gates_range(void) {
  return (struct hr_range){(uintptr_t)hr_gates, (uintptr_t)(hr_gates + HR_N_GATES)};
}

static unsigned find_gate(uintptr_t slot) {
  unsigned i = 0;

  while (i < n_gates && hr_gates[i].slot != slot)
    i++;
  return i;
}

static uint64_t entry_of(unsigned gate) { return (uint64_t)(uintptr_t)hr_gate_entries + gate * HR_GATE_SIZE; }

/* Whether there is a gate for every slot that changes. Bytes that change in place have none: a thread that wakes up
 * might read half of them. */
bool hr_gates_prepare(const struct hr_transaction *t) {
  unsigned i;
  size_t k;

  for (i = 0; i < t->n_candidates; i++)
    if (!t->candidates[i].already && t->candidates[i].n_writes)
      return false;
  for (i = 0; i < t->n_candidates; i++)
    for (k = 0; !t->candidates[i].already && k < t->candidates[i].n_moves; k++) {
      uintptr_t slot = t->candidates[i].moves[k].slot;

      if (find_gate(slot) < n_gates)
        continue;
      if (n_gates == HR_N_GATES)
        return false;
      hr_gates[n_gates++].slot = slot;
    }
  return true;
}

/* Runs `visit` on every gate of a slot that changes. */
static void each_gate(const struct hr_transaction *t, void (*visit)(struct hr_gate *gate, uint64_t entry)) {
  unsigned i, gate;
  size_t k;

  for (i = 0; i < t->n_candidates; i++)
    for (k = 0; !t->candidates[i].already && k < t->candidates[i].n_moves; k++) {
      gate = find_gate(t->candidates[i].moves[k].slot);
      visit(&hr_gates[gate], entry_of(gate));
    }
}

/* Two payloads of one image may change the same slot: it is shut once. */
static void shut(struct hr_gate *gate, uint64_t entry) {
  uint64_t *slot = (uint64_t *)gate->slot, now = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

  if (now == entry)
    return;
  gate->target = now;
  __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

static void put_back(struct hr_gate *gate, uint64_t entry) {
  uint64_t *slot = (uint64_t *)gate->slot;

  if (__atomic_load_n(slot, __ATOMIC_ACQUIRE) == entry)
    __atomic_store_n(slot, gate->target, __ATOMIC_RELEASE);
}

/* Context: prepared, the pages of the slots are open. No allocation, no lock, no failure. */
void hr_gates_close(const struct hr_transaction *t) {
  hr_gate_keeper = (uintptr_t)__builtin_thread_pointer();
  hr_gate_pid = getpid();
  __atomic_store_n(&hr_gates_shut, 1, __ATOMIC_SEQ_CST);
  each_gate(t, shut);
}

/* Slots that were not committed lead where they led. Context: as above. */
void hr_gates_open(const struct hr_transaction *t) {
  each_gate(t, put_back);
  __atomic_store_n(&hr_gates_shut, 0, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, &hr_gates_shut, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
