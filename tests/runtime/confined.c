/* A program that gives up rights in several ways. Reads commands, one a line, and answers each with one line. Makes few
 * system calls itself: read, write, and what a command says. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

int value(void);
STUB(value);
int value_body(void) BODY(value);
int counter = 100;
const char greeting[16] = "hello";

__attribute__((noinline)) int value_body(void) { return ++counter; }

#define CALL_OFFSET offsetof(struct seccomp_data, nr)
#define LOW_WORD(i) (offsetof(struct seccomp_data, args) + 8 * (i))
#define SAY(...) BPF_STMT(BPF_RET | BPF_K, __VA_ARGS__)

static struct sock_filter code[512];
static unsigned n_code;

static void put(struct sock_filter one) { code[n_code++] = one; }

/* On the calling thread, or on all. */
static int install(unsigned flags) {
  struct sock_fprog program = {(unsigned short)n_code, code};

  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* "NUMBER NUMBER …": these get one answer, all others the other one. */
static void list_calls(char *numbers, unsigned listed, unsigned others) {
  char *word;

  n_code = 0;
  put((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, CALL_OFFSET));
  while ((word = strtok_r(numbers, " ", &numbers))) {
    put((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)atoi(word), 0, 1));
    put((struct sock_filter)SAY(listed));
  }
  put((struct sock_filter)SAY(others));
}

/* mmap, mprotect and pkey_mprotect that ask for memory that is writable and executable end the program. */
static void forbid_write_and_execute(void) {
  static const unsigned calls[] = {SYS_mmap, SYS_mprotect, SYS_pkey_mprotect};
  unsigned i;

  n_code = 0;
  for (i = 0; i < sizeof calls / sizeof *calls; i++) {
    put((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, CALL_OFFSET));
    put((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 4));
    put((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW_WORD(2)));
    put((struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC));
    put((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_WRITE | PROT_EXEC, 0, 1));
    put((struct sock_filter)SAY(SECCOMP_RET_KILL_PROCESS));
  }
  put((struct sock_filter)SAY(SECCOMP_RET_ALLOW));
}

static void *wait_confined(void *mode) {
  char byte;

  if (mode) {
    list_calls((char[]){""}, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW);
    install(0);
  } else {
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
  }
  syscall(SYS_write, STDOUT_FILENO, "started\n", 8);
  while (syscall(SYS_read, 99, &byte, 1) == 1)
    ;
  syscall(SYS_exit, 0); /* all that the strict mode allows */
  return NULL;
}

static int pipe_ends[2];

static void start_confined(const char *how) {
  pthread_t thread;

  if (pipe(pipe_ends) || dup2(pipe_ends[0], 99) < 0)
    abort();
  pthread_create(&thread, NULL, wait_confined, !strcmp(how, "filter") ? &thread : NULL);
}

static void end_confined(void) {
  close(pipe_ends[1]);
  printf("closed\n");
}

/* The child goes on reading commands. */
static void fork_child(void) {
  pid_t child = fork();
  int status;

  if (!child)
    printf("child %d\n", (int)getpid());
  else if (waitpid(child, &status, 0) == child)
    printf("child ended with %d\n", status);
}

static void limit(const char *which) {
  struct rlimit none = {0, 0};

  printf("limited %d\n", setrlimit(!strcmp(which, "memory") ? RLIMIT_AS : RLIMIT_NPROC, &none));
}

/* Long enough for the agent to look at a thread that runs. */
static void spin(void) {
  volatile long i;

  for (i = 0; i < 200000000; i++)
    ;
  printf("spun\n");
}

static void *crash(void *unused) {
  struct hotreload_recovery here;

  (void)unused;
  if (HOTRELOAD_RECOVERY_SAFEPOINT(&here))
    printf("recovered\n");
  else
    printf("safely %d\n", value());
  hotreload_recovery_end();
  return NULL;
}

static void command(char *line) {
  char *rest = strchr(line, ' ');
  int all = SECCOMP_FILTER_FLAG_TSYNC;

  if (rest)
    *rest++ = 0;
  if (!strcmp(line, "value"))
    printf("value %d\n", value());
  else if (!strcmp(line, "data"))
    printf("data %s\n", greeting);
  else if (!strcmp(line, "safely"))
    crash(NULL);
  else if (!strcmp(line, "spin"))
    spin();
  else if (!strcmp(line, "fork"))
    fork_child();
  else if (!strcmp(line, "only"))
    (list_calls(rest, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS), printf("confined %d\n", install((unsigned)all)));
  else if (!strcmp(line, "without"))
    (list_calls(rest, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW), printf("confined %d\n", install((unsigned)all)));
  else if (!strcmp(line, "no-write-and-execute"))
    (forbid_write_and_execute(), printf("confined %d\n", install((unsigned)all)));
  else if (!strcmp(line, "thread"))
    start_confined(rest);
  else if (!strcmp(line, "end"))
    end_confined();
  else if (!strcmp(line, "mdwe"))
    printf("mdwe %d\n", prctl(PR_SET_MDWE, 1, 0, 0, 0));
  else if (!strcmp(line, "undumpable"))
    printf("undumpable %d\n", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  else if (!strcmp(line, "chroot"))
    printf("chroot %d\n", chroot(rest) || chdir("/"));
  else if (!strcmp(line, "limit"))
    limit(rest);
  else if (!strcmp(line, "user"))
    printf("user %d\n", setgid((gid_t)atoi(rest)) || setuid((uid_t)atoi(rest)));
  else if (!strcmp(line, "map"))
    printf("mapped %d\n", mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  else
    printf("unknown %s\n", line);
}

int main(void) {
  char line[4096];

  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    command(line);
  }
  return 0;
}
