print(("%5d|%-8s|%08.3f|%x|%X|%o|%c|%q|%i|%g|%e|%a"):format(42, "ab", 3.14159, 255, 255, 8, 65, "a\n\0\"z", 7, 1e20, 12345.678, 0.5))
print(("hello"):rep(3, "-"), ("abc"):reverse(), ("MiXed"):lower(), ("MiXed"):upper(), #("x"):rep(100000))
print(("hello"):byte(1, -1), string.char(72, 105), ("hello"):sub(-3), ("hello"):sub(2, 100), ("hello"):sub(4, 2) == "")
print(("a,b,,c"):find(",", 1, true), ("a.b"):find(".", 1, true), ("aXb"):find("%u"), ("x"):find("", 10), ("x"):find("", 2))
for i = 1, 12 do print(i, ("ab"):rep(i):len(), (("ab"):rep(i)):sub(i // 2, -i // 3)) end
print("10" + 5, "0x10" * 2, "3.5" // 1, 10 .. 20, "abc" < "abd", "Z" < "a", "" < "a", "a\0b" < "a\0c", "a\0b" == "a\0b")
print(tostring(1e15), tostring(1e16), tostring(-0.0), tostring(1 / 0), tostring(-1 / 0), tostring(2 ^ 53), tostring(2 ^ 63))
print(try(string.rep, "x", -1), try(string.format, "%d", 1.5), try(string.format, "%y", 1), try(("x").rep, "x", 1 << 62))
print(("%s %s"):format(nil, true), try(string.format, "%s"), ("%-10.3s|"):format("abcdefgh"), ("%%"):format())
local long = {}
for i = 1, 300 do long[i] = ("%03d"):format(i) end
print(#table.concat(long), table.concat(long, "", 1, 20), table.concat(long, ";", 290))
