/* Patchable functions by hand: what the tool's instrumentation makes of `name`, in its smallest form.
 * STUB(name) makes the stub `name` and its slot; the code is `name.hr_body`, declared with BODY(name). */
#ifndef STUBS_H
#define STUBS_H

#define STUB(name) \
  __asm__(".pushsection .text.stub." #name ",\"ax\",@progbits\n" \
          ".globl " #name "\n.type " #name ",@function\n" #name ":\n" \
          ".cfi_startproc\nendbr64\nnotrack jmp *" #name ".hr_slot(%rip)\n.cfi_endproc\n" \
          ".size " #name ", . - " #name "\n.popsection\n" \
          ".pushsection .data.rel.ro.hr_slot,\"aw\",@progbits\n.balign 8\n" \
          ".globl " #name ".hr_slot\n.hidden " #name ".hr_slot\n" #name ".hr_slot:\n" \
          ".quad " #name ".hr_body\n.popsection\n")
#define BODY(name) __asm__(#name ".hr_body")

#endif
