/* Load on a server of lines: each connection sends its request again as soon as the answer is there. usage: load PORT
 * CONNECTIONS SECONDS REQUEST PREFIX END An answer begins with PREFIX and ends with END; any other, or a connection
 * that breaks, is a failure. Prints one line: requests, failures, seconds, and the latencies at 50, 99, 99.9 percent
 * and the longest, in microseconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 4096 /* of latencies: 64 for each power of two of nanoseconds */

struct connection {
  pthread_t thread;
  uint64_t counts[BUCKETS], requests, failures, longest;
};

static int port;
static const char *request, *prefix, *terminator;
static volatile int over;

static uint64_t now_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned bucket_of(uint64_t ns) {
  unsigned power = 63u - (unsigned)__builtin_clzll(ns | 64);

  return power * 64 + (unsigned)(ns >> (power - 6) & 63);
}

static double start_of(unsigned bucket) {
  return (double)(1ull << bucket / 64) * (1 + bucket % 64 / 64.0);
}

static int open_connection(void) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) {
    perror("load: connect");
    exit(1);
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

/* Whether an answer came, and is one that is expected. */
static int ask(int fd) {
  size_t got = 0, size = strlen(request), end = strlen(terminator);
  char answer[4096];
  ssize_t n;

  if (send(fd, request, size, MSG_NOSIGNAL) != (ssize_t)size)
    return 0;
  do {
    n = recv(fd, answer + got, sizeof answer - got, 0);
    if (n <= 0)
      return 0;
    got += (size_t)n;
  } while (got < end || memcmp(answer + got - end, terminator, end));
  return got >= strlen(prefix) && !memcmp(answer, prefix, strlen(prefix));
}

static void *run(void *argument) {
  struct connection *c = argument;
  int fd = open_connection();
  uint64_t from, took;

  while (!over) {
    from = now_ns();
    if (!ask(fd)) {
      c->failures++;
      close(fd);
      fd = open_connection();
      continue;
    }
    took = now_ns() - from;
    c->requests++;
    c->counts[bucket_of(took)]++;
    c->longest = took > c->longest ? took : c->longest;
  }
  close(fd);
  return NULL;
}

static double percentile(const uint64_t *counts, uint64_t all, double share) {
  uint64_t seen = 0;
  unsigned i;

  for (i = 0; i < BUCKETS; i++)
    if ((seen += counts[i]) > (uint64_t)(share * (double)all))
      return start_of(i) / 1000;
  return 0;
}

static void report(const struct connection *connections, int n, double seconds) {
  static struct connection sum;
  int i, k;

  for (i = 0; i < n; i++) {
    sum.requests += connections[i].requests;
    sum.failures += connections[i].failures;
    sum.longest = connections[i].longest > sum.longest ? connections[i].longest : sum.longest;
    for (k = 0; k < BUCKETS; k++)
      sum.counts[k] += connections[i].counts[k];
  }
  printf("%llu %llu %.3f %.1f %.1f %.1f %.1f\n", (unsigned long long)sum.requests,
         (unsigned long long)sum.failures, seconds, percentile(sum.counts, sum.requests, 0.5),
         percentile(sum.counts, sum.requests, 0.99), percentile(sum.counts, sum.requests, 0.999),
         (double)sum.longest / 1000);
}

int main(int argc, char **argv) {
  static struct connection connections[256];
  uint64_t begun = now_ns();
  int n, i;

  if (argc != 7 || (n = atoi(argv[2])) < 1 || n > 256)
    return 2;
  port = atoi(argv[1]);
  request = argv[4];
  prefix = argv[5];
  terminator = argv[6];
  for (i = 0; i < n; i++)
    if (pthread_create(&connections[i].thread, NULL, run, &connections[i]))
      return 1;
  poll(NULL, 0, (int)(atof(argv[3]) * 1000));
  over = 1;
  for (i = 0; i < n; i++)
    pthread_join(connections[i].thread, NULL);
  report(connections, n, (double)(now_ns() - begun) / 1e9);
  return 0;
}
