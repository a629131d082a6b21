local function roundtrip(f, strip, ...) return load(string.dump(f, strip), "dumped", "b", ...) end
local function sample(a, b, ...) local t = {a, b, ...} local s = 0 for i = 1, #t do s = s + t[i] end return s, "const", 3.5, -7, 1e100, math.maxinteger, nil, true end
for _, strip in ipairs({false, true}) do local f = assert(roundtrip(sample, strip)) print(strip, f(1, 2, 3, 4)) print(#string.dump(sample, strip) == #string.dump(f, strip)) end
print(try(roundtrip(function() error("where") end, true))) print(try(roundtrip(function() error("where") end, false)))
local up = 5 local g = roundtrip(function() up = (up or 0) + 1 return up end) print(try(g)) debug.setupvalue(g, 1, 10) print(g(), g())
local d = string.dump(sample) for _, n in ipairs({0, 1, 4, 5, 10, 20, 31, 40, #d // 2, #d - 1}) do print(n, load(d:sub(1, n), "cut", "b")) end
print(load(d, "x", "t"), load("return 1", "x", "b"), load(d:sub(1, 4) .. "\x99" .. d:sub(6), "version"), load(d:sub(1, 10) .. "zzz" .. d:sub(14), "damaged"))
print(try(string.dump, string.rep), load(function() return nil end), load((function() local parts, i = {"return ", "1", "+", "41"}, 0 return function() i = i + 1 return parts[i] end end)())())
local env = {print = print} local h = load("x = 1; y = x + 1; return _ENV", "env", "t", env) print(h() == env, env.x, env.y, x, load("return x", "e", "t", {x = "mine"})())
print(try(load, function() error("reader failed", 0) end), load(function() return 1 end and function() return {} end)) local big = {} for i = 1, 3000 do big[i] = ("local t%d = {%d, 'string number %d', %d.5}"):format(i % 100, i, i, i) end
local code = "do " .. table.concat(big, " end do ") .. " end return 'compiled'" print(load(code)(), load(string.dump(load(code)))(), #code)
local nested = load(string.dump(function() local n = 0 return function() n = n + 1 return function() return n end end end))() print(nested()(), nested()(), select("#", nested()))
print(dofile("/dev/null"), try(dofile, "/nonexistent.lua"), loadfile("/nonexistent.lua"))
