#include "case.h"

int number(void) { return 1; }
