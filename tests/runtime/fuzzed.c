/* The agent's payload parser for libFuzzer: each input is a payload, applied as a dry run, which must change nothing.
 * Built by tests/runtime/test_coverage_guided.py with clang -fsanitize=fuzzer,address,undefined. */
#include "internal.h"

#include <stdlib.h>
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

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  if (!hr_image_prepare()) /* HOTRELOAD_DISABLE is set: nobody else takes part */
    abort();
  __atomic_store_n(&hr_self.ready, 1, __ATOMIC_RELEASE);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct hr_request request = {.magic = HR_REQUEST_MAGIC, .abi = HR_ABI, .op = HR_OP_APPLY, .flags = HR_DRY_RUN,
                               .n_payloads = 1};
  int file = memfd_create("payload", MFD_CLOEXEC), generations;
  struct hr_order order = {.request = &request, .files = &file, .client = -1, .ballot = -1};
  uint64_t before = slot;
  struct hr_text text;

  if (file < 0 || write(file, data, size) != (ssize_t)size || !hr_text_new(&text))
    abort();
  hr_apply(&order, &text, &generations);
  if (text.lost || text.data[text.size - 1] != '}' || slot != before || hr_self.generation || hr_self.records)
    abort();
  hr_text_free(&text);
  close(file);
  return 0;
}
