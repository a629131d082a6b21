/* What the runtime must know of the CPU: relocation numbers by neutral names.
 * Source of the numbers: System V psABI for x86-64, table 4.9, as <elf.h> has them. */
#ifndef HR_ARCH_X86_64_H
#define HR_ARCH_X86_64_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#if !defined(__x86_64__) || !defined(__LP64__)
#error "the hotreload runtime knows only x86-64 with 64-bit pointers"
#endif

#define HR_ARCH_MACHINE EM_X86_64
/* How far below the thread pointer the program's own block begins, for a TLS segment of `size` bytes aligned to `align`
 * (ELF Handling For Thread-Local Storage, variant II; psABI §3.4.6). */
static inline uint64_t hr_tls_below(uint64_t size, uint64_t align) {
  return align > 1 ? (size + align - 1) / align * align : size;
}

#define HR_PAGE 4096u              /* the only base page size of this CPU */
#define HR_ADDRESS_LIMIT (1ull << 47) /* user addresses lie below */

enum hr_relocation {
  HR_RELOC_NONE = R_X86_64_NONE,
  HR_RELOC_RELATIVE = R_X86_64_RELATIVE,     /* bias + addend */
  HR_RELOC_ABSOLUTE = R_X86_64_64,           /* symbol + addend */
  HR_RELOC_GOT = R_X86_64_GLOB_DAT,          /* symbol */
  HR_RELOC_PLT = R_X86_64_JUMP_SLOT,         /* symbol */
  HR_RELOC_TLS_MODULE = R_X86_64_DTPMOD64,   /* TLS module id */
  HR_RELOC_TLS_OFFSET = R_X86_64_DTPOFF64,
  HR_RELOC_TLS_STATIC = R_X86_64_TPOFF64,
  HR_RELOC_INDIRECT = R_X86_64_IRELATIVE,    /* result of a resolver */
  HR_RELOC_COPY = R_X86_64_COPY,
};

/* Heads (heads.c; hotreload_tool/arch/x86_64.py writes them). Idle: xchg %ax,%ax. Armed: a jump to the stub that ends
 * at the entry, notrack jmp *slot(%rip). The head lies at the entry, or behind the endbr64 there. */
#define HR_HEAD_IDLE 0x9066u
#define HR_HEAD_BEFORE 11 /* bytes before a head that belong to it, at most */

static inline bool hr_is_head_jump(uint16_t word) { return (word & 0xff) == 0xeb; }

/* What the two bytes at `head` are when armed; 0: no stub that jumps through `slot` belongs to them. */
static inline uint16_t hr_head_armed(const uint8_t *head, uintptr_t slot) {
  static const uint8_t mark[4] = {0xf3, 0x0f, 0x1e, 0xfa}, jump[3] = {0x3e, 0xff, 0x25};
  unsigned before;

  for (before = 0; before <= sizeof mark; before += sizeof mark) {
    const uint8_t *entry = head - before;
    int32_t distance;

    memcpy(&distance, entry - sizeof distance, sizeof distance);
    if (!memcmp(entry, mark, before) && !memcmp(entry - 7, jump, sizeof jump) &&
        (uintptr_t)entry + (uintptr_t)(intptr_t)distance == slot)
      return (uint16_t)(0xeb | ((0u - 9 - before) & 0xff) << 8);
  }
  return 0;
}

/* Registers by DWARF number (psABI, figure 3.36): 16 stands for the return address. */
#define HR_N_REGISTERS 17
#define HR_REGISTER_RESULT 0 /* of a system call, before it its number (psABI A.2.1) */
#define HR_REGISTER_SP 7
#define HR_REGISTER_PC 16

struct hr_registers {
  uintptr_t r[HR_N_REGISTERS];
};

/* mov $15, %rax; syscall: what a signal handler returns to (rt_sigreturn). */
#define HR_SIGNAL_RETURN_CODE {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}

static inline void hr_take_registers(struct hr_registers *to, const ucontext_t *from) {
  static const uint8_t order[HR_N_REGISTERS] = {
    REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12,
    REG_R13, REG_R14, REG_R15, REG_RIP};
  int i;

  for (i = 0; i < HR_N_REGISTERS; i++)
    to->r[i] = (uintptr_t)from->uc_mcontext.gregs[order[i]];
}

