#include "case.h"

int counter = 10;
int next_number(void) { return ++counter; }
