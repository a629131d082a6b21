local function gen(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end return "end" end) end
local g = gen(3)
print(g(), g(), g(), g(), try(g))
local co = coroutine.create(function(a, b)
  local c = coroutine.yield(a + b)
  local d, e = coroutine.yield(c * 2)
  local ok, err = pcall(function() coroutine.yield("in pcall") error({code = 7}) end)
  return d + e, ok, err.code
end)
print(coroutine.status(co), coroutine.resume(co, 1, 2))
print(coroutine.resume(co, 10)) print(coroutine.resume(co, 3, 4)) print(coroutine.resume(co)) print(coroutine.resume(co))
print(coroutine.status(co), coroutine.isyieldable(), select(2, coroutine.running()))
local function permutations(a, n)
  n = n or #a
  if n <= 1 then coroutine.yield(table.concat(a)) else
    for i = 1, n do a[n], a[i] = a[i], a[n] permutations(a, n - 1) a[n], a[i] = a[i], a[n] end
  end
end
local all = {}
for p in coroutine.wrap(function() permutations({"a", "b", "c", "d"}) end) do all[#all + 1] = p end
print(#all, table.concat(all, " "))
local function producer() return coroutine.create(function() for _, v in ipairs({"x", "y", "z"}) do coroutine.yield(v) end end) end
local function filter(p) return coroutine.create(function() for n = 1, math.huge do local _, v = coroutine.resume(p) if not v then return end coroutine.yield(n .. v) end end) end
local f = filter(producer())
repeat local _, v = coroutine.resume(f) io.write(tostring(v), " ") until not v print()
local mt = setmetatable({}, {__add = function(a, b) return coroutine.yield("metamethod") end, __index = function(_, k) return coroutine.yield(k) end})
local w = coroutine.wrap(function() return mt + 1, mt.field end)
print(w(), w(5), w(6))
print(coroutine.resume(coroutine.create(function() local x <close> = setmetatable({}, {__close = function() print("closing") end}) error("oops") end)))
local c = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() print("closed by close") end}) coroutine.yield() end)
coroutine.resume(c) print(coroutine.close(c), coroutine.status(c))
local depth = 0
local function nest() depth = depth + 1 if depth < 100 then return coroutine.wrap(nest)() end return depth end
print(nest())
print(try(coroutine.wrap(function() for k in pairs({}) do end return table.unpack({1, 2, 3}) end)))
local many = {}
for i = 1, 2000 do many[i] = coroutine.wrap(function() local s = 0 while true do s = s + i coroutine.yield(s) end end) end
local total = 0
for round = 1, 5 do for i = 1, 2000 do total = total + many[i]() end end
print(total)
