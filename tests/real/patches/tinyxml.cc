// Asks TinyXML: each text is parsed and printed again, with the error if there was one.
#include "answer.h"
#include "tinyxml.h"

static void parse(const char *text)
{
  TiXmlDocument document;
  document.Parse(text);
  TiXmlPrinter printer;
  printer.SetStreamPrinting();
  document.Accept(&printer);
  printf("%s\n%s\n", printer.CStr(), document.Error() ? document.ErrorDesc() : "no error");
}

int main()
{
  static char line[1 << 16];
  char *verb, *text;
  size_t length;
  setvbuf(stdout, nullptr, _IOLBF, 0);
  puts("ready");
  while (next_question(line, sizeof line, &verb, &text, &length)) {
    parse(text);
    puts(".");
  }
}
