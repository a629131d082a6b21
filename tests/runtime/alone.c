/* A program of one thread that allocates all the time, and checks what it gets. Takes commands meanwhile. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

#define BLOCKS 512
#define LARGEST 3000 /* bytes; most do not fit into the lists that each thread has of its own */
#define WORDS 3000000

int value(void);
STUB(value);
int value_body(void) BODY(value);

int counter = 100;
static unsigned char *blocks[BLOCKS];
static size_t sizes[BLOCKS];
static unsigned random_state = 1;
static char words[WORDS][12];
static const char *flag;
static bool works;
static volatile sig_atomic_t alarms;

__attribute__((noinline)) int value_body(void) { return ++counter; }

static unsigned next_random(void) { return (random_state = random_state * 1103515245 + 12345) >> 8; }

static void fail(const char *what) {
  printf("damaged: %s\n", what);
  fflush(stdout);
  _exit(1);
}

static void check(const unsigned char *block, size_t size, unsigned char content) {
  size_t i;

  for (i = 0; i < size; i++)
    if (block[i] != content)
      fail("a block holds something else");
}

static void renew(unsigned i) {
  size_t size = 1 + next_random() % LARGEST;

  if (blocks[i])
    check(blocks[i], sizes[i], (unsigned char)i);
  switch (next_random() % 3) {
  case 0:
    free(blocks[i]);
    blocks[i] = malloc(size);
    break;
  case 1:
    free(blocks[i]);
    blocks[i] = calloc(1, size);
    check(blocks[i], size, 0);
    break;
  default:
    blocks[i] = realloc(blocks[i], size);
  }
  memset(blocks[i], (int)(unsigned char)i, size);
  sizes[i] = size;
}

/* On the agent's thread, beside the program's. */
static int allocate(unsigned long from, unsigned long to) {
  void *taken[64];
  unsigned i, round;

  (void)from;
  (void)to;
  for (round = 0; round < 200; round++) {
    for (i = 0; i < 64; i++)
      taken[i] = malloc(1500 + 16 * i);
    for (i = 0; i < 64; i++)
      free(taken[i]);
  }
  return 0;
}

HOTRELOAD_BEFORE_PATCH(allocate);
HOTRELOAD_BEFORE_REVERT(allocate);

static void write_words(void) {
  unsigned i;

  for (i = 0; i < WORDS; i++)
    snprintf(words[i], sizeof words[i], "%u", next_random());
}

/* For long in the C library, which compares on its own. */
static void sort(void) {
  unsigned i;

  qsort(words, WORDS, sizeof *words, (int (*)(const void *, const void *))strcmp);
  for (i = 1; i < WORDS; i++)
    if (strcmp(words[i - 1], words[i]) > 0)
      fail("the words are not in order");
  printf("sorted\n");
}

static void *work_in_thread(void *unused) {
  for (;;)
    free(malloc(2000));
  return unused;
}

static void on_alarm(int number) {
  (void)number;
  alarms++;
}

static void ring(void) {
  struct itimerval often = {{0, 500}, {0, 500}};

  signal(SIGALRM, on_alarm);
  setitimer(ITIMER_REAL, &often, NULL);
  printf("rings\n");
}

static void say(const char *text) {
  if (write(1, text, strlen(text)) < 0)
    _exit(1);
}

static void on_first_alarm(int number) {
  (void)number;
  say("sorts\n");
}

/* Stays until a line comes. */
static void on_trap(int number) {
  char byte = 0;

  (void)number;
  say("trapped\n");
  while (byte != '\n' && read(0, &byte, 1) == 1)
    ;
}

/* The handler interrupts the C library. */
static void sort_and_ring(void (*handler)(int)) {
  struct itimerval once = {{0, 0}, {0, 20000}};

  write_words();
  signal(SIGALRM, handler);
  setitimer(ITIMER_REAL, &once, NULL);
  sort();
}

static void start_thread(void) {
  pthread_t thread;

  printf("thread %d\n", pthread_create(&thread, NULL, work_in_thread, NULL));
}

/* The child goes on with commands. */
static void fork_child(void) {
  pid_t child = fork();
  int status;

  if (child) {
    waitpid(child, &status, 0);
    printf("child ended with %d\n", status);
  } else {
    printf("child %d\n", (int)getpid());
  }
}

static bool obey(char *line) {
  line[strcspn(line, "\n")] = 0;
  if (!strcmp(line, "flag"))
    printf("flag %d\n", *flag);
  else if (!strcmp(line, "value"))
    printf("value %d\n", value());
  else if (!strcmp(line, "work"))
    printf("works %d\n", works = !works);
  else if (!strcmp(line, "sort"))
    sort_and_ring(on_first_alarm);
  else if (!strcmp(line, "trap"))
    sort_and_ring(on_trap);
  else if (!strcmp(line, "ring"))
    ring();
  else if (!strcmp(line, "rung"))
    printf("rung %d\n", alarms > 0);
  else if (!strcmp(line, "thread"))
    start_thread();
  else if (!strcmp(line, "fork"))
    fork_child();
  else
    return false;
  fflush(stdout);
  return true;
}

/* poll(2) leaves what is in the buffer of stdin out: so there is none. */
static bool has_line(void) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  int n = poll(&input, 1, works ? 0 : -1);

  return n == 1;
}

int main(void) {
  char line[256];
  unsigned i;

  flag = dlsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), "__libc_single_threaded");
  if (!flag)
    return 1;
  setvbuf(stdin, NULL, _IONBF, 0);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    for (i = 0; works && i < 2000; i++)
      renew(next_random() % BLOCKS);
    if (has_line() && (!fgets(line, sizeof line, stdin) || !obey(line)))
      return 0;
  }
}
