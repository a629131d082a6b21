#pragma once
#include "case.h"

int number(int n);
extern int made;
struct Counted {
  int value;
  NOINLINE explicit Counted(int n) : value(number(n)) { made++; }
  NOINLINE ~Counted() { made--; }
};
#ifdef WITH_OBJECTS
inline Counted shared(7);
template <typename T> struct Of { static Counted one; };
template <typename T> Counted Of<T>::one(9);
#endif
