for _, mode in ipairs({"incremental", "generational"}) do
  collectgarbage(mode)
  local finalized = 0
  for i = 1, 2000 do setmetatable({}, {__gc = function() finalized = finalized + 1 end}) end
  collectgarbage() collectgarbage()
  print(mode, finalized)
  local weak = setmetatable({}, {__mode = "v"})
  local kept = {}
  for i = 1, 100 do local t = {i} weak[i] = t if i % 10 == 0 then kept[#kept + 1] = t end end
  collectgarbage() collectgarbage()
  local alive = 0
  for _ in pairs(weak) do alive = alive + 1 end
  print("weak values", alive, #kept)
  local ephemeron = setmetatable({}, {__mode = "k"})
  do local k = {} for i = 1, 50 do local n = {} ephemeron[k] = n k = n end end
  collectgarbage() collectgarbage()
  print("ephemerons", next(ephemeron) == nil)
  local list
  for i = 1, 300000 do list = {next = (i % 1000 ~= 0) and list or nil, value = i, text = (i % 7 == 0) and tostring(i) or nil} end
  local n, sum = 0, 0
  while list do n, sum, list = n + 1, sum + list.value, list.next end
  print("list", n, sum)
end
print(collectgarbage("count") > 0, collectgarbage("isrunning"), collectgarbage("stop"), collectgarbage("isrunning"), collectgarbage("restart"))
print(collectgarbage("incremental", 100, 200), collectgarbage("step", 100) ~= nil, collectgarbage("generational"))
local order = {}
for i = 1, 5 do setmetatable({}, {__gc = function() order[#order + 1] = i end}) end
collectgarbage() collectgarbage()
print(table.concat(order, " "))
local revived
setmetatable({name = "again"}, {__gc = function(o) revived = o end})
collectgarbage() print(revived.name)
warn("@on") setmetatable({}, {__gc = function() error("in a finalizer", 0) end}) collectgarbage() collectgarbage()
setmetatable({}, {__gc = function() print("at the end of the state") end})
