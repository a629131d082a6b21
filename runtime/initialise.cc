// Goes into payloads that bring objects which code initialises; compiled by the user's C++ compiler when one is made,
// because what is thrown must be caught as C++ does it. Of the library it needs <exception> alone.
#include <exception>

extern "C" {

// The functions to run, by the payload's tables; a null ends them.
extern void (*const hr_initialisers[])() __attribute__((visibility("hidden")));

// The type of what is being handled (in libsupc++ and libc++abi).
const void *const *__cxa_current_exception_type();

static void tell(char *said, unsigned long size, const char *text)
{
  unsigned long i;

  for (i = 0; text[i] && i + 1 < size; i++)
    said[i] = text[i];
  said[i] = 0;
}

// Runs all of them, in order. 0: done. Not 0: one was left by an exception, and `said` tells what it was.
__attribute__((visibility("hidden"))) int hr_run_initialisers(char *said, unsigned long size)
{
  unsigned long i;

  try {
    for (i = 0; hr_initialisers[i]; i++)
      hr_initialisers[i]();
    return 0;
  } catch (const std::exception &e) {
    tell(said, size, e.what());
  } catch (...) {
    // A std::type_info is a table of virtual functions and then the mangled name (Itanium C++ ABI §2.9.4).
    const void *const *type = __cxa_current_exception_type();
    tell(said, size, type ? static_cast<const char *>(type[1]) : "of another language");
  }
  return 1;
}
}
