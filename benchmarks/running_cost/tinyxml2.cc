// A document parsed, walked, changed and printed, again and again.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tinyxml2.h"

using namespace tinyxml2;

static std::string document(int items) {
  XMLDocument made;
  XMLElement *root = made.NewElement("catalogue");
  made.InsertEndChild(root);
  for (int i = 0; i < items; ++i) {
    XMLElement *item = root->InsertNewChildElement("item");
    item->SetAttribute("id", i);
    item->SetAttribute("price", i * 1.25);
    item->SetAttribute("name", "a < b & \"c\"");
    item->InsertNewChildElement("text")->SetText("some text & more <text>");
    item->InsertNewComment(" a comment ");
  }
  XMLPrinter printer;
  made.Print(&printer);
  return printer.CStr();
}

static double walk(const XMLElement *element) {
  double sum = 0;
  for (const XMLAttribute *a = element->FirstAttribute(); a; a = a->Next())
    sum += a->DoubleValue();
  for (const XMLElement *child = element->FirstChildElement(); child; child = child->NextSiblingElement())
    sum += walk(child);
  return sum;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  std::string text = document(400);
  double sum = 0;
  std::size_t total = 0;
  for (int i = 0; i < rounds; ++i) {
    XMLDocument parsed;
    if (parsed.Parse(text.c_str(), text.size()) != XML_SUCCESS)
      return 1;
    sum += walk(parsed.RootElement());
    parsed.RootElement()->SetAttribute("round", i);
    XMLPrinter printer(nullptr, true);
    parsed.Print(&printer);
    total += printer.CStrSize();
  }
  std::printf("%.2f %zu\n", sum, total);
}
