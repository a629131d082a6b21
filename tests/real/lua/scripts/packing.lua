local function hex(s) return (s:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
for _, f in ipairs({"b", "B", "h", "H", "i", "I", "l", "j", "<i3", ">i3", "<I5", ">I8", "i16", "<d", ">d", "<f", ">f", "<n", "=j"}) do
  print(f, hex(string.pack(f, 100)), string.packsize(f), string.unpack(f, string.pack(f, 100)))
end
print(hex(string.pack("z", "abc")), hex(string.pack("s1", "abc")), hex(string.pack("<s4", "abc")), hex(string.pack("c5", "abc")), hex(string.pack("<i2 >i2 =i1", 1, 2, 3)))
print(hex(string.pack("!4 b i4", 1, 2)), hex(string.pack("!8 b Xd d", 1, 2)), hex(string.pack("b x b", 1, 2)), string.unpack("<i4", "\1\2\3\4\5\6\7\8", 3))
print(try(string.pack, "i17", 1), try(string.pack, "B", 300), try(string.pack, "b", 200), try(string.unpack, "i4", "abc"), try(string.pack, "z", "a\0b"), try(string.pack, "q", 1), try(string.pack, "c", "a"), try(string.packsize, "s"))
print(string.unpack("z s1 B", "hello\0\3abc\255"), string.unpack("<i16", string.pack("<i16", -2)), try(string.unpack, "<i16", ("\255"):rep(8) .. "\1" .. ("\0"):rep(7)))
local record = string.pack(">I2 s2 d z", 7, "payload", math.pi, "end")
print(#record, hex(record), string.unpack(">I2 s2 d z", record))
for _, v in ipairs({0, 1, -1, 127, -128, 32767, 2147483647, -2147483648, math.maxinteger, math.mininteger}) do print(v, hex(string.pack("<j", v)), (string.unpack("<j", string.pack("<j", v)))) end
