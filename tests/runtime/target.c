/* A program to patch. Reads commands, one a line, and answers each with one line. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

int value(void);
int twice(int x);
STUB(value);
STUB(twice);
int value_body(void) BODY(value);
int twice_body(int x) BODY(twice);

extern char **environ;
int counter = 100;
int merged = 5, tuned = 5;
const char greeting[16] = "hello";
__thread int per_thread = 7;

__attribute__((noinline)) int value_body(void) { return ++counter; }
__attribute__((noinline)) int twice_body(int x) { return 2 * x; }

static int (*volatile stored)(void) = value;

static void list_descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  struct dirent *entry;

  while ((entry = readdir(directory)))
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
      printf("%s ", entry->d_name);
  closedir(directory);
  printf("descriptors\n");
}

static void count_threads(void) {
  DIR *directory = opendir("/proc/self/task");
  int n = 0;
  struct dirent *entry;

  while ((entry = readdir(directory)))
    n += entry->d_name[0] != '.';
  closedir(directory);
  printf("%d threads\n", n);
}

/* The child goes on reading commands; the parent waits for its end, then goes on itself. */
static void fork_child(void) {
  pid_t child = fork();

  if (child) {
    int status;

    waitpid(child, &status, 0);
    printf("child ended with %d\n", status);
  } else {
    printf("child %d\n", (int)getpid());
  }
}

/* The child shares the memory until it gets a byte, then execs. It makes system calls only. */
static void vfork_child(void) {
  char *arguments[] = {"/bin/true", NULL}, byte;
  pid_t child = vfork();
  int status;

  if (!child) {
    if (write(1, "waiting\n", 8) == 8 && read(0, &byte, 1) == 1)
      execve(arguments[0], arguments, environ);
    _exit(1);
  }
  waitpid(child, &status, 0);
  printf("vforked, status %d\n", status);
}

/* As daemons do; 0 to 2 stay, so that the test can go on talking. Then takes low and high numbers for itself. */
static void close_all(void) {
  int null, i;

  for (i = 3; i < 1024; i++)
    close(i);
  null = open("/dev/null", O_RDWR);
  dup2(null, 1008);
  dup2(null, 1009);
  printf("closed\n");
}

/* The grandchild goes on reading commands. */
static void become_daemon(void) {
  if (fork())
    _exit(0);
  setsid();
  if (fork())
    _exit(0);
  close_all();
  printf("daemon %d\n", (int)getpid());
}

static void spawn_true(void) {
  char *arguments[] = {"/bin/true", NULL};
  pid_t child;
  int i, status;

  for (i = 0; i < 20; i++) {
    if (!(child = i % 2 ? fork() : vfork())) {
      execve(arguments[0], arguments, environ);
      _exit(1);
    }
    waitpid(child, &status, 0);
    if (status)
      break;
  }
  posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ);
  waitpid(child, &status, 0);
  printf("spawned, status %d\n", status);
}

static void *other_thread(void *argument) {
  (void)argument;
  printf("%d in another thread\n", value());
  return NULL;
}

static void run_thread(void) {
  pthread_t thread;

  pthread_create(&thread, NULL, other_thread, NULL);
  pthread_join(thread, NULL);
}

static void *churn_thread(void *failures) {
  int i, status;

  for (i = 0; i < 200; i++) {
    pid_t child = fork();

    if (!child)
      _exit(value() > 0 ? 0 : 1);
    if (child < 0 || waitpid(child, &status, 0) != child || status)
      __atomic_add_fetch((int *)failures, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}

/* Children from two threads, while patches come in. */
static void churn(void) {
  pthread_t threads[2];
  int failures = 0, i;

  for (i = 0; i < 2; i++)
    pthread_create(&threads[i], NULL, churn_thread, &failures);
  for (i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  printf("churned %d\n", failures);
}

static int (*library_function)(void);
static void *library;

static void load(const char *path) {
  library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    printf("not loaded: %s\n", dlerror());
    return;
  }
  *(void **)&library_function = dlsym(library, "library_value");
  printf("loaded\n");
}

#ifdef THROWS
int throws(void);
#endif

static void command(char *line) {
  if (!strcmp(line, "value"))
    printf("value %d\n", value());
  else if (!strcmp(line, "stored"))
    printf("stored %d\n", stored());
  else if (!strcmp(line, "twice"))
    printf("twice %d\n", twice(21));
  else if (!strcmp(line, "data"))
    printf("data %d %d %s %d\n", merged, tuned, greeting, per_thread);
  else if (!strcmp(line, "change"))
    printf("changed %d\n", ++tuned);
  else if (!strcmp(line, "descriptors"))
    list_descriptors();
  else if (!strcmp(line, "threads"))
    count_threads();
  else if (!strcmp(line, "thread"))
    run_thread();
  else if (!strcmp(line, "fork"))
    fork_child();
  else if (!strcmp(line, "churn"))
    churn();
  else if (!strcmp(line, "vfork"))
    vfork_child();
  else if (!strcmp(line, "daemon"))
    become_daemon();
  else if (!strncmp(line, "exec ", 5))
    printf("no exec %d\n", execl(line + 5, line + 5, NULL));
  else if (!strcmp(line, "spawn"))
    spawn_true();
  else if (!strcmp(line, "close"))
    close_all();
  else if (!strcmp(line, "lock"))
    printf("locked %d\n", mlockall(MCL_CURRENT | MCL_FUTURE));
  else if (!strncmp(line, "load ", 5))
    load(line + 5);
  else if (!strcmp(line, "library"))
    printf("library %d\n", library_function());
  else if (!strcmp(line, "unload"))
    printf("unloaded %d\n", dlclose(library));
  else if (!strcmp(line, "generation"))
    printf("generation %lu pending %d\n", hotreload_generation(), hotreload_pending());
#ifdef THROWS
  else if (!strcmp(line, "throws"))
    printf("throws %d\n", throws());
#endif
#ifdef POLLS
  else if (!strcmp(line, "pending"))
    printf("pending %d\n", hotreload_pending());
  else if (!strcmp(line, "poll"))
    printf("poll %d\n", hotreload_poll());
  else if (!strcmp(line, "fd"))
    printf("fd %d\n", hotreload_fd());
#endif
  else
    printf("unknown %s\n", line);
}

int main(void) {
  char line[4096];

  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "exit"))
      exit(3);
    command(line);
  }
  return 0;
}
