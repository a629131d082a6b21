/* Shared by the runtime's own files; programs never include it.
 *
 * Each instrumented image (program or shared library) carries a full, hidden copy of the runtime. One copy
 * is the agent of the process; it works on the `struct hr_image` of every image, also those whose copy was
 * compiled elsewhere. So struct hr_image and struct hr_record are a wall too: HR_ABI covers them. */
#ifndef HR_INTERNAL_H
#define HR_INTERNAL_H

/* Comes first in every file, so that <features.h> sees these. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef HOTRELOAD
#define HOTRELOAD 1
#endif

#include <elf.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "arch/x86_64.h"
#include "hotreload_abi.h"

#pragma GCC visibility push(hidden)

#include "hotreload.h"

#define HR_MAX_SEGMENTS 12         /* PT_LOAD of one payload */
#define HR_MAX_CANDIDATES 96       /* payloads times images that have their build-id */
#define HR_PATH_MAX 4096
#define HR_MISSED_MAX 256          /* bytes of a sentence */

struct hr_range { /* half-open, absolute addresses */
  uintptr_t start, end;
};

struct hr_segment {
  struct hr_range at;
  int prot; /* PROT_* it was mapped with; RELRO not counted in */
};

/* ---- state of an image ----------------------------------------------------------------------- */

struct hr_unwinder { /* one copy of libgcc's unwinder in the process */
  void (*add)(void *eh_frame);
  void (*remove)(void *eh_frame);
};

/* One payload that was applied. Lies in the store, and stays there when its pages are given back (reclaim.c). */
struct hr_record {
  struct hr_record *older;
  struct hr_range pages; /* of the arena; empty once they were given back */
  uint64_t generation;
  uint8_t id[HR_ID_SIZE];
  struct hr_segment *segments; /* in the store */
  uint32_t n_segments;
  struct hr_range relro; /* whole pages, empty if none */
  const struct hr_payload *header; /* relocated; in its pages, or once they were given back in the store */
  uint32_t header_size;  /* bytes of it with all its tables, if it is in the store; else 0 */
  bool settled;          /* nobody is in the code that its redirects took out of use */
  void *eh_frame; /* registered with `unwinders`, or null */
  struct hr_unwinder unwinders[2];
  uint32_t n_unwinders;
  void *unwinder_handle; /* what dlopen returned for libgcc_s */
  uint8_t *applied;      /* in the store: for each update whether it was made; null if there are none */
};

enum hr_trust { HR_TRUST_GOOD, HR_TRUST_UNSIGNED, HR_TRUST_OTHER_KEY, HR_TRUST_FORGED };
typedef enum hr_trust hr_trusts(const uint8_t *content, size_t size);

struct hr_image {
  /* struct hr_image_head: read before `abi` is trusted. */
  uint32_t magic;
  uint32_t abi;
  int32_t owner_pid;
  uint32_t ready;
  const int *poll_mode;
  struct hr_range arena;

  uint64_t generation;
  uint8_t id[HR_ID_SIZE]; /* of the newest payload; zeros before the first */
  struct hr_record *records; /* newest first */
  struct hr_record *reverted; /* as they were: pointers into their code and data may be anywhere */
  struct hr_unwinder unwinder; /* the one linked into this image; nulls if none */
  uint32_t pending;     /* agent only: a patch is being applied */
  int (*poll)(void);    /* agent only: what hotreload_poll, _fd and _pending of other images call */
  int (*poll_fd)(void);
  int (*waiting)(void);
  void (*safepoint)(void);
  void (*blocked)(int begins);
  void (*recovery)(struct hotreload_recovery *place);
  const struct hotreload_hook *hooks, *hooks_end; /* of this image */
  int (*stacks)(void *lowest, size_t size, const void *context); /* agent only */
  void (*arrived)(struct hr_image *image);  /* agent only: called by each image's constructor and destructor */
  void (*departing)(struct hr_image *image);
  hr_trusts *trusts; /* whether one of this image's keys signed a payload; null: it has none, and any will do */
  char missed[HR_MISSED_MAX]; /* why it could not take what it missed; empty if it did */
};

