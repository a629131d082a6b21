#include "case.h"
//# Patch: ok
//# Expect: hound 1 a cow 1

#include <typeinfo>
struct Animal { virtual ~Animal() {} };
struct Dog : Animal { virtual void bark() {} };
struct Cow : Animal { virtual void moo() {} };
struct Cat : Animal { virtual void purr() {} };
static Animal *kept;
NOINLINE const char *kind(Animal *a) { Cow cow;
  Animal *b = &cow;
  return dynamic_cast<Cow *>(a) ? "cow" : dynamic_cast<Cow *>(b) && typeid(*b) != typeid(*a) ? "a cow" : "none"; }

void answer(const char *line)
{
  (void)line;
  if (!kept)
    kept = new Dog;
  printf("%s %d %s 1\n", dynamic_cast<Dog *>(kept) ? "hound" : "none", typeid(*kept) == typeid(Dog), kind(kept));
}
