#include "case.h"

int shared;
int *other(void) { return &shared; }
