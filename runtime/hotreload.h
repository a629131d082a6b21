/* What a program may include. Everything here is optional, and does nothing in a build without the
 * hotreload tool (which compiles with -DHOTRELOAD=1 and links the runtime into each image). */
#ifndef HOTRELOAD_H
#define HOTRELOAD_H

#ifdef HOTRELOAD

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

/* 1 while a patch waits for hotreload_poll() or is being applied, else 0. */
int hotreload_pending(void);

/* Marks a point at which this thread runs no function that must not change under it. */
void hotreload_safepoint(void);

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
static inline unsigned long hotreload_generation(void) { return 0; }

#endif

/* Room for members that a later edit adds to a struct or class, so that objects made before the edit stay right. It takes
 * BYTES rounded up to a multiple of 8, at a multiple of 8. Put the new members where it stands and make it smaller, or leave
 * it out, such that size and offsets of all else stay as they are. In objects made before, new members hold what the reserve
 * held: clear it if that matters (memset, calloc, = {0}). */
#define HOTRELOAD_RESERVE(bytes) HOTRELOAD_RESERVE_(bytes, __LINE__)
#define HOTRELOAD_RESERVE_(bytes, line) HOTRELOAD_RESERVE__(bytes, line)
#define HOTRELOAD_RESERVE__(bytes, line) \
  unsigned char hotreload_reserve_##line[((bytes) + 7) / 8 * 8] __attribute__((aligned(8)))

#endif
