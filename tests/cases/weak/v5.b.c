#include "case.h"

int hook(void) { return 3; }
