.text
  .globl from_assembly
  .type from_assembly, @function
from_assembly:
  leal (%rdi), %eax
  addl $20, %eax
  ret
  .size from_assembly, .-from_assembly

  .globl second_in_section
  .type second_in_section, @function
second_in_section:
  leal (%rdi,%rdi,2), %eax
  ret
  .size second_in_section, .-second_in_section
  .section .note.GNU-stack, "", @progbits
