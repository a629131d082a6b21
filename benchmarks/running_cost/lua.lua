-- Calls, floating point, tables, allocation, strings, closures: about equal shares of a second.
local scale = tonumber(arg and arg[1]) or 1

local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end

local function spectral(n)
  local function A(i, j) local ij = i + j - 1 return 1.0 / (ij * (ij - 1) * 0.5 + i) end
  local u = {}
  for i = 1, n do u[i] = 1 end
  for _ = 1, 4 do
    local v = {}
    for i = 1, n do
      local a = 0
      for j = 1, n do a = a + u[j] * A(i, j) end
      v[i] = a
    end
    u = v
  end
  return u[1]
end

local function tree(depth)
  if depth == 0 then return {} end
  return {tree(depth - 1), tree(depth - 1)}
end
local function count(t) if t[1] then return 1 + count(t[1]) + count(t[2]) end return 1 end

local function strings(n)
  local parts, total = {}, 0
  for i = 1, n do
    local s = string.format("%d:%s", i, tostring(i * 1.5)):upper()
    parts[#parts + 1] = s:sub(2, -2):gsub("(%d)(%d)", "%2%1")
    total = total + #s + (s:find("5", 1, true) or 0)
    if #parts == 100 then total = total + #table.concat(parts, ","); parts = {} end
  end
  return total
end

local function objects(n)
  local mt = {__add = function(a, b) return setmetatable({v = a.v + b.v}, getmetatable(a)) end}
  mt.__index = mt
  function mt:get() return self.v end
  local sum = setmetatable({v = 0}, mt)
  local one = setmetatable({v = 1}, mt)
  for _ = 1, n do sum = sum + one; sum:get() end
  return sum.v
end

local function sorting(n)
  local t, x = {}, 42
  for i = 1, n do x = (x * 1103515245 + 12345) % 2147483648; t[i] = x end
  table.sort(t, function(a, b) return a < b end)
  return t[1] + t[n]
end

print(fib(25 + scale), spectral(110 * scale), count(tree(13 + scale)), strings(20000 * scale), objects(100000 * scale),
      sorting(25000 * scale))
