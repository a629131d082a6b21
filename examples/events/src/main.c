/* An event loop without any thread: patches are one more event, and come in when nothing else is going on.
 *
 *   events        handles each line of standard input (a pipe or a terminal), until the input ends */
#include <hotreload.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "handler.h"

static char input[4096];
static size_t used;

static int watch(int loop, int fd)
{
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

  return epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

/* Hands out the lines that came; 0: there will be none any more. */
static int read_lines(void)
{
  ssize_t n = read(STDIN_FILENO, input + used, sizeof input - 1 - used);
  char *line = input, *end;

  if (n <= 0)
    return 0;
  used += (size_t)n;
  input[used] = '\0';
  while ((end = strchr(line, '\n'))) {
    *end = '\0';
    on_line(line);
    line = end + 1;
  }
  used = used == sizeof input - 1 && line == input ? 0 : used - (size_t)(line - input);
  memmove(input, line, used);
  return 1;
}

int main(void)
{
  int loop = epoll_create1(EPOLL_CLOEXEC), patches = hotreload_fd();
  struct epoll_event event;

  if (loop < 0 || watch(loop, STDIN_FILENO)) {
    perror("events");
    return 1;
  }
  if (patches >= 0)
    watch(loop, patches);
  printf("waiting\n");
  fflush(stdout);
  for (;;) {
    if (epoll_wait(loop, &event, 1, -1) != 1)
      continue;
    if (event.data.fd == STDIN_FILENO && !read_lines())
      return 0;
    if (event.data.fd == patches)
      hotreload_poll(); /* no handler is running: whatever changed in them goes in */
  }
}
