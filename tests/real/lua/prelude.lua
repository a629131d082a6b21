-- Run before each script (LUA_INIT): output that is the same in every run, so without addresses.
local raw, concat, select, tostring, type, pcall, getmetatable = print, table.concat, select, tostring, type, pcall, getmetatable

local function plain(v)
  local kind = type(v)
  local text = tostring(v)
  return text:find("0x%x%x%x%x%x") and kind ~= "string" and kind .. " at an address" or text
end

function print(...)
  local out = {}
  for i = 1, select("#", ...) do out[i] = plain((select(i, ...))) end
  raw(concat(out, "\t"))
end

-- pcall with all its results in one value, so that a list of calls shows every message.
function try(...)
  local results = table.pack(pcall(...))
  for i = 1, results.n do results[i] = plain(results[i]) end
  return "[" .. concat(results, "|", 1, results.n) .. "]"
end
