#include "case.h"

int something;
int extra(void) { return 6; }
