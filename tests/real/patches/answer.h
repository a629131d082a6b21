/* What the drivers share: questions of a verb and a text with \xHH escapes, one a line; an answer ends with ".". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Undo escapes in place; returns the length. */
static size_t unescape(char *text)
{
  char *out = text;
  for (char *in = text; *in; out++)
    if (in[0] == '\\' && in[1] == 'x' && in[2] && in[3]) {
      char digits[3] = {in[2], in[3], 0};
      *out = (char)strtol(digits, NULL, 16);
      in += 4;
    } else
      *out = *in++;
  *out = 0;
  return (size_t)(out - text);
}

/* The next question: `verb` is its first word, `text` the rest. 0 at the end of the input. */
static int next_question(char *line, size_t size, char **verb, char **text, size_t *length)
{
  if (!fgets(line, (int)size, stdin))
    return 0;
  line[strcspn(line, "\n")] = 0;
  *verb = line;
  *text = strchr(line, ' ');
  if (*text)
    *(*text)++ = 0;
  else
    *text = line + strlen(line);
  *length = unescape(*text);
  return 1;
}
