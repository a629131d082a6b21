/* A copy of a payload that nobody can change, in a sealed file in memory.
 *
 * Mapped from the file itself, pages would be gone when somebody cuts it, private ones too, and whoever touches them
 * dies of SIGBUS. Code is mapped from a file all the same, never written and then made executable: that works where the
 * latter is forbidden. Context: prepare. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* linux/memfd.h, since Linux 6.3 */
#endif

#define NAME_SIZE 250 /* bytes of a memfd's name, with the final zero: memfd_create(2) */
#define CHUNK 8192

/* All of `size` bytes at `offset`; false where the file has fewer. */
bool hr_read_at(int file, void *to, size_t size, uint64_t offset) {
  size_t done = 0;

  while (done < size) {
    ssize_t n = pread(file, (char *)to + done, size - done, (off_t)(offset + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    done += (size_t)n;
  }
  return true;
}

bool hr_write_at(int file, const void *from, size_t size, uint64_t offset) {
  size_t done = 0;

  while (done < size) {
    ssize_t n = pwrite(file, (const char *)from + done, size - done, (off_t)(offset + done));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    done += (size_t)n;
  }
  return true;
}

/* The name under which /proc/PID/maps shows the copy: the file's, or the end of it. */
static void name_copy(int file, char name[NAME_SIZE]) {
  char link[64], path[HR_PATH_MAX];
  ssize_t n;

  snprintf(link, sizeof link, "/proc/thread-self/fd/%d", file);
  n = readlink(link, path, sizeof path - 1);
  path[n > 0 ? n : 0] = 0;
  n = n >= NAME_SIZE ? n - (NAME_SIZE - 1) : 0;
  strcpy(name, path[0] ? path + n : "hotreload");
}

/* An empty file in memory that can be sealed; -1: errno says why not. */
int hr_memory_file(const char *name) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int file = memfd_create(name, flags | MFD_NOEXEC_SEAL);

  return file < 0 && errno == EINVAL ? memfd_create(name, flags) : file;
}

bool hr_seal(int file) {
  return !fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}

/* An empty file in memory that is named as `file` is; -1: refused. */
int hr_copy_new(int file, struct hr_error *error) {
  char name[NAME_SIZE];
  int copy = -1;

  name_copy(file, name);
  if (!hr_fault(HR_STEP_COPY))
    copy = hr_memory_file(name);
  if (copy < 0)
    hr_refuse(error, HR_NO_MEMORY, "no file in memory for a copy of the payload: %s", strerror(errno));
  return copy;
}

/* Puts bytes of `from` at the same place of `to`. */
bool hr_copy_bytes(int from, int to, uint64_t offset, uint64_t size, struct hr_error *error) {
  uint8_t chunk[CHUNK];
  uint64_t done, part;

  for (done = 0; done < size; done += part) {
    part = size - done < sizeof chunk ? size - done : sizeof chunk;
    if (!hr_read_at(from, chunk, part, offset + done))
      return hr_refuse(error, HR_BAD_PAYLOAD,
                       "byte %" PRIu64 " of the payload can't be read: the file was cut meanwhile", offset + done);
    if (hr_fault(HR_STEP_COPY_WRITE) || !hr_write_at(to, chunk, part, offset + done))
      return hr_refuse(error, HR_NO_MEMORY, "no memory for a copy of the payload: %s", strerror(errno));
  }
  return true;
}

/* From here on nobody can change it, we neither. */
bool hr_copy_seal(int copy, struct hr_error *error) {
  if (hr_fault(HR_STEP_COPY_SEAL) || !hr_seal(copy))
    return hr_refuse(error, HR_NO_MEMORY, "the copy of the payload can't be sealed: %s", strerror(errno));
  return true;
}
