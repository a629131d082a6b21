/* A document parsed, searched, changed and printed, again and again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cJSON.h"

static char *document(int items) {
  cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "items");
  for (int i = 0; i < items; ++i) {
    char name[64];
    cJSON *item = cJSON_CreateObject();
    snprintf(name, sizeof name, "item \"%d\" \xc3\xa4\n", i);
    cJSON_AddStringToObject(item, "name", name);
    cJSON_AddNumberToObject(item, "value", i * 1.25);
    cJSON_AddBoolToObject(item, "flag", i & 1);
    cJSON_AddItemToObject(item, "sizes", cJSON_CreateIntArray((int[]){i, i + 1, i + 2}, 3));
    cJSON_AddItemToArray(list, item);
  }
  char *text = cJSON_Print(root);
  cJSON_Delete(root);
  return text;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 100;
  char *text = document(400);
  size_t total = 0;
  for (int i = 0; i < rounds; ++i) {
    cJSON *root = cJSON_Parse(text), *item;
    double sum = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "items"))
      sum += cJSON_GetObjectItem(item, "value")->valuedouble + cJSON_GetArraySize(cJSON_GetObjectItem(item, "sizes"));
    cJSON_AddNumberToObject(root, "sum", sum);
    char *printed = cJSON_PrintUnformatted(root);
    total += strlen(printed);
    free(printed);
    cJSON_Delete(root);
  }
  printf("%zu\n", total);
  free(text);
  return 0;
}
