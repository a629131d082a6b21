/* Damages a payload thousands of times and hands each to the agent's parser, as a dry run: nothing may crash, and
 * nothing may be left behind. At last the sound payload goes in for good.
 * usage: mutate PAYLOAD SEED COUNT. Built with the runtime itself under ASan and UBSan. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stubs.h"

int value(void);
STUB(value);
int value_body(void) BODY(value);
int counter = 100;
__thread int per_thread = 1;

__attribute__((noinline)) int value_body(void) { return ++counter + per_thread - 1; }

extern uint64_t slot __asm__("value.hr_slot") __attribute__((visibility("hidden")));

static uint64_t state;

static uint64_t next_random(void) { /* xorshift64* */
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545F4914F6CDD1DULL;
}

static void fail(const char *what, unsigned long round) {
  printf("round %lu: %s\n", round, what);
  exit(1);
}

/* Interesting values hit boundaries more often than random ones. */
static uint64_t interesting(void) {
  static const uint64_t values[] = {0, 1, 7, 8, 0xfff, 0x1000, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 47, ~0ull,
                                    0x7fffffffffffffffull, 0xfffffffffffff000ull};

  return next_random() % 3 ? values[next_random() % (sizeof values / sizeof *values)] : next_random();
}

/* Most damage goes where the structures are: the first page (headers, symbols, relocations) and the page of tables. */
static size_t somewhere(const size_t *spots, size_t n_spots, size_t size) {
  if (next_random() % 8)
    return (spots[next_random() % n_spots] + next_random() % 1024) % size;
  return next_random() % size;
}

static size_t damage(uint8_t *data, size_t size, const size_t *spots, size_t n_spots) {
  unsigned n = 1 + next_random() % 4;

  while (n--) {
    size_t at = somewhere(spots, n_spots, size);
    uint64_t value = interesting();
    size_t width = (size_t)1 << next_random() % 4;

    if (next_random() % 2)
      data[at] ^= (uint8_t)(1u << next_random() % 8);
    else if (at + width <= size)
      memcpy(data + (at & ~(width - 1)), &value, width);
  }
  return next_random() % 16 ? size : next_random() % size;
}

static enum hr_code apply(const uint8_t *data, size_t size, unsigned flags) {
  struct hr_request request = {.magic = HR_REQUEST_MAGIC, .abi = HR_ABI, .op = HR_OP_APPLY, .flags = flags,
                               .n_payloads = 1};
  int file = memfd_create("payload", MFD_CLOEXEC), generations;
  struct hr_order order = {.request = &request, .files = &file, .client = -1, .ballot = -1};
  struct hr_text text;
  enum hr_code code;

  if (file < 0 || write(file, data, size) != (ssize_t)size || !hr_text_new(&text))
    fail("no memory", 0);
  code = hr_apply(&order, &text, &generations);
  if (text.lost || text.data[text.size - 1] != '}')
    fail("the answer is cut off", 0);
  hr_text_free(&text);
  close(file);
  return code;
}

int main(int argc, char **argv) {
  unsigned long rounds = argc > 3 ? strtoul(argv[3], NULL, 0) : 0, round, seen[32] = {0};
  FILE *input = argc > 3 ? fopen(argv[1], "rb") : NULL;
  static uint8_t sound[1 << 16], data[sizeof sound];
  size_t size = input ? fread(sound, 1, sizeof sound, input) : 0, spots[] = {0, 256, 512, 0};
  uint64_t before = slot;
  unsigned i;

  if (!hr_image_prepare()) /* HOTRELOAD_DISABLE is set: nobody else takes part */
    fail("no arena", 0);
  __atomic_store_n(&hr_self.ready, 1, __ATOMIC_RELEASE);
  if (!size || size == sizeof sound)
    fail("usage: mutate PAYLOAD SEED COUNT", 0);
  fclose(input);
  state = strtoull(argv[2], NULL, 0) * 2 + 1;
  spots[3] = size > 4096 ? ((Elf64_Phdr *)(sound + 64))[3].p_offset : 0; /* where the payload header is */
  for (round = 0; round < rounds; round++) {
    memcpy(data, sound, size);
    seen[apply(data, damage(data, size, spots, 4), HR_DRY_RUN)]++;
    if (slot != before || hr_self.generation || hr_self.records)
      fail("a dry run changed the process", round);
  }
  if (value() != 101 || apply(sound, size, 0) != HR_OK || value() != 1102)
    fail("the sound payload does not go in", round);
  for (i = 0; i < 32; i++)
    if (seen[i])
      printf("%s %lu\n", hr_code_name(i), seen[i]);
  printf("done\n");
  return 0;
}
