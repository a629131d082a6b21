print(utf8.char(72, 228, 8364, 128512, 0x7fffffff):byte(1, -1)) print(utf8.charpattern, utf8.len("häß€😀"), utf8.len("\xff"), utf8.len("abc", 4), try(utf8.len, "abc", 5), utf8.len("\u{7fffffff}", 1, -1, true))
for p, c in utf8.codes("aä€😀") do io.write(p, ":", c, " ") end print()
print(utf8.codepoint("häß€😀", 1, -1)) print(utf8.offset("aä€😀", 3), utf8.offset("aä€😀", -1), utf8.offset("aä€😀", 5), utf8.offset("aä€😀", 6), utf8.offset("aä", 0, 3), try(utf8.offset, "ä", 1, 2))
print(try(utf8.codepoint, "\xe4"), try(utf8.codepoint, "abc", 4), try(function() for _ in utf8.codes("a\xffb") do end end), try(utf8.char, -1), utf8.len("\xed\xa0\x80"), utf8.len("\xed\xa0\x80", 1, -1, true), utf8.len("\xc0\x80"))
for c in ("naïve café"):gmatch(utf8.charpattern) do io.write("[", c, "]") end print()
local text, n = {}, 0 for i = 32, 70000, 997 do if i < 0xd800 or i > 0xdfff then n = n + 1 text[n] = utf8.char(i) end end
local all = table.concat(text) print(#all, utf8.len(all), n) local sum = 0 for _, c in utf8.codes(all) do sum = sum + c end print(sum)
print("\u{48}\u{49} \x41\65\z
       joined \'quoted\' \a\b\f\v" == "HI AA" .. "joined 'quoted' \7\8\12\11", "\065\10\z  x", [[
long
string]], [==[with ]] inside]==])
