#define WITH_OBJECTS
#include "counted.h"

int other(void) { return shared.value + Of<int>::one.value; }
