#ifndef HANDLER_H
#define HANDLER_H

void on_line(const char *line);

#endif