/* The registers a caller's frame can be found by, here and now. */
static inline __attribute__((always_inline)) void hr_capture(struct hr_registers *to) {
  memset(to, 0, sizeof *to);
  __asm__ volatile(
    "movq %%rbx, 24(%0)\nmovq %%rbp, 48(%0)\nmovq %%rsp, 56(%0)\nmovq %%r12, 96(%0)\nmovq %%r13, 104(%0)\n"
    "movq %%r14, 112(%0)\nmovq %%r15, 120(%0)\nleaq 0(%%rip), %%rax\nmovq %%rax, 128(%0)\n"
    : : "r"(to) : "rax", "memory");
}

/* The stack pointer of the function that called this one, at the call: above it lie a return address and a saved frame
 * pointer. */
static inline __attribute__((always_inline)) uintptr_t hr_caller_stack(void) {
  return (uintptr_t)__builtin_frame_address(0) + 16;
}

/* The number of the system call that was made right before `pc`, or -1. The kernel keeps it nowhere, but the code
 * before the instruction does: mov $number, %eax, with at most a load of %edi in between (glibc). */
static inline long hr_call_before(uintptr_t pc) {
  static const uint8_t instruction[2] = {0x0f, 0x05};
  const uint8_t *end = (const uint8_t *)pc, *load;
  uint32_t number;

  if (pc % HR_PAGE < 11 || memcmp(end - 2, instruction, 2))
    return -1;
  load = end - 7;
  if (load[0] != 0xb8 && load[1] == 0x8b && load[2] == 0x7c && load[3] == 0x24)
    load -= 4;
  if (load[0] != 0xb8)
    return -1;
  memcpy(&number, load + 1, sizeof number);
  return number;
}

/* The same, or of one that `pc` is about to make: the kernel goes back to the instruction where a call is restarted.
 * `result`: of HR_REGISTER_RESULT. `pc` lies in code. */
static inline long hr_call_beside(uintptr_t pc, uintptr_t result) {
  static const uint8_t instruction[2] = {0x0f, 0x05};

  if (pc % HR_PAGE <= HR_PAGE - sizeof instruction && !memcmp((const void *)pc, instruction, sizeof instruction))
    return (long)result;
  return hr_call_before(pc);
}

/* The number of a system call that a signal ended with EINTR, or -1. */
static inline long hr_ended_call(const ucontext_t *context) {
  const greg_t *registers = context->uc_mcontext.gregs;

  return registers[REG_RAX] == -4 ? hr_call_before((uintptr_t)registers[REG_RIP]) : -1;
}

static inline uintptr_t hr_call_argument(const ucontext_t *context, int i) {
  static const uint8_t order[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};

  return (uintptr_t)context->uc_mcontext.gregs[order[i]];
}

/* As the kernel does it where no handler ran: the instruction is executed once more. */
static inline void hr_call_again(ucontext_t *context, long number) {
  context->uc_mcontext.gregs[REG_RIP] -= 2;
  context->uc_mcontext.gregs[REG_RAX] = number;
}

/* What every signal frame holds: the segment selectors in its gregs[REG_CSGSFS] (linux: arch/x86/kernel/signal_64.c,
 * cs, then zeros for gs and fs, then ss, which it stores since 4.2). */
static inline uintptr_t hr_signal_frame_mark(void) {
  uintptr_t code, stack;

  __asm__("mov %%cs, %0\nmov %%ss, %1" : "=r"(code), "=r"(stack));
  return (code & 0xffff) | (stack & 0xffff) << 48;
}

/* In the frame that a mark is in: where the signal came, and what HR_REGISTER_RESULT held. Both lie before the mark, at
 * most HR_SIGNAL_FRAME_REACH bytes. */
#define HR_SIGNAL_FRAME_REACH ((REG_CSGSFS - REG_RAX) * sizeof(uintptr_t))
static inline uintptr_t hr_interrupted_pc(const uintptr_t *mark) { return mark[REG_RIP - REG_CSGSFS]; }
static inline uintptr_t hr_interrupted_result(const uintptr_t *mark) { return mark[REG_RAX - REG_CSGSFS]; }

