/* Unwinds a halted thread exactly, by the unwind tables of the images it runs in.
 *
 * A thread is trusted to be in none of the old code only if its trace is complete: every frame described by a table,
 * and the last one marked as the first of the thread (an undefined return address, as glibc's clone and _start have
 * it). Anything else is "unsure". libgcc's unwinder is not used: it takes locks that a halted thread may hold.
 *
 * Formats: Linux Standard Base, "Exception Frames"; DWARF 5, 6.4.2 (call frame instructions) and 2.5 (expressions). */
#include "internal.h"

#include <link.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_FRAMES 100000
#define MAX_OBJECTS 4096
#define MAX_SAVED_STATES 8 /* DW_CFA_remember_state, nested */
#define EXPRESSION_STACK 16

enum rule_kind { SAME, UNDEFINED, AT_CFA, CFA_PLUS, IN_REGISTER, AT_EXPRESSION, EXPRESSION };

struct rule {
  enum rule_kind kind;
  int64_t value;           /* offset or register */
  const uint8_t *code;     /* an expression, with its length before it */
};

struct row { /* how to find the caller's registers */
  struct rule registers[HR_N_REGISTERS];
  uint64_t cfa_register;
  int64_t cfa_offset;
  const uint8_t *cfa_expression;
};

struct description { /* of the function at a program counter */
  uintptr_t start, end;
  uint64_t code_align;
  int64_t data_align;
  const uint8_t *initial, *initial_end, *code, *code_end;
  bool is_signal_frame;
};

struct object { /* code with an unwind table */
  struct hr_range code;
  const uint8_t *header; /* .eh_frame_hdr, or null */
  const uint8_t *frames; /* .eh_frame with a zero at its end, or null */
};

static struct {
  struct object *objects; /* room for MAX_OBJECTS */
  size_t n;
  bool complete;
  unsigned long long adds, subs; /* of the loader's list when it was read */
} tables;

/* ---- which tables there are ------------------------------------------------------------------------------- */

static void add_object(struct hr_range code, const uint8_t *header, const uint8_t *frames) {
  if (tables.n == MAX_OBJECTS)
    tables.complete = false;
  else
    tables.objects[tables.n++] = (struct object){code, header, frames};
}

