local V = {}
V.__index = V
local function vec(x, y) return setmetatable({x = x, y = y}, V) end
for name, op in pairs({__add = function(a, b) return vec(a.x + b.x, a.y + b.y) end, __sub = function(a, b) return vec(a.x - b.x, a.y - b.y) end,
  __mul = function(a, k) return vec(a.x * k, a.y * k) end, __unm = function(a) return vec(-a.x, -a.y) end, __eq = function(a, b) return a.x == b.x and a.y == b.y end,
  __lt = function(a, b) return a.x < b.x end, __le = function(a, b) return a.x <= b.x end, __len = function(a) return 2 end,
  __call = function(self, ...) return select("#", ...), self.x end, __concat = function(a, b) return "vec.." end, __tostring = function(a) return "(" .. a.x .. "," .. a.y .. ")" end,
  __idiv = function() return "idiv" end, __div = function() return "div" end, __mod = function() return "mod" end, __pow = function() return "pow" end,
  __band = function() return "band" end, __bor = function() return "bor" end, __bxor = function() return "bxor" end, __shl = function() return "shl" end,
  __shr = function() return "shr" end, __bnot = function() return "bnot" end, __name = "Vector"}) do V[name] = op end
local a, b = vec(1, 2), vec(3, 4)
print(tostring(a + b), tostring(a - b), tostring(a * 3), tostring(-a), a == vec(1, 2), a ~= b, a < b, a <= b, a > b, #a, a(1, 2, 3))
print(a .. b, a .. "x", 1 .. a, a // 1, a / 1, a % 1, a ^ 1, a & 1, a | 1, a ~ 1, a << 1, a >> 1, ~a)
local log = {}
local proxy = setmetatable({}, {__index = function(t, k) log[#log + 1] = "get " .. tostring(k) return k end, __newindex = function(t, k, v) log[#log + 1] = "set " .. k rawset(t, k, v) end})
proxy.a = proxy.b proxy.a = 2 print(proxy.a, proxy.zzz, rawget(proxy, "q"), table.concat(log, ";"))
local base = {greet = function(self) return "I am " .. self.name end}
local derived = setmetatable({}, {__index = base})
local obj = setmetatable({name = "obj"}, {__index = derived})
print(obj:greet(), try(function() return obj:nothing() end))
print(try(setmetatable, setmetatable({}, {__metatable = "locked"}), {}), getmetatable(setmetatable({}, {__metatable = "locked"})), getmetatable("x").__index == string)
print(try(function() return a < 1 end), try(function() return {} < {} end), try(function() return {} .. "x" end), try(function() return #5 end))
local it = setmetatable({}, {__pairs = function(t) return function(_, k) k = (k or 0) + 1 if k <= 3 then return k, k * k end end, t, nil end})
for k, v in pairs(it) do io.write(k, "=", v, " ") end print()
local loop = {} setmetatable(loop, {__index = loop}) print(try(function() return loop.x end))
print(try(next, {}, "nokey"), rawequal(a, a), rawlen({1, 2}), rawlen("abc"))
