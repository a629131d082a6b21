-- The script that runs in the interpreter while its source is edited: one request a line, one answer a line.
--
-- A request is a chunk; its results are the answer: "ok\t" and the values separated by ", ", or "error\t" and the
-- message, newlines written as "\n". Everything that must survive patches is made once, here, and used by state().
-- Nothing in the loop itself may call what the edits change visibly (tostring, table.concat without separator, …).

collectgarbage("incremental")

local format, gsub, select, load, pcall, read, write = string.format, string.gsub, select, load, pcall, io.read, io.write
io.stdout:setvbuf("line")

local function counter(step)
  local n = 0
  return function() n = n + step; return n end
end

local function generator(step)     -- suspended inside pcall inside a loop: C continuations are kept as pointers
  return coroutine.wrap(function()
    local n = 0
    while true do
      local ok, sent = pcall(function() n = n + step; return coroutine.yield(n) end)
      assert(ok and sent == nil)
    end
  end)
end

local Account = {}
Account.__index = Account
Account.__add = function(a, n) return setmetatable({balance = a.balance + n}, Account) end
Account.__len = function(a) return a.balance end

-- What the edits' checks use: taken before any patch, so that what they reach is what was stored then.
saved = {
  upper = string.upper, concat = table.concat, tostring = tostring, getenv = os.getenv, sqrt = math.sqrt,
  utf8len = utf8.len, status = coroutine.status, next = next, type = type, format = string.format,
  traceback = debug.traceback, resume = coroutine.resume, iotype = io.type,
  waiting = coroutine.create(function() coroutine.yield() end),
  failed = coroutine.create(function() error("failed on purpose") end),
  tointeger = math.tointeger, closed = io.tmpfile(),
}
coroutine.resume(saved.waiting)
coroutine.resume(saved.failed)
saved.closed:close()

local tick, tock = counter(1), counter(10)
local steps, leaps = generator(1), generator(1000)
local account = setmetatable({balance = 0}, Account)
local log = io.tmpfile()           -- an open file, written and read back at every call
local squares, finalized, weak = {}, 0, setmetatable({}, {__mode = "k"})
for i = 1, 5000 do squares[i] = i * i end
for i = 1, 100 do squares["k" .. i] = i end
local anchor = {}
weak[anchor] = "alive"

-- A value that the number n of calls determines: any lost or doubled piece of state shows.
function state()
  account = account + 5
  log:seek("end"); log:write("x")
  local written = log:seek("end")
  log:seek("set")
  local whole = #log:read("a") == written
  setmetatable({}, {__gc = function() finalized = finalized + 1 end})
  weak[{}] = "garbage"
  collectgarbage()
  local held = 0
  for _ in next, weak do held = held + 1 end
  local sum = 0
  for i = 1, #squares do sum = sum + squares[i] end
  for i = 1, 100 do sum = sum + squares["k" .. i] end
  return format("%d %d %d %d %d %d %s %d %d %s %d", tick(), tock(), steps(), leaps(), #account, written,
                whole and "whole" or "torn", finalized, held, weak[anchor] or "lost", sum)
end

-- Whether a collection starts while 15 MB of garbage are made.
function collects_by_itself()
  local ran = false
  collectgarbage()
  setmetatable({}, {__gc = function() ran = true end})
  for i = 1, 200000 do local _ = {i} end
  return ran
end

local function line(...)
  local out = ""
  for i = 1, select("#", ...) do
    local text = format("%s", (select(i, ...)))
    out = out .. (i > 1 and ", " or "") .. gsub(text, "\n", "\\n")
  end
  return out
end

local function answer(ok, ...)
  write(ok and "ok\t" or "error\t", line(...), "\n")
end

write("ready\n")
for request in io.lines() do
  if request == "end by an error" then error({}) end
  local chunk, message = load(request, "=ask")
  if chunk then answer(pcall(chunk)) else answer(false, message) end
end
write("bye\n")
