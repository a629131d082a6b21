// dynamic_cast and typeid over objects and types of several generations.
#include "case.h"
//# Expect: dog 1 not cat

#include <typeinfo>
struct Animal { virtual ~Animal() {} };
struct Dog : Animal { virtual void bark() {} };
struct Cat : Animal { virtual void purr() {} };
static Animal *kept;
NOINLINE const char *kind(Animal *a) { return dynamic_cast<Cat *>(a) ? "cat" : "not cat"; }

void answer(const char *line)
{
  (void)line;
  if (!kept)
    kept = new Dog;
  printf("%s %d %s\n", dynamic_cast<Dog *>(kept) ? "dog" : "none", typeid(*kept) == typeid(Dog), kind(kept));
}
