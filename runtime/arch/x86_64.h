/* What the runtime must know of the CPU: relocation numbers by neutral names.
 * Source of the numbers: System V psABI for x86-64, table 4.9, as <elf.h> has them. */
#ifndef HR_ARCH_X86_64_H
#define HR_ARCH_X86_64_H

#include <elf.h>

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

#endif