/* Gates (gate.c). Entry i pushes i; the rest saves what may hold arguments (psABI 3.2.3; it touches no vector
 * register), waits while the gates are shut, and goes where the slot leads. That is one instruction, as in a stub: at
 * no point is a thread on its way with an old address in a register. The keeper of the gates, and a child that was
 * forked without our knowledge, go where the slot led before. %r11 is free at every call. */
#define HR_N_GATES 512
#define HR_GATE_SIZE 16
#define HR_GATE_PUSH(name) "push %" #name "\n.cfi_adjust_cfa_offset 8\n"
#define HR_GATE_POP(name) "pop %" #name "\n.cfi_adjust_cfa_offset -8\n"
#define HR_GATE_ENTRIES \
  ".balign 16\n.type hr_gate_entries,@function\nhr_gate_entries:\n.cfi_startproc\n" \
  /* DW_CFA_def_cfa_expression: breg7 8, breg16 0, lit15, and, lit5, ge, lit3, shl, plus: 8 more behind the push */ \
  ".cfi_escape 0x0f, 0x0b, 0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x35, 0x2a, 0x33, 0x24, 0x22\n" \
  ".set hr_gate_index, 0\n.rept 512\n" \
  ".byte 0x68\n.long hr_gate_index\n.byte 0xe9\n.long hr_gate - . - 4\n.balign 16, 0x90\n" /* push $i; jmp hr_gate */ \
  ".set hr_gate_index, hr_gate_index + 1\n.endr\n.cfi_endproc\n.size hr_gate_entries, . - hr_gate_entries\n"
#define HR_GATE_BODY \
  ".type hr_gate,@function\nhr_gate:\n.cfi_startproc\n.cfi_def_cfa_offset 16\n" \
  HR_GATE_PUSH(rax) HR_GATE_PUSH(rcx) HR_GATE_PUSH(rdx) HR_GATE_PUSH(rsi) HR_GATE_PUSH(rdi) HR_GATE_PUSH(r10) \
  "movq 48(%rsp), %rax\nshlq $4, %rax\nleaq hr_gates(%rip), %r11\naddq %rax, %r11\n" /* its struct hr_gate */ \
  HR_GATE_PUSH(r11) \
  "1:\nmovl hr_gates_shut(%rip), %edx\ntestl %edx, %edx\njz 2f\n" \
  "movq %fs:0, %rax\ncmpq %rax, hr_gate_keeper(%rip)\nje 3f\n" \
  "movl $39, %eax\nsyscall\ncmpl %eax, hr_gate_pid(%rip)\njne 3f\n" /* getpid */ \
  "leaq hr_gates_shut(%rip), %rdi\nmovl $128, %esi\nxorl %r10d, %r10d\nmovl $202, %eax\nsyscall\njmp 1b\n" /* futex */ \
  "2:\nmovq (%rsp), %r11\nmovq (%r11), %r11\nmovq %r11, (%rsp)\njmp 4f\n" /* by the slot */ \
  "3:\naddq $8, (%rsp)\n4:\n" /* by `target` */ \
  HR_GATE_POP(r11) HR_GATE_POP(r10) HR_GATE_POP(rdi) HR_GATE_POP(rsi) HR_GATE_POP(rdx) HR_GATE_POP(rcx) \
  HR_GATE_POP(rax) \
  "addq $8, %rsp\n.cfi_adjust_cfa_offset -8\nnotrack jmp *(%r11)\n.cfi_endproc\n.size hr_gate, . - hr_gate\n"

/* Whether the signal came in during a system call: the kernel will begin it anew (it points to the instruction again)
 * or has ended it with EINTR (it points behind). */
static inline int hr_was_in_call(const struct hr_registers *registers) {
  static const uint8_t instruction[2] = {0x0f, 0x05};
  uintptr_t pc = registers->r[HR_REGISTER_PC], offset = pc % HR_PAGE;

  if (offset < HR_PAGE - 1 && !memcmp((const void *)pc, instruction, 2))
    return 1;
  return registers->r[0] == (uintptr_t)-4 && offset > 1 && !memcmp((const void *)(pc - 2), instruction, 2);
}

#endif
