for i = 1, 3 do for j = 1, 3 do if j == 2 then goto continue end io.write(i, ",", j, " ") ::continue:: end end print()
do local i = 1 ::top:: if i <= 5 then io.write(i, " ") i = i + 1 goto top end print() end
for i = 10, 1, -3 do io.write(i, " ") end for i = 1.0, 2.0, 0.25 do io.write(i, " ") end print()
for i = math.maxinteger - 2, math.maxinteger do io.write(i, " ") end for i = math.mininteger, math.mininteger + 2 do io.write(i, " ") end print()
print(try(function() for i = 1, 10, 0 do end end), try(function() for i = "a", 10 do end end), try(function() for i = 1, {} do end end))
local n = 0 while true do n = n + 1 if n > 100 then break end end repeat local done = n < 50 n = n - 1 until done print(n)
for _, text in ipairs({"goto nowhere", "break", "::a:: ::a::", "do goto x; local a; ::x:: print(a) end", "local x <const> = 1; x = 2", "local x <foo> = 1",
  "for i = 1 do end", "x = = 1", "return return", "'unfinished", "[[unfinished", "--[[unfinished", "x = 0x", "x = 1e", "x = '\\400'", "x = '\\u{110000000}'",
  "x = '\\q'", "a.b:c = 1", "f(", "local function end", "if x then else elseif", "x = }", "return ...", "function f() return ... end", "local t = {1, 2; 3,,}", "\27Lua"}) do
  print(load(text, "=text", "t"))
end
print(load("return " .. ("("):rep(300) .. "1" .. (")"):rep(300)))
local names = {} for i = 1, 201 do names[i] = "v" .. i end
print(load("local " .. table.concat(names, ",")))
print((function(...) local a, b = ... return a or "none", b or "none", select("#", ...) end)(nil, false, nil))
print(not nil, not 0, nil and 1, false or nil, 1 and 2, nil == false, 1 == 1.0, "1" == 1, 2 ^ 2 ^ 3, -2 ^ 2, 7 // 2 * 2 + 7 % 2, 1 .. 2 == "12", "a" .. "b" == "ab" and #"ab" + 1)
local t = {[1] = "a", "b", x = {y = {z = 1}}, [2 ^ 53] = "big", [1.5] = "f", [true] = "t"}
print(t[1], t.x.y.z, t[2 ^ 53 | 0], t[1.5], t[true], #t)
local a, b, c = (function() return 1, 2, 3 end)() print(a, b, c, ((function() return 1, 2, 3 end)()))
local i, arr = 1, {} i, arr[i] = i + 1, 20 print(i, arr[1], arr[2])
