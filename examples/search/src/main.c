/* Threads that are always deep in a recursion, and come to their safepoints when a patch waits.
 *
 *   search        prints what the last finished board had, for each line of standard input, until that ends */
#include <hotreload.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "board.h"

#define WORKERS 3

static long ways, boards;
static int over;

static void *work(void *unused)
{
  while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
    unsigned long rule = hotreload_generation();
    struct board board;

    memset(&board, 0, sizeof board);
    while (!board_search(&board, 0)) {
      hotreload_safepoint(); /* the patch goes in here, when all threads have come */
      if (rule != hotreload_generation())
        break; /* counted by two rules it would be nonsense */
    }
    hotreload_safepoint();
    if (rule != hotreload_generation())
      continue;
    __atomic_store_n(&ways, board.ways, __ATOMIC_RELAXED);
    __atomic_add_fetch(&boards, 1, __ATOMIC_RELAXED);
  }
  return unused;
}

static char *next_line(char *line, int size)
{
  char *got;

  HOTRELOAD_BLOCKING(got = fgets(line, size, stdin)); /* who waits for input need not be waited for */
  return got;
}

int main(void)
{
  pthread_t workers[WORKERS];
  char line[64];
  int i;

  for (i = 0; i < WORKERS; i++)
    pthread_create(&workers[i], NULL, work, NULL);
  printf("searching\n");
  fflush(stdout);
  while (next_line(line, sizeof line)) {
    printf("%ld boards, the last one with %ld ways\n", __atomic_load_n(&boards, __ATOMIC_RELAXED),
           __atomic_load_n(&ways, __ATOMIC_RELAXED));
    fflush(stdout);
  }
  __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
  for (i = 0; i < WORKERS; i++)
    pthread_join(workers[i], NULL);
  return 0;
}
