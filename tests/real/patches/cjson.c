/* Asks cJSON: what it parses, how it prints, what it does with misuse. */
#include "answer.h"
#include "cJSON.h"
#include "cJSON_Utils.h"

static void print_item(cJSON *item)
{
  char *printed = item ? cJSON_PrintUnformatted(item) : NULL;
  puts(printed ? printed : "nothing");
  cJSON_free(printed);
}

/* Text in memory of its exact size, so that a byte read behind it is somebody else's. */
static void parse_exactly(const char *text, size_t length)
{
  char *copy = malloc(length ? length : 1);
  memcpy(copy, text, length);
  cJSON *item = cJSON_ParseWithLength(copy, length);
  print_item(item);
  cJSON_Delete(item);
  free(copy);
}

static void pointer(char *text)
{
  char *path = strchr(text, ' ');
  if (path)
    *path++ = 0;
  cJSON *item = cJSON_Parse(text);
  print_item(path ? cJSONUtils_GetPointer(item, path) : NULL);
  cJSON_Delete(item);
}

static void set_string(const char *verb)
{
  cJSON *item = cJSON_CreateString("text");
  char *set = cJSON_SetValuestring(strcmp(verb, "set-nothing") ? item : NULL, strcmp(verb, "set-null") ? "new" : NULL);
  printf("%s %s\n", set ? set : "refused", item->valuestring);
  cJSON_Delete(item);
}

static void insert_nothing(void)
{
  cJSON *array = cJSON_Parse("[1,2]");
  printf("%d\n", cJSON_InsertItemInArray(array, 0, NULL));
  print_item(array);
  cJSON_Delete(array);
}

int main(void)
{
  static char line[1 << 16];
  char *verb, *text;
  size_t length;
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (next_question(line, sizeof line, &verb, &text, &length)) {
    if (!strcmp(verb, "parse"))
      parse_exactly(text, length);
    else if (!strcmp(verb, "pointer"))
      pointer(text);
    else if (!strncmp(verb, "set", 3))
      set_string(verb);
    else if (!strcmp(verb, "insert"))
      insert_nothing();
    puts(".");
  }
  return 0;
}
