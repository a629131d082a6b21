/* What the runtime must know of the CPU: relocation numbers by neutral names.
 * Source of the numbers: System V psABI for x86-64, table 4.9, as <elf.h> has them. */
#ifndef HR_ARCH_X86_64_H
#define HR_ARCH_X86_64_H

#include <elf.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#if !defined(__x86_64__) || !defined(__LP64__)
#error "the hotreload runtime knows only x86-64 with 64-bit pointers"
#endif

#define HR_ARCH_MACHINE EM_X86_64
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

/* Registers by DWARF number (psABI, figure 3.36): 16 stands for the return address. */
#define HR_N_REGISTERS 17
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

/* The number of a system call that a signal ended with EINTR, or -1. The kernel keeps the number nowhere, but the code
 * before the instruction does: mov $number, %eax, with at most a load of %edi in between (glibc). */
static inline long hr_ended_call(const ucontext_t *context) {
  static const uint8_t instruction[2] = {0x0f, 0x05};
  const greg_t *registers = context->uc_mcontext.gregs;
  const uint8_t *end = (const uint8_t *)registers[REG_RIP], *load;
  uint32_t number;

  if (registers[REG_RAX] != -4 || (uintptr_t)end % HR_PAGE < 11 || memcmp(end - 2, instruction, 2))
    return -1;
  load = end - 7;
  if (load[0] != 0xb8 && load[1] == 0x8b && load[2] == 0x7c && load[3] == 0x24)
    load -= 4;
  if (load[0] != 0xb8)
    return -1;
  memcpy(&number, load + 1, sizeof number);
  return number;
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
