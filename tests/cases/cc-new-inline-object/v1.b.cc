#include "counted.h"

int other(void) { return number(2); }
