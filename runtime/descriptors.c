/* The agent's descriptors: in a table of its own, or among the program's, which may close and reuse any of them. */
#include "internal.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define HIGHEST_WANTED 1024 /* select() takes no descriptor from here on */

bool hr_descriptor_identify(struct hr_descriptor *d) {
  struct stat stat;

  if (fstat(d->fd, &stat))
    return false;
  d->device = stat.st_dev;
  d->inode = stat.st_ino;
  return true;
}

bool hr_descriptor_is_ours(const struct hr_descriptor *d) {
  struct stat stat;

  return d->fd >= 0 && !fstat(d->fd, &stat) && stat.st_dev == d->device && stat.st_ino == d->inode;
}

void hr_descriptor_forget(struct hr_descriptor *d) {
  if (hr_descriptor_is_ours(d))
    close(d->fd);
  d->fd = -1;
}

/* Moves a descriptor out of the range programs use and expect to be dense. */
int hr_descriptor_raise(int fd) {
  struct rlimit limit;
  int raised, base = HIGHEST_WANTED - 16;

  if (fd < 0)
    return fd;
  if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < HIGHEST_WANTED)
    base = (int)limit.rlim_cur - 16;
  raised = base > fd ? fcntl(fd, F_DUPFD_CLOEXEC, base) : -1;
  if (raised < 0)
    return fd;
  close(fd);
  return raised;
}

static void close_all_above_standard(void) {
  struct rlimit limit;
  int fd, end = 1 << 16;

  if (!syscall(SYS_close_range, 3, ~0u, 0))
    return;
  if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < (rlim_t)end)
    end = (int)limit.rlim_cur;
  for (fd = 3; fd < end; fd++)
    close(fd);
}

/* Gives the calling thread an empty descriptor table. The copies it held must go, or the program's pipes would
 * never see their end. 0 to 2 become /dev/null: what a library writes to them must not reach a client. */
bool hr_descriptors_own_table(void) {
  int null, fd;

  if (unshare(CLONE_FILES))
    return false;
  close_all_above_standard();
  null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (fd = 0; fd < 3; fd++)
    if (null < 0)
      close(fd);
    else
      dup2(null, fd);
  if (null > 2)
    close(null);
  return true;
}
