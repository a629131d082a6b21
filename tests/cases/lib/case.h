/* Every case includes this. The program reads lines from standard input and calls answer() with each; whatever that
 * prints is the answer. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

#ifdef __cplusplus
extern "C" void answer(const char *line);
#else
void answer(const char *line);
#endif
