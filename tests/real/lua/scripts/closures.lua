local function make(n) local self = {} function self.add(k) n = n + k return n end function self.get() return n end return self end
local a, b = make(1), make(100)
a.add(5) b.add(7) a.add(1)
print(a.get(), b.get())
local fs = {}
for i = 1, 5 do local j = i * i fs[i] = function() j = j + 1 return i, j end end
for i = 1, 5 do fs[i]() print(fs[i]()) end
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print(fib(24))
local function compose(...) local list = {...} return function(x) for i = #list, 1, -1 do x = list[i](x) end return x end end
print(compose(function(x) return x + 1 end, function(x) return x * 2 end, math.abs)(-20))
local y = (function(f) return (function(x) return x(x) end)(function(x) return f(function(v) return x(x)(v) end) end) end)
print(y(function(self) return function(n) return n == 0 and 1 or n * self(n - 1) end end)(15))
local shared = {}
do local v = 0 shared.up = function() v = v + 1 return v end shared.down = function() v = v - 1 return v end end
print(shared.up(), shared.up(), shared.down(), debug.getupvalue(shared.up, 1))
print(debug.setupvalue(shared.up, 1, 41), shared.up(), shared.down())
local t = setmetatable({}, {__close = function(_, e) print("closed", e) end})
do local x <close> = t local c <const> = 10 print("inside", c) end
print(try(function() local x <close> = t error("boom", 0) end))
local function memo(f) local cache = {} return function(n) local v = cache[n] if v == nil then v = f(n) cache[n] = v end return v end end
local slow; slow = memo(function(n) return n < 2 and n or slow(n - 1) + slow(n - 2) end)
print(slow(80))
