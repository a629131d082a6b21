/* What the agent answers: JSON as docs/formats.md has it, and sentences for refusals. */
#include "internal.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
  const char *name, *sentence;
} codes[] = {
#define HR_CODE(name, number, exit_code, text) [number] = {#name, text},
#include "hr_codes.def"
#undef HR_CODE
};

const char *hr_code_name(enum hr_code code) {
  return (size_t)code < sizeof codes / sizeof *codes ? codes[code].name : "INTERNAL";
}

static const char *code_sentence(enum hr_code code) {
  return (size_t)code < sizeof codes / sizeof *codes ? codes[code].sentence : "";
}

/* Keeps the first refusal; returns false so that a step can end with it. */
bool hr_refuse(struct hr_error *error, enum hr_code code, const char *format, ...) {
  va_list arguments;

  if (error->code != HR_OK)
    return false;
  error->code = code;
  va_start(arguments, format);
  vsnprintf(error->detail, sizeof error->detail, format, arguments);
  va_end(arguments);
  return false;
}

/* ---- text ------------------------------------------------------------------------------------------ */

bool hr_text_new(struct hr_text *text) {
  void *at = mmap(NULL, HR_TEXT_FIRST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  memset(text, 0, sizeof *text);
  if (at == MAP_FAILED)
    return false;
  text->data = at;
  text->capacity = HR_TEXT_FIRST;
  text->size = sizeof(struct hr_reply);
  return true;
}

/* What was said before does not count. */
static void text_restart(struct hr_text *text) {
  text->size = sizeof(struct hr_reply);
  text->lost = false;
}

void hr_text_free(struct hr_text *text) {
  if (text->data)
    munmap(text->data, text->capacity);
  memset(text, 0, sizeof *text);
}

static bool make_room(struct hr_text *text, size_t size) {
  void *at;

  if (size <= text->capacity - text->size)
    return true;
  if (!text->may_grow || size > text->capacity)
    return false;
  at = mremap(text->data, text->capacity, text->capacity * 2, MREMAP_MAYMOVE);
  if (at == MAP_FAILED)
    return false;
  text->data = at;
  text->capacity *= 2;
  return true;
}

static void put(struct hr_text *text, const char *bytes, size_t size) {
  if (text->lost || !make_room(text, size)) {
    text->lost = true;
    return;
  }
  memcpy(text->data + text->size, bytes, size);
  text->size += size;
}

static void puts_(struct hr_text *text, const char *string) { put(text, string, strlen(string)); }

/* No stdio in these: reports of a guard are written in signal handlers. */
static void put_number(struct hr_text *text, uint64_t number) {
  char digits[24];
  size_t at = sizeof digits;

  do {
    digits[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number);
  put(text, digits + at, sizeof digits - at);
}

static void put_digits(struct hr_text *text, unsigned number, unsigned n) {
  while (n-- > 0)
    put(text, &"0123456789abcdef"[number >> 4 * n & 15], 1);
}

/* Length of the well-formed UTF-8 sequence at `s` (RFC 3629), 0 if there is none. */
static size_t utf8_length(const unsigned char *s) {
  size_t length = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0, i;

  for (i = 1; i < length; i++)
    if ((s[i] & 0xc0) != 0x80)
      return 0;
  if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
      (s[0] == 0xf4 && s[1] > 0x8f))
    return 0;
  return length;
}

/* A JSON string. Bytes that are not UTF-8 (file names may hold any) become \udcXX, as Python's
 * surrogateescape has them. */
static void put_string(struct hr_text *text, const char *string) {
  const unsigned char *s = (const unsigned char *)string;

  puts_(text, "\"");
  while (*s) {
    size_t length = *s >= 0x20 && *s < 0x7f && *s != '"' && *s != '\\' ? 1 : utf8_length(s);

    if (length) {
      put(text, (const char *)s, length);
    } else {
      length = 1;
      puts_(text, "\\u");
      put_digits(text, *s < 0x80 ? *s : 0xdc00u + *s, 4);
    }
    s += length;
  }
  puts_(text, "\"");
}

static void put_hex(struct hr_text *text, const uint8_t *bytes, size_t size) {
  size_t i;

  puts_(text, "\"");
  for (i = 0; i < size; i++)
    put_digits(text, bytes[i], 2);
  puts_(text, "\"");
}

static void key(struct hr_text *text, const char *name) {
  char last = text->size > sizeof(struct hr_reply) ? text->data[text->size - 1] : '{';

  if (last != '{' && last != '[')
    puts_(text, ",");
  put_string(text, name);
  puts_(text, ":");
}

static void key_number(struct hr_text *text, const char *name, uint64_t number) {
  key(text, name);
  put_number(text, number);
}

static void key_string(struct hr_text *text, const char *name, const char *string) {
  key(text, name);
  put_string(text, string);
}

static void key_hex(struct hr_text *text, const char *name, const uint8_t *bytes, size_t size) {
  key(text, name);
  put_hex(text, bytes, size);
}

static void key_bool(struct hr_text *text, const char *name, bool value) {
  key(text, name);
  puts_(text, value ? "true" : "false");
}

static void next_item(struct hr_text *text) {
  if (text->data[text->size - 1] != '[')
    puts_(text, ",");
}

/* ---- status ---------------------------------------------------------------------------------------- */

struct status {
  struct hr_text *text;
  const char *executable;
};

/* Bytes of a generation that are mapped, all of it or nothing. */
static uint64_t mapped(const struct hr_record *record) { return record->pages.end - record->pages.start; }

/* Those that have anything mapped. The others are many after a while, and only counted. */
static void put_payloads(struct hr_text *text, const char *name, const struct hr_record *record, uintptr_t bias) {
  key(text, name);
  puts_(text, "[");
  for (; record; record = record->older) {
    if (!mapped(record))
      continue;
    next_item(text);
    puts_(text, "{");
    key_number(text, "generation", record->generation);
    key_hex(text, "id", record->id, HR_ID_SIZE);
    key_number(text, "start", record->pages.start - bias);
    key_number(text, "end", record->pages.end - bias);
    key_number(text, "mapped", mapped(record));
    puts_(text, "}");
  }
  puts_(text, "]");
}

static void put_generations(struct hr_text *text, const struct hr_loaded *loaded) {
  const struct hr_record *record;
  uint64_t unmapped = 0;

  put_payloads(text, "payloads", loaded->image->records, loaded->bias);
  put_payloads(text, "reverted", loaded->image->reverted, loaded->bias);
  for (record = loaded->image->records; record; record = record->older)
    unmapped += !mapped(record);
  for (record = loaded->image->reverted; record; record = record->older)
    unmapped += !mapped(record);
  key_number(text, "unmapped", unmapped);
}

static void put_arena(struct hr_text *text, const struct hr_loaded *loaded) {
  uintptr_t used = loaded->image->arena.start;
  const struct hr_record *record;
  uint64_t sum = 0;

  for (record = loaded->image->records; record; record = record->older) {
    used = record->pages.end > used ? record->pages.end : used;
    sum += mapped(record);
  }
  for (record = loaded->image->reverted; record; record = record->older) {
    used = record->pages.end > used ? record->pages.end : used;
    sum += mapped(record);
  }
  key(text, "arena");
  puts_(text, "{");
  key_number(text, "address", loaded->image->arena.start - loaded->bias);
  key_number(text, "size", loaded->image->arena.end - loaded->image->arena.start);
  key_number(text, "used_end", used - loaded->bias);
  key_number(text, "mapped", sum);
  puts_(text, "}");
}

static const char *image_kind(const struct hr_loaded *loaded) {
  return !loaded->is_main ? "shared" : loaded->bias ? "pie" : "exec";
}

/* What a library that was loaded after patches could not take. */
static void put_missed(struct hr_text *text, const struct hr_loaded *loaded) {
  const struct hr_chain *chain = hr_late_chain(loaded->build_id);

  key(text, "missed");
  if (!chain || loaded->image->generation >= chain->generation) {
    puts_(text, "null");
    return;
  }
  puts_(text, "{");
  key_number(text, "generation", chain->generation);
  key_string(text, "reason", loaded->image->missed);
  puts_(text, "}");
}

static bool put_image(const struct hr_loaded *loaded, void *context) {
  const struct status *status = context;
  struct hr_text *text = status->text;

  if (loaded->image->abi != HR_ABI || !__atomic_load_n(&loaded->image->ready, __ATOMIC_ACQUIRE))
    return true;
  next_item(text);
  puts_(text, "{");
  key_hex(text, "build_id", loaded->build_id, loaded->build_id_size);
  key_string(text, "path", loaded->is_main ? status->executable : loaded->name);
  key_string(text, "kind", image_kind(loaded));
  key_number(text, "load_bias", loaded->bias);
  put_arena(text, loaded);
  key_number(text, "generation", loaded->image->generation);
  key_hex(text, "id", loaded->image->id, HR_ID_SIZE);
  put_generations(text, loaded);
  put_missed(text, loaded);
  puts_(text, "}");
  return true;
}

static void put_chain(const struct hr_chain *chain, void *context) {
  struct hr_text *text = context;
  const struct hr_kept *entry;
  size_t at;

  if (!chain->generation)
    return;
  next_item(text);
  puts_(text, "{");
  key_hex(text, "build_id", chain->build_id, chain->build_id_size);
  key_number(text, "generation", chain->generation);
  key(text, "payloads");
  puts_(text, "[");
  for (at = 0; at < chain->size; at += entry->bytes) {
    entry = (const struct hr_kept *)(chain->entries + at);
    next_item(text);
    puts_(text, "{");
    key_hex(text, "id", entry->id, HR_ID_SIZE);
    key_string(text, "file", entry->path);
    puts_(text, "}");
  }
  puts_(text, "]}");
}

static void put_guard_of_process(struct hr_text *text) {
  size_t size;
  const char *said = hr_guard_text(&size);

  key(text, "guard");
  if (said)
    put(text, said, size);
  else
    puts_(text, "null");
}

/* Images that speak another HR_ABI or are still being loaded are left out. */
void hr_report_status(struct hr_text *text, const char *executable) {
  struct status status = {text, executable};

  puts_(text, "{");
  key_number(text, "abi", HR_ABI);
  key_number(text, "pid", (uint64_t)getpid());
  key_string(text, "mode", hr_poll_linked ? "poll" : "thread");
  key_string(text, "executable", executable);
  key(text, "images");
  puts_(text, "[");
  hr_each_image(put_image, &status);
  puts_(text, "]");
  key(text, "kept");
  puts_(text, "[");
  hr_late_each(put_chain, text);
  puts_(text, "]");
  put_guard_of_process(text);
  puts_(text, "}");
}

/* ---- apply ------------------------------------------------------------------------------------------- */

static void put_candidate(struct hr_text *text, const struct hr_candidate *c) {
  next_item(text);
  puts_(text, "{");
  key_hex(text, "build_id", c->loaded.build_id, c->loaded.build_id_size);
  key_number(text, "generation", c->loaded.image->generation);
  key_bool(text, "already", c->already);
  key_number(text, "functions_changed", c->elf ? c->record->header->n_redirects : c->n_moves);
  key_number(text, "functions_live", c->functions_live);
  key_number(text, "updates_applied", c->updates_applied);
  key_number(text, "updates_kept", c->updates_kept);
  key_number(text, "pages_copied", c->n_distinct);
  key_bool(text, "waiting", false);
  puts_(text, "}");
}

/* A generation that libraries of this build take when they are loaded: nothing of it is live. */
static void put_keep(struct hr_text *text, const struct hr_keep *keep) {
  next_item(text);
  puts_(text, "{");
  key_hex(text, "build_id", keep->chain->build_id, keep->chain->build_id_size);
  key_number(text, "generation", keep->chain->generation);
  key_bool(text, "already", keep->already);
  key_number(text, "functions_changed", keep->elf ? keep->elf->header.n_redirects : 0);
  key_number(text, "functions_live", 0);
  key_number(text, "updates_applied", 0);
  key_number(text, "updates_kept", 0);
  key_bool(text, "waiting", true);
  puts_(text, "}");
}

struct place { /* of a blocker */
  struct hr_text *text;
  const struct hr_blocker *blocker;
};

/* Less than 512 bytes for each candidate and each keep: fits HR_TEXT_FIRST, so nothing is allocated. */
void hr_report_apply(struct hr_text *text, const struct hr_outcome *outcome) {
  unsigned i;

  text_restart(text);
  puts_(text, "{");
  key_number(text, "pid", (uint64_t)getpid());
  key_bool(text, "dry_run", outcome->order->request->flags & HR_DRY_RUN);
  key(text, "images");
  puts_(text, "[");
  for (i = 0; i < outcome->n_candidates; i++)
    put_candidate(text, &outcome->candidates[i]);
  for (i = 0; i < outcome->n_keeps; i++)
    if (outcome->keeps[i].waiting)
      put_keep(text, &outcome->keeps[i]);
  puts_(text, "]");
  key_number(text, "attempts", outcome->attempts);
  key_number(text, "threads_stopped", outcome->threads_stopped);
  key_number(text, "threads_interrupted", outcome->threads_interrupted);
  key_number(text, "threads_asleep", outcome->threads_asleep);
  key_number(text, "gates_us", outcome->gates_us);
  key_number(text, "pause_us", outcome->pause_us);
  key_number(text, "commit_us", outcome->commit_us);
  key(text, "frames_in_old_code");
  puts_(text, outcome->stacks_checked ? "0" : "null"); /* quiescent: had there been one, there were no commit */
  key_bool(text, "protections_restored", outcome->protections_restored);
  key_number(text, "guard_ms", hr_guard_is_on() ? outcome->order->request->guard_ms : 0);
  puts_(text, "}");
}

/* ---- guard ------------------------------------------------------------------------------------------- */

static const struct hr_candidate *candidate_of(const struct hr_guard_report *report) {
  unsigned i;

  for (i = 0; i < report->plan->n_candidates; i++)
    if (report->plan->candidates[i].loaded.image == report->image)
      return &report->plan->candidates[i];
  return NULL;
}

static const char *signal_name(int number) {
  switch (number) {
  case SIGSEGV: return "SIGSEGV";
  case SIGBUS: return "SIGBUS";
  case SIGILL: return "SIGILL";
  case SIGFPE: return "SIGFPE";
  case SIGABRT: return "SIGABRT";
  default: return "?";
  }
}

/* Context: signal handler. */
static void put_crash(struct hr_text *text, const struct hr_guard_report *report) {
  const struct hr_candidate *c = candidate_of(report);

  key_number(text, "at_ms", report->at_ms);
  key_string(text, "signal", signal_name(report->signal));
  key_bool(text, "raised", report->signal_code <= 0);
  key_number(text, "fault_address", report->fault);
  key_number(text, "tid", (uint64_t)report->tid);
  key_string(text, "thread", report->thread);
  if (c) {
    key_hex(text, "build_id", c->loaded.build_id, c->loaded.build_id_size);
    key_number(text, "address", report->hit - c->loaded.bias);
  }
  key_bool(text, "certain", report->certain);
  key_bool(text, "reverted", report->reverted);
  key_bool(text, "resumed", report->resumed);
  if (!report->reverted)
    key_string(text, "problem", report->problem);
}

/* Context: also signal handlers. */
void hr_report_guard(struct hr_text *text, const struct hr_guard_report *report) {
  unsigned i;

  puts_(text, "{");
  key_string(text, "state", report->state);
  key_number(text, "pid", (uint64_t)getpid());
  key_number(text, "begun_ms", report->begun_ms);
  key_number(text, "ends_ms", report->ends_ms);
  if (!strcmp(report->state, "fired"))
    put_crash(text, report);
  key(text, "images");
  puts_(text, "[");
  for (i = 0; i < report->plan->n_candidates; i++) {
    const struct hr_candidate *c = &report->plan->candidates[i];

    next_item(text);
    puts_(text, "{");
    key_hex(text, "build_id", c->loaded.build_id, c->loaded.build_id_size);
    key_number(text, "generation", c->record->generation);
    key_number(text, "before", c->down_to ? c->down_to->generation : 0);
    puts_(text, "}");
  }
  puts_(text, "]}");
}

static bool put_place(const struct hr_loaded *loaded, void *context) {
  const struct place *place = context;

  if (loaded->image != place->blocker->image)
    return true;
  key_hex(place->text, "build_id", loaded->build_id, loaded->build_id_size);
  key_number(place->text, "address", place->blocker->address - loaded->bias);
  key_number(place->text, "function", place->blocker->function ? place->blocker->function - loaded->bias : 0);
  return false;
}

static void put_blocker(struct hr_text *text, const struct hr_blocker *blocker) {
  static const char *const kinds[] = {"", "code", "stale", "deaf", "elsewhere", "coroutine", "coroutine-stale"};
  struct place place = {text, blocker};
  char name[32];

  hr_thread_name(blocker->tid, name, sizeof name);
  key(text, "blocked");
  puts_(text, "{");
  key_number(text, "tid", (uint64_t)blocker->tid);
  key_string(text, "thread", name);
  key_string(text, "obstacle", kinds[blocker->obstacle]);
  key_number(text, "since_ms", blocker->since_ms);
  key_number(text, "stack", blocker->stack);
  if (blocker->image)
    hr_each_image(put_place, &place);
  puts_(text, "}");
}

void hr_report_error(struct hr_text *text, const struct hr_error *error) {
  text_restart(text);
  puts_(text, "{");
  key_string(text, "error", hr_code_name(error->code));
  key_string(text, "message", code_sentence(error->code));
  key_string(text, "detail", error->detail);
  if (error->blocker.obstacle != HR_OBSTACLE_NONE)
    put_blocker(text, &error->blocker);
  puts_(text, "}");
}
