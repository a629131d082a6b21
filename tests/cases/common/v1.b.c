#include "case.h"

extern int shared;
int *other(void) { return &shared; }
