print(("key = value"):match("^(%w+)%s*=%s*(%w+)$"), ("[[x]]"):match("%[%[(.-)%]%]"), ("2024-01-31"):match("(%d+)-(%d+)-(%d+)"))
print(("hello world from Lua"):gsub("(%w+)", "<%1>"), ("abc"):gsub("", "-"), ("abc"):gsub("%w", "%0%0", 2))
print(("$name is $age"):gsub("%$(%w+)", {name = "X", age = 7}), ("a b c"):gsub("%a", function(c) if c ~= "b" then return c:upper() end end))
for k, v in ("a=1, b=2, c=3"):gmatch("(%w+)=(%w+)") do io.write(k, ":", v, " ") end print()
for p in ("x.y.z"):gmatch("()%.") do io.write(p, " ") end print()
print(("THE (quick) fox"):find("%((%a+)%)"), ("f(a(b)c)d"):match("%b()"), ("THE (quick) fox"):gsub("%f[%a]%a+", string.lower))
print(("  trim me  "):match("^%s*(.-)%s*$") .. "|", ("aaa"):match("a-b"), ("aaab"):match("a-b"), ("a\0b"):match("%z"), ("x^y"):match("[%^]"))
print(try(string.match, "x", "(x"), try(string.match, "x", "[x"), try(string.match, "x", "%"), try(string.gsub, "x", "x", "%2"))
print(try(string.match, ("a"):rep(300000), ("a?"):rep(300000) .. "b"))
print(("äöü"):gsub("[\x80-\xff]", function(c) return ("%02x"):format(c:byte()) end), ("a-b_c"):gsub("[^%w]", "."), ("0123"):match("[0-2]+"))
print(("x = 10 -- comment\ny"):gsub("%-%-[^\n]*", ""), ("%d"):gsub("%%d", "%%s"), ("abcabc"):match("(a)(b)(c)%1%2%3"))
local words = {}
for w in ("the quick brown fox jumps over the lazy dog the end"):gmatch("%a+") do words[w] = (words[w] or 0) + 1 end
local names = {}
for w in pairs(words) do names[#names + 1] = w end
table.sort(names)
for _, w in ipairs(names) do io.write(w, "=", words[w], " ") end print()
