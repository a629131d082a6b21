#include "case.h"

int hook(void) { return 3; }
int fallback(void) { return 4; }
