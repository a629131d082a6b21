/* Asks libtasn1: decodes DER of a small module, and prints what it found. */
#include "answer.h"
#include <libtasn1.h>

static const asn1_static_node module[] = {
  {"TEST", 536872976, NULL}, {NULL, 1073741836, NULL},
  {"Numbers", 1610612747, NULL}, {NULL, 3, NULL}, {NULL, 0, NULL}};

static void decode(const char *der, size_t length)
{
  char message[ASN1_MAX_ERROR_DESCRIPTION_SIZE] = "";
  asn1_node definitions = NULL, numbers = NULL;
  int code = asn1_array2tree(module, &definitions, message);
  if (code == ASN1_SUCCESS)
    code = asn1_create_element(definitions, "TEST.Numbers", &numbers);
  if (code == ASN1_SUCCESS)
    code = asn1_der_decoding(&numbers, der, (int)length, message);
  printf("%s %s\n", asn1_strerror(code), message);
  for (int i = 1, size = 8; code == ASN1_SUCCESS; i++, size = 8) {
    char name[16];
    unsigned char value[8];
    snprintf(name, sizeof name, "?%d", i);
    code = asn1_read_value(numbers, name, value, &size);
    if (code == ASN1_SUCCESS)
      printf("%s: %d bytes, first %d\n", name, size, value[0]);
  }
  asn1_delete_structure(&numbers);
  asn1_delete_structure(&definitions);
}

int main(void)
{
  static char line[1 << 16];
  char *verb, *text;
  size_t length;
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (next_question(line, sizeof line, &verb, &text, &length)) {
    decode(text, length);
    puts(".");
  }
  return 0;
}
