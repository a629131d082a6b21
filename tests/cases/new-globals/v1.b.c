#include "case.h"

int something;
