/* What a program may include. Everything here is optional, and does nothing in a build without the
 * hotreload tool (which compiles with -DHOTRELOAD=1 and links the runtime into each image). */
#ifndef HOTRELOAD_H
#define HOTRELOAD_H

#ifdef HOTRELOAD

#include <setjmp.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Serves patches that wait, without blocking; returns how many generations it applied. A program that
 * refers to hotreload_poll or hotreload_fd gets no agent thread: patches come in here and only here.
 * May be called from any thread, not from a signal handler. */
int hotreload_poll(void);

/* A descriptor that becomes readable when hotreload_poll() has something to do, or -1. For poll, select
 * and epoll only: never read or close it. Ask again after fork and after closing all descriptors. */
int hotreload_fd(void);

/* 1 while a patch waits, for hotreload_poll(), for threads to come to their safepoints, or for code that changes to be
 * left, else 0. A thread that sees 1 does well to return to its safepoint. */
int hotreload_pending(void);

/* Marks a point at which this thread runs no function that must not change under it. Returns at once, unless a patch
 * with the consistency `safepoint` waits: then it returns when the patch is in, or was given up. Not for signal
 * handlers. */
void hotreload_safepoint(void);

/* Between the two, this thread sleeps, or runs only code that never changes: a patch at safepoints need not wait for
 * it. If one is coming in at the end, hotreload_blocked_end() returns when it is in. They do not nest. */
void hotreload_blocked_begin(void);
void hotreload_blocked_end(void);
#define HOTRELOAD_BLOCKING(...) \
  do { \
    hotreload_blocked_begin(); \
    __VA_ARGS__; \
    hotreload_blocked_end(); \
  } while (0)

/* Where the calling thread goes on if it crashes in code that a patch with a guard (--guard) brought, once that patch
 * was taken back. It also is a safepoint. As setjmp does, it yields 0 when it is passed, and the number of the signal
 * when the thread comes back to it:
 *
 *   struct hotreload_recovery here;
 *   for (;;) {
 *     if (HOTRELOAD_RECOVERY_SAFEPOINT(&here))
 *       drop_what_was_being_done();
 *     handle_one();
 *   }
 *
 * What setjmp(3) says of local variables holds. Locks that the crashed functions held stay held, destructors do not
 * run, and what they wrote stays. It holds for this thread until another one is declared, and must be taken back by
 * hotreload_recovery_end() before the function that declared it returns. */
struct hotreload_recovery {
  jmp_buf at;
  unsigned char mask[128]; /* signals that were blocked */
  unsigned long stack;
  int signal;
};
int hotreload_recovery_begin(struct hotreload_recovery *place);
int hotreload_recovered(struct hotreload_recovery *place);
void hotreload_recovery_end(void);
#define HOTRELOAD_RECOVERY_SAFEPOINT(place) \
  (hotreload_safepoint(), setjmp((place)->at) ? hotreload_recovered(place) : hotreload_recovery_begin(place))

/* Stacks that this program switches to by itself: a patch that waits until nobody is in what changes then sees the
 * frames of coroutines that are switched out. `lowest` and `size` in bytes: what makecontext() gets. `context`: the
 * ucontext_t in which swapcontext() saves the one on this stack; null if it is not saved in one: then whatever the
 * stack holds counts as its frames, also what calls left behind that are over. Declare a stack before it is used, and
 * take it back before its memory is given back. From any thread; not from signal handlers. 0, or -1: no memory, no
 * such stack. */
int hotreload_stack_add(void *lowest, unsigned long size, const void *context);
int hotreload_stack_remove(void *lowest);

/* Hooks: `int fn(unsigned long from, unsigned long to)`, called with the generations of the image it lies in, when
 * that image is patched or reverted. They run on the agent's thread (with hotreload_poll(), on the thread that polls)
 * while other threads run. One that runs before may answer other than 0: then nothing is changed, and whoever sent the
 * patch is told. A patch may still be given up after the hook that runs before it. What a hook that runs after answers
 * means nothing. */
