local lines, calls = {}, {} local function f(x) local y = x + 1
  return y
end
debug.sethook(function(e, l) lines[#lines + 1] = l end, "l") f(1) debug.sethook() print(#lines > 2, lines[#lines - 1])
debug.sethook(function(e) local i = debug.getinfo(2, "nS") calls[#calls + 1] = e .. ":" .. tostring(i.name) .. ":" .. i.what end, "cr") f(1) string.rep("x", 2) debug.sethook() print(table.concat(calls, " "))
local ticks = 0 debug.sethook(function() ticks = ticks + 1 end, "", 100) for i = 1, 10000 do end debug.sethook() print(ticks > 50, debug.gethook() == nil)
local function locals(a, b) local c, d = a + b, "d" local out, i = {}, 1 while true do local n, v = debug.getlocal(1, i) if not n then break end out[#out + 1] = n .. "=" .. tostring(type(v) == "table" and "table" or v) i = i + 1 end return table.concat(out, " ") end print(locals(1, 2))
local function change() local v = 1 debug.setlocal(1, 1, "changed") return v end print(change(), debug.getlocal(f, 1), debug.getlocal(f, 5))
local function outer() local a, b = 1, 2 return function() return a, b end, function() a = a + 1 end end local g, h = outer() print(debug.upvalueid(g, 1) == debug.upvalueid(h, 1), debug.upvalueid(g, 2) == debug.upvalueid(h, 1)) h() print(g())
local k = (function() local z = "other" return function() return z end end)() debug.upvaluejoin(g, 1, k, 1) print(g()) print(try(debug.getinfo, 1, "?"), debug.getinfo(100), try(debug.sethook, 1))
local u = io.tmpfile() print(debug.setuservalue(u, 1, 1) == nil, debug.getuservalue(u, 1), debug.getmetatable(u).__name, debug.getregistry() ~= nil) for _, w in ipairs({"n", "S", "l", "t", "u", "r"}) do local i = debug.getinfo(1, w) local ks = {} for key in pairs(i) do ks[#ks + 1] = key end table.sort(ks) print(w, table.concat(ks, " ")) end
local ok = pcall(function() debug.sethook(function() debug.sethook() error("from hook", 0) end, "l")
  local x = 1
end) debug.sethook() print(ok) local i = debug.getinfo(f, "SL") local active = {} for l in pairs(i.activelines) do active[#active + 1] = l end table.sort(active) print(i.linedefined, table.concat(active, " "))
