#include "case.h"
//# Patch: ok
//# Expect: hound 1 no cat
//# Reject: dog

#include <typeinfo>
struct Animal { virtual ~Animal() {} };
struct Dog : Animal { virtual void bark() {} };
struct Cat : Animal { virtual void purr() {} };
static Animal *kept;
NOINLINE const char *kind(Animal *a) { return dynamic_cast<Cat *>(a) ? "cat" : "no cat"; }

void answer(const char *line)
{
  (void)line;
  if (!kept)
    kept = new Dog;
  printf("%s %d %s\n", dynamic_cast<Dog *>(kept) ? "hound" : "none", typeid(*kept) == typeid(Dog), kind(kept));
}