_Static_assert(offsetof(struct hr_image, owner_pid) == offsetof(struct hr_image_head, owner_pid) &&
                   offsetof(struct hr_image, poll_mode) == offsetof(struct hr_image_head, poll_mode) &&
                   offsetof(struct hr_image, arena) == offsetof(struct hr_image_head, arena_start) &&
                   offsetof(struct hr_image, generation) == sizeof(struct hr_image_head),
               "struct hr_image must begin as struct hr_image_head");

extern struct hr_image hr_self;  /* of the image this copy is linked into */
extern int hr_poll_linked;        /* 1 if poll.o is linked in, see poll.c */

/* ---- image.c: which instrumented images are loaded -------------------------------------------- */

struct hr_loaded {
  struct hr_image *image;
  uintptr_t bias;
  const Elf64_Phdr *headers;
  unsigned n_headers;
  size_t tls_module;
  bool is_main;
  uint8_t build_id[HR_BUILD_ID_MAX];
  uint32_t build_id_size; /* 0: it has none */
  const char *name;       /* the loader's; valid during the visit */
};

typedef bool hr_visit(const struct hr_loaded *loaded, void *context); /* false: enough */

void hr_each_image(hr_visit *visit, void *context);
struct hr_image *hr_find_owner(void);
bool hr_image_prepare(void);
void hr_image_release(void);
void hr_records_free(struct hr_image *image);
bool hr_arena_close(struct hr_range pages);

/* ---- report.c: JSON ---------------------------------------------------------------------------- */

#define HR_TEXT_FIRST (128u << 10) /* bytes a text starts with: more than any answer to an apply needs */

struct hr_text { /* the answer: room for struct hr_reply, then JSON */
  char *data;
  size_t size, capacity;
  bool may_grow;
  bool lost; /* something did not fit */
};

enum hr_obstacle {
  HR_OBSTACLE_NONE,
  HR_OBSTACLE_CODE,       /* the thread runs code that the patch replaces */
  HR_OBSTACLE_STALE,      /* its stack holds such an address, and could not be unwound to the end */
  HR_OBSTACLE_DEAF,       /* it could not be stopped */
  HR_OBSTACLE_ELSEWHERE,  /* safepoint: it is at none, and in no declared region */
  HR_OBSTACLE_COROUTINE,  /* one that is switched out runs such code; no thread */
  HR_OBSTACLE_COROUTINE_STALE,
};

struct hr_blocker { /* what kept a patch from being made; plain data: it is noted while threads are halted */
  enum hr_obstacle obstacle;
  pid_t tid;
  uintptr_t address;    /* HR_OBSTACLE_CODE, _STALE: inside the old code */
  uintptr_t function;   /* start of the range it lies in */
  const void *image;    /* struct hr_image that the code belongs to */
  uintptr_t stack;      /* HR_OBSTACLE_COROUTINE, _COROUTINE_STALE: lowest address of its stack */
  uint64_t since_ms;    /* for how long this thread has been in the way like this */
};

struct hr_error {
  enum hr_code code;
  char detail[1024];
  struct hr_blocker blocker; /* HR_DEADLINE: who was in the way */
};

