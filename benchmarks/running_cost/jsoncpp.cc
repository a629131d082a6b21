// A document parsed, searched, changed and printed, again and again.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>

#include "json/json.h"

static std::string document(int items) {
  Json::Value root;
  for (int i = 0; i < items; ++i) {
    Json::Value item;
    item["name"] = "item \"" + std::to_string(i) + "\" \xc3\xa4\n";
    item["value"] = i * 1.25;
    item["flag"] = (i & 1) != 0;
    for (int j = 0; j < 3; ++j)
      item["sizes"].append(i + j);
    root["items"].append(item);
  }
  return Json::StyledWriter().write(root);
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  std::string text = document(400);
  Json::CharReaderBuilder builder;
  std::unique_ptr<Json::CharReader> reader(builder.newCharReader());
  std::size_t total = 0;
  for (int i = 0; i < rounds; ++i) {
    Json::Value root;
    std::string problem;
    if (!reader->parse(text.data(), text.data() + text.size(), &root, &problem))
      return 1;
    double sum = 0;
    for (const Json::Value &item : root["items"])
      sum += item["value"].asDouble() + item["sizes"].size();
    root["sum"] = sum;
    std::ostringstream out;
    out << root;
    total += out.str().size();
  }
  std::printf("%zu\n", total);
}