struct hotreload_hook {
  int kind;
  int (*run)(unsigned long from, unsigned long to);
};

enum { HOTRELOAD_HOOK_BEFORE_PATCH = 1, HOTRELOAD_HOOK_AFTER_PATCH = 2, HOTRELOAD_HOOK_BEFORE_REVERT = 3 };

#define HOTRELOAD_BEFORE_PATCH(fn) HOTRELOAD_HOOK_(BEFORE_PATCH, fn)
#define HOTRELOAD_AFTER_PATCH(fn) HOTRELOAD_HOOK_(AFTER_PATCH, fn)
#define HOTRELOAD_BEFORE_REVERT(fn) HOTRELOAD_HOOK_(BEFORE_REVERT, fn)

/* `retain` keeps them from linkers that remove what nothing refers to. */
#if defined(__has_attribute)
#if __has_attribute(retain)
#define HOTRELOAD_KEEP_ __attribute__((used, retain))
#endif
#endif
#ifndef HOTRELOAD_KEEP_
#define HOTRELOAD_KEEP_ __attribute__((used))
#endif
#define HOTRELOAD_HOOK_(kind, fn) \
  static struct hotreload_hook hotreload_hook_##kind##_##fn HOTRELOAD_KEEP_ \
      __attribute__((section("hotreload_hooks"))) = {HOTRELOAD_HOOK_##kind, fn}

/* Generation of the calling image (program or library): 0 until its first patch. */
unsigned long hotreload_generation(void);

#ifdef __cplusplus
}
#endif

#else

static inline int hotreload_poll(void) { return 0; }
static inline int hotreload_fd(void) { return -1; }
static inline int hotreload_pending(void) { return 0; }
static inline void hotreload_safepoint(void) {}
static inline void hotreload_blocked_begin(void) {}
static inline void hotreload_blocked_end(void) {}
static inline int hotreload_stack_add(void *lowest, unsigned long size, const void *context)
{
  (void)lowest;
  (void)size;
  (void)context;
  return 0;
}
static inline int hotreload_stack_remove(void *lowest)
{
  (void)lowest;
  return 0;
}
#define HOTRELOAD_BLOCKING(...) do { __VA_ARGS__; } while (0)
struct hotreload_recovery {
  int signal;
};
static inline int hotreload_recovery_begin(struct hotreload_recovery *place) { return place->signal = 0; }
static inline void hotreload_recovery_end(void) {}
#define HOTRELOAD_RECOVERY_SAFEPOINT(place) hotreload_recovery_begin(place)
#define HOTRELOAD_BEFORE_PATCH(fn) HOTRELOAD_HOOK_(BEFORE_PATCH, fn)
#define HOTRELOAD_AFTER_PATCH(fn) HOTRELOAD_HOOK_(AFTER_PATCH, fn)
#define HOTRELOAD_BEFORE_REVERT(fn) HOTRELOAD_HOOK_(BEFORE_REVERT, fn)
#define HOTRELOAD_HOOK_(kind, fn) \
  static int (*const hotreload_hook_##kind##_##fn)(unsigned long, unsigned long) __attribute__((unused)) = fn
static inline unsigned long hotreload_generation(void) { return 0; }

#endif

/* Room for members that a later edit adds to a struct or class, so that objects made before the edit stay right. It
 * takes BYTES rounded up to a multiple of 8, at a multiple of 8. Put the new members where it stands and make it
 * smaller, or leave it out, such that size and offsets of all else stay as they are. In objects made before, new
 * members hold what the reserve held: clear it if that matters (memset, calloc, = {0}). */
#define HOTRELOAD_RESERVE(bytes) HOTRELOAD_RESERVE_(bytes, __LINE__)
#define HOTRELOAD_RESERVE_(bytes, line) HOTRELOAD_RESERVE__(bytes, line)
#define HOTRELOAD_RESERVE__(bytes, line) \
  unsigned char hotreload_reserve_##line[((bytes) + 7) / 8 * 8] __attribute__((aligned(8)))

#endif