static int add_loaded(struct dl_phdr_info *info, size_t size, void *context) {
  const uint8_t *header = NULL;
  int i;

  (void)size;
  (void)context;
  tables.adds = info->dlpi_adds;
  tables.subs = info->dlpi_subs;
  for (i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
      header = (const uint8_t *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
  for (i = 0; header && i < info->dlpi_phnum; i++) {
    const Elf64_Phdr *load = &info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + load->p_vaddr;

    if (load->p_type == PT_LOAD && load->p_flags & PF_X)
      add_object((struct hr_range){start, start + load->p_memsz}, header, NULL);
  }
  return 0;
}

static void add_records(const struct hr_record *record) {
  uint32_t i;

  for (; record; record = record->older)
    for (i = 0; i < record->n_segments; i++)
      if (record->segments[i].prot & PROT_EXEC && record->header->eh_frame_size)
        add_object(record->segments[i].at, NULL, (const uint8_t *)record->header->eh_frame);
}

static bool add_image(const struct hr_loaded *loaded, void *context) {
  (void)context;
  if (loaded->image->abi == HR_ABI) {
    add_records(loaded->image->records);
    add_records(loaded->image->reverted);
  }
  return true;
}

/* Looks up all tables. May allocate, takes the loader's lock. */
bool hr_unwind_prepare(struct hr_error *error) {
  if (!tables.objects) {
    void *at = hr_fault(HR_STEP_TABLES) ? MAP_FAILED
                                        : mmap(NULL, MAX_OBJECTS * sizeof *tables.objects, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
      return hr_refuse(error, HR_NO_MEMORY, "no memory for the list of unwind tables");
    tables.objects = at;
  }
  tables.n = 0;
  tables.complete = true;
  hr_each_image(add_image, NULL);
  dl_iterate_phdr(add_loaded, NULL);
  return true;
}

/* Whether no image came or went since. Context: a dl_iterate_phdr callback, which keeps it so. */
bool hr_unwind_is_current(const struct dl_phdr_info *info) {
  return info->dlpi_adds == tables.adds && info->dlpi_subs == tables.subs;
}

static const struct object *object_of(uintptr_t pc) {
  size_t i;

  for (i = 0; i < tables.n; i++)
    if (hr_inside(tables.objects[i].code, pc, 1))
      return &tables.objects[i];
  return NULL;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static uint32_t word32(const uint8_t *at) {
  uint32_t word;

  memcpy(&word, at, sizeof word);
  return word;
}

static uint64_t number(const uint8_t **at, unsigned size) {
  uint64_t value = 0;

  memcpy(&value, *at, size);
  *at += size;
  return value;
}

static int64_t signed_number(const uint8_t **at, unsigned size) {
  uint64_t value = number(at, size);

  return (int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size);
}

static uint64_t uleb(const uint8_t **at) {
  uint64_t value = 0;
  unsigned shift = 0;
  uint8_t byte;

  do {
    byte = *(*at)++;
    if (shift < 64)
      value |= (uint64_t)(byte & 0x7f) << shift;
    shift += 7;
  } while (byte & 0x80);
  return value;
}

static int64_t sleb(const uint8_t **at) {
  uint64_t value = 0;
  unsigned shift = 0;
  uint8_t byte;

  do {
    byte = *(*at)++;
    if (shift < 64)
      value |= (uint64_t)(byte & 0x7f) << shift;
    shift += 7;
  } while (byte & 0x80);
  if (shift < 64 && byte & 0x40)
    value |= ~0ull << shift;
  return (int64_t)value;
}

/* DW_EH_PE_*: low half the format, high half what it is relative to. False: not one that linkers use. */
static bool pointer(const uint8_t **at, uint8_t encoding, uintptr_t *value) {
  uintptr_t place = (uintptr_t)*at;

  switch (encoding & 15) {
  case 0: case 4: case 12: *value = number(at, 8); break;
  case 2: *value = number(at, 2); break;
  case 3: *value = number(at, 4); break;
  case 10: *value = (uintptr_t)signed_number(at, 2); break;
  case 11: *value = (uintptr_t)signed_number(at, 4); break;
  default: return false;
  }
  if ((encoding & 0x70) == 0x10)
    *value += place;
  else if (encoding & 0x70)
    return false;
  return !(encoding & 0x80);
}

/* ---- the description of a function -------------------------------------------------------------------------- */

struct augmentation {
  uint8_t code_encoding;
  bool has_data;
};

static bool read_augmentation(const char *letters, const uint8_t **at, struct augmentation *found, bool *is_signal) {
  const uint8_t *end = NULL;
  uintptr_t personality;

  if (*letters == 'z') {
    uint64_t size = uleb(at);

    end = *at + size;
    found->has_data = true;
    letters++;
  }
  for (; *letters; letters++)
    switch (*letters) {
    case 'R': found->code_encoding = *(*at)++; break;
    case 'L': ++*at; break;
    case 'S': *is_signal = true; break;
    case 'P': {
      uint8_t encoding = *(*at)++;

      if (!pointer(at, encoding & 0x7f, &personality))
        return false;
      break;
    }
    default: return false;
    }
  if (end)
    *at = end;
  return true;
}

static bool read_cie(const uint8_t *cie, struct description *d, struct augmentation *augmentation) {
  const uint8_t *at = cie + 8, *end = cie + 4 + word32(cie);
  uint8_t version = *at++;
  const char *letters = (const char *)at;

  at += strlen(letters) + 1;
  d->code_align = uleb(&at);
  d->data_align = sleb(&at);
  if ((version != 1 && version != 3) || (version == 1 ? *at++ : uleb(&at)) != HR_REGISTER_PC ||
      !read_augmentation(letters, &at, augmentation, &d->is_signal_frame))
    return false;
  d->initial = at;
  d->initial_end = end;
  return true;
}

static bool read_fde(const uint8_t *fde, struct description *d) {
  const uint8_t *at = fde + 8, *id = fde + 4;
  struct augmentation augmentation = {0};
  uint64_t size;

  memset(d, 0, sizeof *d);
  if (word32(fde) == 0xffffffff || !word32(id) || !read_cie(id - word32(id), d, &augmentation) ||
      !pointer(&at, augmentation.code_encoding, &d->start) || !pointer(&at, augmentation.code_encoding & 15, &d->end))
    return false;
  d->end += d->start;
  if (augmentation.has_data) {
    size = uleb(&at);
    at += size;
  }
  d->code = at;
  d->code_end = fde + 4 + word32(fde);
  return true;
}

static bool walk_frames(const uint8_t *frames, uintptr_t pc, struct description *d) {
  for (; word32(frames); frames += 4 + word32(frames))
    if (word32(frames + 4) && read_fde(frames, d) && pc >= d->start && pc < d->end)
      return true;
  return false;
}

/* .eh_frame_hdr: version 1, three encodings, a pointer to .eh_frame, a count, a sorted table. */
static bool search_header(const uint8_t *header, uintptr_t pc, struct description *d) {
  const uint8_t *at = header + 4;
  uintptr_t frames, n;
  size_t low = 0, high;

  if (header[0] != 1 || !pointer(&at, header[1], &frames))
    return false;
  if (header[2] != 3 || header[3] != 0x3b)
    return walk_frames((const uint8_t *)frames, pc, d);
  n = high = number(&at, 4);
  while (low < high) { /* the last entry that begins at or before pc */
    size_t middle = (low + high) / 2;

    if ((uintptr_t)header + (uintptr_t)(int64_t)(int32_t)word32(at + 8 * middle) <= pc)
      low = middle + 1;
    else
      high = middle;
  }
  return n && low && read_fde(header + (int32_t)word32(at + 8 * (low - 1) + 4), d) && pc >= d->start && pc < d->end;
}

static bool describe(uintptr_t pc, struct description *d) {
  const struct object *object = object_of(pc);

  if (!object)
    return false;
  return object->header ? search_header(object->header, pc, d) : walk_frames(object->frames, pc, d);
}

/* ---- call frame instructions ---------------------------------------------------------------------------------- */

struct machine {
  const struct description *d;
  uintptr_t location, pc;
  struct row row, initial, saved[MAX_SAVED_STATES];
  unsigned n_saved;
};

static const uint8_t *take_expression(const uint8_t **at) {
  const uint8_t *start = *at;
  uint64_t size = uleb(at);

  *at += size;
  return start;
}

static bool set_rule(struct row *row, uint64_t number, struct rule rule) {
  if (number < HR_N_REGISTERS)
    row->registers[number] = rule;
  return true; /* vector registers and the like do not matter here */
}

static bool restore(struct machine *m, uint64_t number) {
  return number >= HR_N_REGISTERS || set_rule(&m->row, number, m->initial.registers[number]);
}

static bool set_cfa(struct row *row, uint64_t number, int64_t offset) {
  row->cfa_register = number;
  row->cfa_offset = offset;
  row->cfa_expression = NULL;
  return true;
}

static bool extended(struct machine *m, uint8_t op, const uint8_t **at) {
  int64_t align = m->d->data_align;
  uint64_t n;

  switch (op) {
  case 0x00: return true;
  case 0x02: m->location += number(at, 1) * m->d->code_align; return true;
  case 0x03: m->location += number(at, 2) * m->d->code_align; return true;
  case 0x04: m->location += number(at, 4) * m->d->code_align; return true;
  case 0x05: n = uleb(at); return set_rule(&m->row, n, (struct rule){AT_CFA, (int64_t)uleb(at) * align, NULL});
  case 0x06: return restore(m, uleb(at));
  case 0x07: return set_rule(&m->row, uleb(at), (struct rule){UNDEFINED, 0, NULL});
  case 0x08: return set_rule(&m->row, uleb(at), (struct rule){SAME, 0, NULL});
  case 0x09: n = uleb(at); return set_rule(&m->row, n, (struct rule){IN_REGISTER, (int64_t)uleb(at), NULL});
  case 0x0a:
    if (m->n_saved == MAX_SAVED_STATES)
      return false;
    m->saved[m->n_saved++] = m->row;
    return true;
  case 0x0b:
    if (!m->n_saved)
      return false;
    m->row = m->saved[--m->n_saved];
    return true;
  case 0x0c: n = uleb(at); return set_cfa(&m->row, n, (int64_t)uleb(at));
  case 0x0d: m->row.cfa_register = uleb(at); return true;
  case 0x0e: m->row.cfa_offset = (int64_t)uleb(at); return true;
  case 0x0f: m->row.cfa_expression = take_expression(at); return true;
  case 0x10: n = uleb(at); return set_rule(&m->row, n, (struct rule){AT_EXPRESSION, 0, take_expression(at)});
  case 0x11: n = uleb(at); return set_rule(&m->row, n, (struct rule){AT_CFA, sleb(at) * align, NULL});
  case 0x12: n = uleb(at); return set_cfa(&m->row, n, sleb(at) * align);
  case 0x13: m->row.cfa_offset = sleb(at) * align; return true;
  case 0x14: n = uleb(at); return set_rule(&m->row, n, (struct rule){CFA_PLUS, (int64_t)uleb(at) * align, NULL});
  case 0x15: n = uleb(at); return set_rule(&m->row, n, (struct rule){CFA_PLUS, sleb(at) * align, NULL});
  case 0x16: n = uleb(at); return set_rule(&m->row, n, (struct rule){EXPRESSION, 0, take_expression(at)});
  case 0x2e: uleb(at); return true; /* DW_CFA_GNU_args_size */
  default: return false;
  }
}

/* Runs instructions up to the row that holds at m->pc. */
static bool execute(struct machine *m, const uint8_t *at, const uint8_t *end) {
  while (at < end && m->location <= m->pc) {
    uint8_t op = *at++, operand = op & 0x3f;

    switch (op >> 6) {
    case 1: m->location += operand * m->d->code_align; break;
    case 2: set_rule(&m->row, operand, (struct rule){AT_CFA, (int64_t)uleb(&at) * m->d->data_align, NULL}); break;
    case 3: restore(m, operand); break;
    default:
      if (op == 0x01 || !extended(m, op, &at))
        return false;
    }
  }
  return true;
}

static bool find_row(const struct description *d, uintptr_t pc, struct machine *m) {
  memset(m, 0, sizeof *m);
  m->d = d;
  m->location = d->start;
  m->pc = pc;
  if (!execute(m, d->initial, d->initial_end))
    return false;
  m->initial = m->row;
  m->location = d->start;
  return execute(m, d->code, d->code_end);
}

/* ---- registers of the caller ------------------------------------------------------------------------- */

/* Stack memory only where it is mapped. */
__attribute__((no_sanitize("address"))) static bool load(uintptr_t at, uintptr_t *value) {
  const struct hr_map *map = at % 8 ? NULL : hr_map_of(at);

  if (!map || !map->readable || map->at.end - at < 8)
    return false;
  *value = *(const volatile uintptr_t *)at;
  return true;
}

struct stack {
  uintptr_t at[EXPRESSION_STACK];
  unsigned n;
};

static bool operate(struct stack *s, uint8_t op, const uint8_t **at) {
  uintptr_t *top = &s->at[s->n - 1], second = s->n > 1 ? s->at[s->n - 2] : 0, value = *top;

  if (op == 0x06)
    return load(value, top);
  if (op == 0x23) { /* plus_uconst */
    *top += uleb(at);
    return true;
  }
  if (s->n < 2)
    return false;
  s->n--;
  top--;
  switch (op) {
  case 0x1a: *top = second & value; return true;
  case 0x1c: *top = second - value; return true;
  case 0x21: *top = second | value; return true;
  case 0x22: *top = second + value; return true;
  case 0x24: *top = value < 64 ? second << value : 0; return true;
  case 0x25: *top = value < 64 ? second >> value : 0; return true;
  case 0x2a: *top = (intptr_t)second >= (intptr_t)value; return true;
  default: return false;
  }
}

/* The few operations that linkers and glibc use: PLT entries, signal frames. */
static bool evaluate(const uint8_t *code, const struct hr_registers *registers, bool push, uintptr_t cfa,
                     uintptr_t *value) {
  uint64_t size = uleb(&code);
  const uint8_t *end = code + size;
  struct stack s = {{cfa}, push};

  while (code < end) {
    uint8_t op = *code++;
    uintptr_t pushed;

    if (op >= 0x70 && op < 0x70 + HR_N_REGISTERS)
      pushed = registers->r[op - 0x70] + (uintptr_t)sleb(&code);
    else if (op >= 0x30 && op < 0x50)
      pushed = op - 0x30u;
    else if (op == 0x08 || op == 0x0a || op == 0x0c)
      pushed = number(&code, op == 0x08 ? 1 : op == 0x0a ? 2 : 4);
    else if (op == 0x09 || op == 0x0b || op == 0x0d)
      pushed = (uintptr_t)signed_number(&code, op == 0x09 ? 1 : op == 0x0b ? 2 : 4);
    else if (!s.n || !operate(&s, op, &code))
      return false;
    else
      continue;
    if (s.n == EXPRESSION_STACK)
      return false;
    s.at[s.n++] = pushed;
  }
  *value = s.n ? s.at[s.n - 1] : 0;
  return s.n > 0;
}

static bool apply_rule(const struct rule *rule, unsigned i, uintptr_t cfa, const struct hr_registers *old,
                       uintptr_t *value) {
  uintptr_t at;

  switch (rule->kind) {
  case SAME: *value = i == HR_REGISTER_SP ? cfa : old->r[i]; return true;
  case UNDEFINED: *value = 0; return true;
  case AT_CFA: return load(cfa + (uintptr_t)rule->value, value);
  case CFA_PLUS: *value = cfa + (uintptr_t)rule->value; return true;
  case IN_REGISTER:
    *value = rule->value < HR_N_REGISTERS ? old->r[rule->value] : 0;
    return rule->value < HR_N_REGISTERS;
  case AT_EXPRESSION: return evaluate(rule->code, old, true, cfa, &at) && load(at, value);
  case EXPRESSION: return evaluate(rule->code, old, true, cfa, value);
  }
  return false;
}

static bool step(const struct row *row, struct hr_registers *registers) {
  struct hr_registers old = *registers;
  uintptr_t cfa;
  unsigned i;

  if (row->cfa_expression) {
    if (!evaluate(row->cfa_expression, &old, false, 0, &cfa))
      return false;
  } else if (row->cfa_register < HR_N_REGISTERS) {
    cfa = old.r[row->cfa_register] + (uintptr_t)row->cfa_offset;
  } else {
    return false;
  }
  for (i = 0; i < HR_N_REGISTERS; i++)
    if (!apply_rule(&row->registers[i], i, cfa, &old, &registers->r[i]))
      return false;
  return true;
}

/* A signal's frame: what the kernel saved lies at the stack pointer. Known by the code that the handler returns to. */
static bool leave_signal_frame(struct hr_registers *registers) {
  static const uint8_t code[] = HR_SIGNAL_RETURN_CODE;
  uintptr_t pc = registers->r[HR_REGISTER_PC], sp = registers->r[HR_REGISTER_SP];
  const struct hr_map *map = hr_map_of(pc), *stack = hr_map_of(sp);

  if (!map || !map->readable || map->at.end - pc < sizeof code || memcmp((const void *)pc, code, sizeof code))
    return false;
  if (!stack || !stack->readable || stack->at.end - sp < sizeof(ucontext_t) - sizeof(((ucontext_t *)0)->__ssp))
    return false;
  hr_take_registers(registers, (const ucontext_t *)sp);
  return true;
}

static struct machine machine; /* large; one thread unwinds at a time */

/* Leaves no address of code behind: they would look like the program's own (search.c). */
void hr_unwind_forget(void) {
  if (tables.objects)
    memset(tables.objects, 0, tables.n * sizeof *tables.objects);
  tables.n = 0;
  memset(&machine, 0, sizeof machine);
}

/* The lowest address that a registered unwind table describes; libgcc keeps it in its own memory. 0: there is none. */
uintptr_t hr_frames_begin(const void *frames) {
  const uint8_t *at = frames;
  uintptr_t lowest = 0;
  struct description d;

  for (; at && word32(at); at += 4 + word32(at))
    if (word32(at + 4) && read_fde(at, &d) && (!lowest || d.start < lowest))
      lowest = d.start;
  return lowest;
}

/* Whether the thread's frames lie in none of `codes`. `home`: the stack it was started with, where the trace must end.
 * HR_TRACE_HIT puts the address into *hit. After HR_TRACE_UNSURE all frames below that of *registers are in none.
 * Context: the thread is halted, or the calling one. */
enum hr_trace hr_unwind_until(const struct hr_codes *codes, struct hr_registers *registers, const struct hr_map *home,
                              uintptr_t *hit) {
  bool exact = true; /* the program counter is that of an instruction, not a return address */
  unsigned frames;

  for (frames = 0; frames < MAX_FRAMES; frames++) {
    uintptr_t sp = registers->r[HR_REGISTER_SP], pc = registers->r[HR_REGISTER_PC], look = pc - !exact;
    const struct hr_old_code *code = hr_code_at(codes, look);
    struct hr_registers caller;
    struct description d;

    if (code && look < code->at.end) {
      *hit = pc;
      return HR_TRACE_HIT;
    }
    if (leave_signal_frame(registers)) {
      exact = true;
      continue;
    }
    if (!describe(look, &d) || !find_row(&d, look, &machine))
      return HR_TRACE_UNSURE;
    if (machine.row.registers[HR_REGISTER_PC].kind == UNDEFINED)
      return tables.complete && home && hr_inside(home->at, sp, 0) ? HR_TRACE_CLEAR : HR_TRACE_UNSURE;
    caller = *registers;
    if (!step(&machine.row, &caller) || (caller.r[HR_REGISTER_SP] <= sp && !d.is_signal_frame))
      return HR_TRACE_UNSURE;
    *registers = caller;
    exact = d.is_signal_frame;
  }
  return HR_TRACE_UNSURE;
}

enum hr_trace hr_unwind(const struct hr_codes *codes, const struct hr_registers *from, const struct hr_map *home,
                        uintptr_t *hit) {
  struct hr_registers registers = *from;

  return hr_unwind_until(codes, &registers, home, hit);
}
