/* Every case includes this. The program reads lines from standard input and calls answer() with each; whatever that
 * prints is the answer. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

#ifdef __cplusplus
extern "C" {
#endif

void answer(const char *line);

/* Ends the answer and waits, with all the frames there are, until the program is asked again; returns that line. */
const char *wait_here(void);

#ifdef __cplusplus
}
#endif
