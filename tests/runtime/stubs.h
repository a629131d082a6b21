/* Patchable functions by hand: what the tool's instrumentation makes of `name`, in its smallest form.
 * STUB(name) makes the stub `name` and its slot; the code is `name.hr_body`, declared with BODY(name). */
#ifndef STUBS_H
#define STUBS_H

#define STUB_SLOT(name) \
  ".pushsection .data.rel.ro.hr_slot,\"aw\",@progbits\n.balign 8\n" \
  ".globl " #name ".hr_slot\n.hidden " #name ".hr_slot\n" #name ".hr_slot:\n" \
  ".quad " #name ".hr_body\n.popsection\n"

/* HOTRELOAD_STUBS=entry: the stub before the entry, and a head behind it; `name.hr_head` is the two bytes. */
#ifdef HEADS
#define STUB(name) \
  __asm__(".pushsection .text.stub." #name ",\"ax\",@progbits\n.balign 16\n.skip 9, 0xcc\n" \
          ".cfi_startproc\nnotrack jmp *" #name ".hr_slot(%rip)\n" \
          ".globl " #name "\n.type " #name ",@function\n" #name ":\nendbr64\n" \
          ".globl " #name ".hr_head\n.hidden " #name ".hr_head\n" #name ".hr_head: .byte 0x66, 0x90\n" \
          "jmp " #name ".hr_body\n.cfi_endproc\n" \
          ".size " #name ", . - " #name "\n.popsection\n" STUB_SLOT(name))
#else
#define STUB(name) \
  __asm__(".pushsection .text.stub." #name ",\"ax\",@progbits\n" \
          ".globl " #name "\n.type " #name ",@function\n" #name ":\n" \
          ".cfi_startproc\nendbr64\nnotrack jmp *" #name ".hr_slot(%rip)\n.cfi_endproc\n" \
          ".size " #name ", . - " #name "\n.popsection\n" STUB_SLOT(name))
#endif
#define BODY(name) __asm__(#name ".hr_body")

#endif