bool hr_text_new(struct hr_text *text);
void hr_text_free(struct hr_text *text);
const char *hr_code_name(enum hr_code code);
void hr_report_status(struct hr_text *text, const char *executable);
void hr_report_error(struct hr_text *text, const struct hr_error *error);
bool hr_refuse(struct hr_error *error, enum hr_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- payload.c ----------------------------------------------------------------------------------- */

struct hr_elf { /* a payload file's headers, checked; nothing of it is mapped yet */
  int file;    /* as it came; it has the name */
  int content; /* what is read: the same, or a copy whose signature was checked */
  bool absolute; /* ET_EXEC: for an image that is not position-independent */
  Elf64_Phdr loads[HR_MAX_SEGMENTS]; /* ascending, on disjoint pages */
  unsigned n_loads;
  Elf64_Phdr dynamic, relro; /* p_memsz 0: absent */
  uint64_t entry;
  struct hr_payload header; /* as in the file: its pointers are not relocated */
};

struct hr_opened { /* pages made writable for the commit */
  struct hr_range region; /* with one protection */
  struct hr_range pages;  /* the part of it that is needed */
  bool open;
};

struct hr_move { /* what one slot changes to */
  uintptr_t slot;
  uint64_t from, to;
};

struct hr_write { /* bytes that change in place */
  uintptr_t address;
  const void *from, *to;
  uint64_t size;
  bool compare;     /* only if they still are `from` */
  uint64_t below;   /* not 0: every thread has such bytes too, this far below its thread pointer */
  uint8_t *applied; /* takes `mark` when it was done */
  uint8_t mark;
};

struct hr_candidate { /* one payload for one image, or one image that goes back */
  const struct hr_elf *elf; /* null: a revert */
  bool revert;
  uint64_t from_generation;  /* that was live before */
  struct hr_record *down_to; /* revert: what is live afterwards; null: the image as built */
  bool mapped_before;        /* `record` was reverted once, and comes back */
  bool comes_back;           /* the same, and its pages had been given back */
  const struct hr_payload *kept_header; /* what it had of them meanwhile; in the store */
  struct hr_move *moves;
  struct hr_write *writes;
  size_t n_moves, n_writes, max_moves, max_writes;
  struct hr_loaded loaded;
  char name[HR_PATH_MAX]; /* copy of loaded.name */
  void *handle;           /* keeps the image loaded */
  void *program;          /* the global scope; not ours to close */
  struct hr_record *record;
  bool constructed; /* its new objects are made, or were begun */
  bool already; /* `record` is one that was applied before */
  uintptr_t *pages;  /* of code, whose heads are to be armed: one for each head, then `n_distinct` without repetition */
  size_t n_pages, max_pages, n_distinct;
  int copy;          /* of the pages, in their order; if there are any */
  struct hr_opened *opened;
  size_t n_opened, max_opened;
  uint64_t functions_live, updates_applied, updates_kept;
};

bool hr_elf_read(struct hr_elf *elf, int file, struct hr_error *error);
void hr_elf_close(struct hr_elf *elf);
struct hr_range hr_elf_pages(const struct hr_elf *elf, uintptr_t bias);
bool hr_payload_map(struct hr_candidate *c, struct hr_error *error);
bool hr_payload_relocate(struct hr_candidate *c, struct hr_error *error);
bool hr_payload_seal(struct hr_candidate *c, struct hr_error *error);
bool hr_payload_register_unwind(struct hr_candidate *c, struct hr_error *error);
void hr_record_unregister_unwind(struct hr_record *record);
void hr_record_unmap(struct hr_record *record);
const struct hr_segment *hr_record_segment(const struct hr_record *record, uintptr_t at, uint64_t size);
bool hr_inside(struct hr_range range, uintptr_t at, uint64_t size);

/* ---- copy.c ----------------------------------------------------------------------------------------- */

#define HR_MAX_PAYLOAD (1ull << 32) /* bytes of a file; debug information included */

bool hr_read_at(int file, void *to, size_t size, uint64_t offset);
bool hr_write_at(int file, const void *from, size_t size, uint64_t offset);
int hr_memory_file(const char *name);
bool hr_seal(int file);
int hr_copy_new(int file, struct hr_error *error);
bool hr_copy_bytes(int from, int to, uint64_t offset, uint64_t size, struct hr_error *error);
bool hr_copy_seal(int copy, struct hr_error *error);

/* ---- heads.c: functions that are called at their own entry ---------------------------------------------- */

bool hr_heads_prepare(struct hr_candidate *c, struct hr_error *error);
bool hr_heads_arm(struct hr_candidate *c, struct hr_error *error);
uint64_t hr_heads_idle(const struct hr_candidate *c);
void hr_heads_free(struct hr_candidate *c);
bool hr_is_code_of_image(const struct hr_loaded *loaded, uintptr_t at, uint64_t size);

/* ---- signature.c ------------------------------------------------------------------------------------ */

extern hr_trusts *const hr_own_trusts; /* of the image this copy is linked into */
int hr_signed_content(int file, struct hr_error *error);

/* ---- store.c: memory that outlasts a transaction --------------------------------------------------- */

void *hr_store_take(size_t size);
void hr_store_give(void *at, size_t size);
struct hr_range hr_store_range(void);
void hr_store_reset(void);

/* ---- rendezvous.c: halting the other threads ----------------------------------------------------- */

struct hr_thread {
  uint64_t state;      /* of one rendezvous: its number, and how far this thread is */
  pid_t tid;
  ucontext_t *context; /* while it is halted: where */
  uintptr_t pointer;   /* its thread pointer */
};

struct hr_kernel_action { /* struct sigaction as the system call has it (asm/signal.h); the C library hides some */
  void (*handler)(int number, siginfo_t *info, void *context);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
};

void hr_restore_context(void);
bool hr_threads_prepare(struct hr_error *error);
void hr_threads_finish(void);
void hr_threads_forked(void);
bool hr_threads_each(bool (*visit)(pid_t tid, void *context), void *context);
bool hr_threads_halt(uint64_t budget_ns, struct hr_blocker *blocker);
bool hr_threads_visit(bool (*visit)(const struct hr_thread *thread, void *context), void *context);
void hr_threads_release(void);
void hr_threads_problem(char *words, size_t size);
unsigned hr_threads_stopped(void);
void hr_thread_name(pid_t tid, char *name, size_t size);
bool hr_thread_runs_no_code(pid_t tid);
long hr_read_task_file(pid_t tid, const char *name, char *to, size_t size);
void hr_thread_describe(pid_t tid, char *words, size_t size);

bool hr_threads_unconfined(struct hr_error *error); /* confined.c */

/* ---- stack.c, unwind.c: what a halted thread is doing ---------------------------------------------- */

struct hr_old_code { /* a range of code that nobody may be in */
  struct hr_range at;
  uintptr_t function;           /* start of the body it belongs to */
  const struct hr_image *image;
};

struct hr_codes { /* sorted, without overlap */
  struct hr_old_code *code;
  size_t n, capacity;
  uintptr_t highest;
};

struct hr_map { /* a line of /proc/self/maps */
  struct hr_range at;
  bool readable, executable, is_main_stack;
  bool variable; /* private and writable */
};

struct hr_maps {
  struct hr_map *map;
  size_t n, capacity;
};

struct hr_view { /* of a thread that does not run */
  pid_t tid;
  bool is_main;
  struct hr_registers registers;
  uintptr_t thread_pointer;
  struct hr_range signal_stack; /* that it declared; empty if none */
};

enum hr_trace { HR_TRACE_CLEAR, HR_TRACE_HIT, HR_TRACE_UNSURE };

struct dl_phdr_info;

#define HR_RED_ZONE 128 /* bytes below the stack pointer that are in use: psABI 3.2.2 */

bool hr_stacks_prepare(struct hr_error *error);
void hr_stacks_finish(void);
void hr_stacks_forked(void);
const struct hr_maps *hr_maps(void);
const struct hr_map *hr_map_of(uintptr_t at);
bool hr_pages_in_memory(uintptr_t at, uintptr_t end, uintptr_t *until);
const struct hr_old_code *hr_code_at(const struct hr_codes *codes, uintptr_t address);
bool hr_stack_is_clear(const struct hr_codes *codes, const struct hr_view *view, struct hr_blocker *blocker);
enum hr_trace hr_stack_blame(const struct hr_codes *codes, const struct hr_view *view, uintptr_t *hit);
bool hr_same_map(uintptr_t one, uintptr_t other);
bool hr_coroutine_is_clear(const struct hr_codes *codes, struct hr_range stack, const ucontext_t *context,
                           struct hr_blocker *blocker);
bool hr_unwind_prepare(struct hr_error *error);
void hr_unwind_forget(void);
uintptr_t hr_frames_begin(const void *frames);
bool hr_unwind_is_current(const struct dl_phdr_info *info);
enum hr_trace hr_unwind(const struct hr_codes *codes, const struct hr_registers *from, const struct hr_map *home,
                        uintptr_t *hit);
enum hr_trace hr_unwind_until(const struct hr_codes *codes, struct hr_registers *registers, const struct hr_map *home,
                              uintptr_t *hit);

/* ---- coroutines.c: stacks that the program switches to ----------------------------------------------------- */

int hr_coroutine_declare(void *lowest, size_t size, const void *context);
bool hr_coroutines_exist(void);
void hr_coroutines_begin(void);
const struct hr_range *hr_coroutine_runs(uintptr_t sp);
bool hr_coroutines_are_clear(const struct hr_codes *codes, struct hr_blocker *blocker);

/* ---- asleep.c, gate.c: threads that need not be halted ---------------------------------------------------- */

#define HR_MAX_SLEEPERS 65536 /* more than that are halted */

struct hr_range hr_sleepers_range(void);
void hr_sleepers_look(const struct hr_codes *codes);
void hr_sleepers_look_again(void);
void hr_sleepers_wake(void);
bool hr_sleeps(pid_t tid);
unsigned hr_sleepers(void);
uint64_t hr_number_at(const char *text, int skip);
uint64_t hr_runs_of(pid_t tid);

struct hr_transaction;

extern uintptr_t hr_gate_keeper;
bool hr_gates_prepare(const struct hr_transaction *t);
struct hr_range hr_gates_range(void);
void hr_gates_close(const struct hr_transaction *t);
void hr_gates_open(const struct hr_transaction *t);

/* ---- apply.c --------------------------------------------------------------------------------------- */

struct hr_order { /* an apply as it came in */
  const struct hr_request *request;
  const int *files; /* request->n_payloads of them */
  int client;       /* who waits for the answer, or -1 */
  int ballot;       /* HR_TOGETHER: descriptor of the ballot, else -1 */
};

struct hr_chain { /* the generations of one build of a library */
  struct hr_chain *next;
  uint8_t build_id[HR_BUILD_ID_MAX]; /* zero-padded */
  uint32_t build_id_size;
  uint8_t *entries;                  /* struct hr_kept, oldest first */
  size_t size;                       /* bytes of them */
  uint64_t generation;               /* how many they are */
  uint64_t arrivals;                 /* images of this build that were loaded so far */
  uint32_t arriving;                 /* those that are being loaded: the chain must not change */
};

struct hr_keep { /* what a transaction makes of a chain */
  struct hr_chain *chain;
  const struct hr_elf *elf; /* null: a revert */
  uint8_t *entries;         /* the new ones; after the commit the old ones */
  size_t size;
  uint64_t generation, arrivals;
  bool waiting; /* no image of this build is loaded */
  bool already; /* it has this generation */
  bool changes; /* `entries` replace those of the chain */
};

struct hr_transaction { /* allocated with mmap: too large for the agent's stack */
  const struct hr_order *order;
  struct hr_error *error;
  struct hr_ballot *ballot; /* null: this process takes it alone */
  uint64_t deadline_ns;
  bool committed;
  struct hr_elf elfs[HR_MAX_PAYLOADS];
  struct hr_candidate candidates[HR_MAX_CANDIDATES];
  struct hr_keep keeps[HR_MAX_PAYLOADS];
  unsigned n_candidates, n_keeps;
  bool overtaken; /* a library that it changes was loaded or unloaded while it was prepared */
  struct hr_candidate restored[HR_MAX_CANDIDATES]; /* revert: older generations whose code comes back */
  unsigned n_restored;
};

struct hr_outcome {
  const struct hr_order *order;
  const struct hr_candidate *candidates;
  const struct hr_keep *keeps;
  unsigned n_candidates, n_keeps;
  unsigned attempts, threads_stopped, threads_interrupted, threads_asleep;
  bool stacks_checked;
  uint64_t commit_us, pause_us, gates_us;
  bool protections_restored;
};

enum hr_code hr_apply(const struct hr_order *order, struct hr_text *text, int *generations);
bool hr_apply_alone(const struct hr_loaded *loaded, int file, struct hr_error *error);
void hr_order_forked(void);
void hr_order_undo_inherited(void);
void hr_report_apply(struct hr_text *text, const struct hr_outcome *outcome);

/* ---- late.c: libraries that are loaded after a patch ---------------------------------------------------- */

struct hr_kept { /* one generation of a chain, padded to 8 bytes */
  uint64_t bytes;             /* of this entry */
  uint64_t file_size, digest; /* of the payload's file */
  uint8_t id[HR_ID_SIZE];
  char path[]; /* of the file; empty: it had none */
};

struct hr_keep *hr_late_begin(struct hr_transaction *t, const uint8_t *build_id, uint32_t size);
bool hr_late_keep(struct hr_transaction *t, struct hr_keep *keep);
bool hr_late_revert(struct hr_transaction *t, struct hr_keep *keep, uint64_t generation);
bool hr_late_is_current(struct hr_transaction *t);
void hr_late_free(struct hr_transaction *t);
bool hr_late_invert(struct hr_transaction *back, const struct hr_transaction *t);
void hr_late_each(void (*visit)(const struct hr_chain *chain, void *context), void *context);
const struct hr_chain *hr_late_chain(const uint8_t *build_id);
void hr_late_arrive(struct hr_image *image);
void hr_late_reset(void);

/* ---- targets.c: what changes --------------------------------------------------------------------------- */

void *hr_memory(size_t size);
void hr_memory_free(void *at, size_t size);
bool hr_plan_apply(struct hr_candidate *c, struct hr_error *error);
bool hr_plan_revert(struct hr_candidate *c, struct hr_error *error);
void hr_plan_free(struct hr_candidate *c);
bool hr_sets_threads(const struct hr_transaction *t);
bool hr_open_pages(struct hr_candidate *c, struct hr_error *error);
bool hr_close_pages(struct hr_candidate *c);
void hr_close_left_open(void);
uint64_t hr_count_live(const struct hr_candidate *c);
uint64_t hr_slot_holds(uintptr_t slot);

/* ---- reclaim.c, search.c: code that nobody needs any more ------------------------------------------------ */

struct hr_suspect { /* code of one generation */
  struct hr_range code;
  uintptr_t begin; /* of what its unwind table describes */
  struct hr_record *record;
  bool needed;
};

void hr_reclaim(const struct hr_candidate *c, const struct hr_range *wanted);
bool hr_is_superseded(const struct hr_record *record);
bool hr_code_is_there(const struct hr_image *image, uint64_t generation, uintptr_t code);
bool hr_search(struct hr_suspect *suspects, size_t n, uint64_t deadline_ns);

/* ---- commit.c: when, and the commit itself --------------------------------------------------------------- */

bool hr_commit(struct hr_transaction *t, struct hr_outcome *outcome, int *generations);
bool hr_commit_alone(struct hr_transaction *t);
bool hr_client_waits(const struct hr_transaction *t);
uint64_t hr_deadline_of(const struct hr_transaction *t);
uint64_t hr_now_ns(void);
uint64_t hr_deadline_of(const struct hr_transaction *t);
bool hr_pause_between(const struct hr_transaction *t, int ms);
void hr_view_of(const struct hr_thread *thread, struct hr_view *view);

void hr_codes_sort(struct hr_codes *codes);
bool hr_thread_creation(struct hr_range *code);
bool hr_codes_find(const struct hr_transaction *t, struct hr_codes *codes);
int hr_commit_back(struct hr_transaction *t);
bool hr_commit_trylock(void);

/* ---- guard.c: a patch on probation ---------------------------------------------------------------------------- */

struct hr_guard_report {
  const char *state; /* "armed", "fired", "passed": its time is over, "ended": by the next order */
  const struct hr_transaction *plan; /* what it takes back */
  uint64_t begun_ms, ends_ms;        /* since 1970 */
  /* fired: */
  uint64_t at_ms;
  int signal, signal_code;
  pid_t tid;
  char thread[32];
  uintptr_t fault, hit; /* the kernel's address, and the one in the new code */
  const struct hr_image *image;
  bool certain; /* the stack could be unwound to `hit` */
  bool reverted, resumed;
  char problem[1024]; /* why it is not reverted */
};

bool hr_guard_prepare(const struct hr_transaction *t);
void hr_guard_begin(const struct hr_transaction *t);
bool hr_guard_end(void);
void hr_guard_tick(void);
int hr_guard_left_ms(void);
bool hr_guard_is_on(void);
const char *hr_guard_text(size_t *size);
void hr_guard_leave(void);
void hr_guard_forget(void);
void hr_report_guard(struct hr_text *text, const struct hr_guard_report *report);
/* ---- construct.c: objects that code initialises ----------------------------------------------------------- */

void hr_helper_start(const sigset_t *program_blocks);
pid_t hr_helper_tid(void);
bool hr_helper_was_used(void);
bool hr_brings_objects(const struct hr_transaction *t);
bool hr_construct(struct hr_transaction *t, uint64_t deadline_ns);
void hr_abandon(struct hr_candidate *c);

/* ---- ballot.c: several processes, all or none -------------------------------------------------------------- */

enum hr_vote { HR_VOTE_WAITS, HR_VOTE_ANEW, HR_VOTE_LATE, HR_VOTE_COMMIT, HR_VOTE_ABANDONED };

struct hr_ballot *hr_ballot_open(int file, struct hr_error *error);
void hr_ballot_close(struct hr_ballot *b);
uint32_t hr_ballot_round(const struct hr_ballot *b);
void hr_ballot_next_round(struct hr_ballot *b, uint32_t round);
enum hr_vote hr_ballot_vote(struct hr_ballot *b, uint32_t round, uint64_t until_ns, int client);
bool hr_ballot_prepared(struct hr_transaction *t);
bool hr_ballot_agree(struct hr_transaction *t);
bool hr_ballot_is_lost(struct hr_ballot *b, int client);
void hr_ballot_abandon(struct hr_ballot *b);
bool hr_ballot_refuse(struct hr_error *error, bool late);

/* ---- hooks.c, safepoint.c ----------------------------------------------------------------------------------- */

bool hr_hooks_before(struct hr_transaction *t);
void hr_hooks_after(struct hr_transaction *t);
void hr_safepoint(void);
void hr_blocked(int begins);
bool hr_safepoints_gather(uint64_t deadline_ns, int client, struct hr_blocker *blocker);
void hr_safepoints_release(void);
void hr_safepoints_reset(void);
void hr_recovery(struct hotreload_recovery *place);
struct hotreload_recovery *hr_recovery_of(pid_t tid);
unsigned hr_safepoints_waited(void);
uint64_t hr_safepoints_since(void);
void hr_commit_lock(void); /* fork must not copy a half-made commit */
void hr_commit_unlock(void);
void hr_commit_lock_reset(void);

/* ---- single.c: the C library's shortcuts for programs of one thread ------------------------------------------ */

void hr_single_note(void);
void hr_single_keep(bool agent_can);
void hr_single_forked(void);
int hr_single_accept(int listener, bool own_table);
bool hr_single_end(uint64_t deadline_ns);
bool hr_single_settle(uint64_t deadline_ns, struct hr_error *error);
void hr_single_leave(void);
bool hr_single_is_fresh(void);
struct hr_range hr_single_range(void);

/* ---- recall.c: a signal that the program agreed to --------------------------------------------------------- */

struct pollfd;

void hr_recall_agree(void);
bool hr_recall_is_agreed(void);
bool hr_recall_came(void);
void hr_recall_forked(void);
int hr_recall_poll(struct pollfd *ready, int n, int ms);

/* ---- descriptors.c ---------------------------------------------------------------------------------- */

struct hr_descriptor { /* and what it must still be, where the program may have closed it */
  int fd;           /* -1: none */
  dev_t device;
  ino_t inode;
};

bool hr_descriptor_identify(struct hr_descriptor *d);
bool hr_descriptor_is_ours(const struct hr_descriptor *d);
void hr_descriptor_forget(struct hr_descriptor *d);
int hr_descriptor_raise(int fd);
bool hr_descriptors_own_table(void);

/* ---- agent.c ----------------------------------------------------------------------------------------- */

void hr_fork_allow(void); /* around waits in which nothing is half done */
void hr_fork_forbid(void);
int hr_agent_poll(void);
bool hr_thread_start(void *(*run)(void *), void *argument, size_t stack);
int hr_agent_fd(void);
bool hr_agent_path(char path[HR_PATH_MAX], const char *suffix);
const struct hr_view *hr_poller(void); /* the thread in hotreload_poll() that serves; null in thread mode */

/* ---- faults.c: a step that can fail asks hr_fault() first, in builds for tests ------------------------- */

enum hr_step {
#define HR_STEP(name, phase, words) HR_STEP_##name,
#include "hr_steps.def"
#undef HR_STEP
};

#ifdef HR_FAULTS
bool hr_fault(enum hr_step step);
#else
#define hr_fault(step) (false)
#endif
#define hr_pass(step) ((void)hr_fault(step)) /* a step that cannot fail */

static inline uintptr_t hr_page_down(uintptr_t at) { return at & ~(uintptr_t)(HR_PAGE - 1); }
static inline uintptr_t hr_page_up(uintptr_t at) { return hr_page_down(at + HR_PAGE - 1); }

#pragma GCC visibility pop

#endif
