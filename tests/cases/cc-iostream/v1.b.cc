#include "case.h"
#include <iostream>
#include <string>

std::string zero(void) { return std::cout.good() ? "zero" : "bad"; }
